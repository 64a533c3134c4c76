"""Many seeds at once: each model is the one that its seed gives alone; figures over seeds, and their ensemble."""

import json
import os
import pickle
import re
import statistics
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from functools import cache
from io import StringIO
from types import SimpleNamespace
from unittest.mock import patch

import jax
import numpy as np
import pytest
from protocols import cross_validation, in_sample
from test_training import dataset

from recsys_jax import DeepConfig, InputError, WideConfig, load_dataset
from recsys_jax.cli import evaluate, train
from recsys_jax.console import reports
from recsys_jax.data.tables import Table
from recsys_jax.evaluation.methods import model_scorer
from recsys_jax.models.trained import Ensemble
from recsys_jax.training import loop as training
from recsys_jax.training.fit import fit, fit_seeds

# Batches of 64: all, two of three folds, and those that a mask leaves fill up to 128 rows, one compiled program.
DATA = dataset(customers=120)
EPOCHS = 3
SMALL = {"epochs": EPOCHS, "batch_size": 64, "embedding_dim": 4, "hidden_dim": 8, "output_dim": 4}
RECIPES = {
    "triplet": DeepConfig(**SMALL),
    "triplet, semi-hard": DeepConfig(negatives="semi-hard", attribute_dropout=0.3, **SMALL),
    "infonce": DeepConfig(loss="infonce", popularity_bias=True, attribute_dropout=0.3, number_jitter=0.5, **SMALL),
    "softmax": DeepConfig(loss="softmax", id_embedding=True, id_dropout=0.3, extra_customers=20, **SMALL),
}
STEPS = EPOCHS * 3  # at most, with the extra customers
# Alone and side by side, a step rounds differently. Of a gradient that is zero but for rounding (a number that
# normalisation takes out again) Adam makes a step as long as any other, 1e-3, and in either direction.
AWAY = 2 * 1e-3 * STEPS
SEEDS = [5, 0, 7]


@cache
def together(name):
    """Three models of a recipe, trained together."""
    return fit_seeds(DATA, RECIPES[name], SEEDS)


def close(one, other) -> None:
    """Holds where two models are the same but for rounding."""
    np.testing.assert_allclose(one.losses, other.losses, rtol=1e-3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=AWAY), one.variables, other.variables)
    np.testing.assert_allclose(one.product_embeddings, other.product_embeddings, atol=AWAY)
    assert (one.config, one.batches, one.trained_on) == (other.config, other.batches, other.trained_on)
    assert (one.customers, one.products, one.product_ids) == (other.customers, other.products, other.product_ids)
    np.testing.assert_array_equal(one.purchases, other.purchases)


LONG = pytest.mark.slow(reason="one more loss, compiled twice; the gate has three")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[LONG] * ("hard" in name)) for name in RECIPES])
def test_each_is_the_model_of_its_seed_alone(name):
    models = together(name)
    assert [model.config for model in models] == [replace(RECIPES[name], seed=seed) for seed in SEEDS]
    for model in models:
        close(model, fit(DATA, model.config))
    # What is asserted can fail: another seed is further away than rounding leads.
    for other in models[1:]:
        assert not np.isclose(other.losses, models[0].losses, rtol=1e-3).all()
        assert np.abs(other.product_embeddings - models[0].product_embeddings).max() > 10 * AWAY


def test_seeds_divided_among_devices_are_the_same(tmp_path):
    """Three seeds on two devices: one of them is filled up with a seed whose result is left."""
    code = "import jax, pickle, sys, test_seeds as t; models = t.together('triplet'); "
    code += "pickle.dump((jax.device_count(), models), open(sys.argv[1], 'wb'))"
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, tmp_path / "out"], env=os.environ | flags, check=True)
    devices, models = pickle.loads((tmp_path / "out").read_bytes())
    assert devices == 2
    for model, other in zip(together("triplet"), models, strict=True):
        close(model, other)


def test_the_order_of_the_seeds_does_not_matter():
    models = together.__wrapped__("triplet")  # now: what was compiled before may have been given back since
    before = training._epochs_of_seeds._cache_size()
    for model, again in zip(models, reversed(fit_seeds(DATA, RECIPES["triplet"], SEEDS[::-1])), strict=True):
        close(model, again)
    assert training._epochs_of_seeds._cache_size() == before  # and other seeds run the same program


# Of shared data three seeds at once; of extra customers, which each seed draws anew, one.
@pytest.mark.parametrize(("name", "size", "done"), [("triplet", 3, [3, 5]), ("softmax", 1, [1, 2, 3, 4, 5])])
def test_portions_give_the_same_as_all_at_once(name, size, done):
    """Five seeds, three at once: the second portion is filled up, and each seed comes back once, in its place."""
    models = together.__wrapped__(name)  # now, for the same reason
    before = training._epochs_of_seeds._cache_size()
    told = []
    seeds = [SEEDS[0], 1, SEEDS[1], 2, SEEDS[2]]
    options = {"progress": lambda *one: told.append(one), "at_once": 3}
    found = fit_seeds(DATA, RECIPES[name], seeds, **options)
    assert [model.config.seed for model in found] == seeds
    for model, again in zip(models, found[::2], strict=True):
        close(model, again)
    assert training._epochs_of_seeds._cache_size() == before  # both portions run the program of three
    assert [one[:2] for one in told] == [(number * EPOCHS, 5 * EPOCHS) for number in done]  # summed over the seeds
    for (*_, said), last in zip(told, done, strict=True):
        mean = sum(float(model.losses[-1]) for model in found[last - size : last]) / size
        assert float(said.removeprefix("loss ")) == pytest.approx(mean, rel=1e-3)


def test_what_is_held_out_moves_nothing():
    """Poisoned values and purchases of held-out customers leave every learned number as it was."""
    mask = DATA.purchases[:, 0] < 100
    columns = {name: list(column) for name, column in DATA.customers.columns.items()}
    columns["age"][100:] = [1e6] * 20
    pairs = DATA.purchases.copy()
    pairs[100:, 1] = 0
    poisoned = replace(DATA, customers=Table("poisoned", columns), purchases=pairs)
    clean, other = (fit_seeds(one, RECIPES["triplet"], SEEDS, train=mask) for one in (DATA, poisoned))
    for one, two in zip(clean, other, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one.variables, two.variables)
        assert one.purchases.sum() == 100
        assert one.trained_on == ""
    close(clean[1], fit(DATA, clean[1].config, train=mask))


@pytest.mark.parametrize(
    ("seeds", "options", "sentence"),
    [
        ([], {}, r"^seeds: found none; allowed: one or more$"),
        ([1, 2, 1], {}, r"^seeds: found 1 more than once; allowed: each seed once$"),
        ([0, -1], {}, r"^seed: found -1; allowed: from 0 to 4294967295$"),
        ([0, 2**32], {}, r"^seed: found 4294967296; allowed: "),
        ([0], {"at_once": 0}, r"^at_once: found 0; allowed: 1 or more$"),
    ],
)
def test_bad_seeds_are_sentences(seeds, options, sentence):
    with pytest.raises(InputError, match=sentence):
        fit_seeds(DATA, RECIPES["triplet"], seeds, **options)
    if not options:
        with pytest.raises(InputError, match=sentence):
            cross_validation(DATA, RECIPES["triplet"], (1,), seeds=seeds)


def test_a_recipe_with_one_fit_takes_one_seed():
    wide = WideConfig(own_l2=10.0, attribute_l2=float("inf"), factor_l2=float("inf"))
    [model] = fit_seeds(DATA, wide, [3])
    assert model.config.seed == 3
    np.testing.assert_array_equal(model.product_embeddings, fit(DATA, model.config).product_embeddings)
    with pytest.raises(InputError, match=r"^seeds: found 2; allowed: one with the wide recipe"):
        fit_seeds(DATA, wide, [0, 1])


@pytest.mark.parametrize("name", ["triplet", "infonce"])  # without and with a popularity bias
def test_an_ensembles_score_is_the_mean_of_its_models_scores(name):
    models, rows = together(name), np.arange(120)
    each = [model_scorer(model, DATA)(rows) for model in models]
    assert np.abs(each[0] - each[1]).max() > 0.01
    assert bool(models[0].product_bias.any()) == (name == "infonce")
    np.testing.assert_allclose(model_scorer(Ensemble(models), DATA)(rows), np.mean(each, axis=0), rtol=0, atol=1e-6)
    lengths = np.linalg.norm(Ensemble(models).product_embeddings, axis=1)
    np.testing.assert_allclose(lengths, 1.0, atol=1e-6)


def test_only_models_of_the_same_products_are_an_ensemble():
    one, two, _ = together("triplet")
    with pytest.raises(InputError, match=r"^models: found none; allowed: one or more$"):
        Ensemble([])
    with pytest.raises(InputError, match=r"^models: found models of different products; "):
        Ensemble([one, replace(two, product_ids=two.product_ids[::-1])])


def test_figures_over_seeds_are_those_of_each_model():
    models = together("triplet")
    result = in_sample(models, DATA, (1, 3), ensemble=True)
    alone = [in_sample(model, DATA, (1, 3)) for model in models]
    assert list(result.seeds) == SEEDS
    for metric in result.metrics:
        for group in result.groups:
            figures = [one.mean("model", metric, group) for one in alone]
            assert result.each(metric, group).tolist() == pytest.approx(figures)
            assert result.mean("model", metric, group) == pytest.approx(sum(figures) / 3)
            assert result.spread(metric, group) == pytest.approx(statistics.stdev(figures))
        assert result.mean("popularity", metric) == alone[0].mean("popularity", metric)
    # The ensemble's mean reciprocal rank, by hand: products that look alike have the same score and share their places.
    scores = np.mean([model_scorer(model, DATA)(DATA.purchases[:, 0]) for model in models], axis=0)
    own = scores[np.arange(120), DATA.purchases[:, 1]][:, None]
    above, alike = (scores > own + 1e-6).sum(axis=1), (np.abs(scores - own) <= 1e-6).sum(axis=1)
    by_hand = [np.mean(1 / np.arange(a + 1, a + same + 1)) for a, same in zip(above, alike, strict=True)]
    assert result.mean("ensemble", "mrr") == pytest.approx(np.mean(by_hand), abs=0.005)
    assert alone[0].seeds == ()
    assert "ensemble" not in alone[0].values


def test_cross_validation_with_seeds_is_that_of_each_seed():
    config = RECIPES["triplet"]
    result = cross_validation(DATA, config, (1, 3), folds=3, seeds=SEEDS, ensemble=True)
    assert list(result.values)[:3] == ["model", "ensemble", "random"]
    for row, seed in enumerate(SEEDS):
        alone = cross_validation(DATA, replace(config, seed=seed), (1, 3), folds=3)
        np.testing.assert_array_equal(result.products, alone.products)
        # Rounding may swap products of almost equal scores, here and there.
        same = np.isclose(result.methods["model"].values["mrr"][row], alone.values["model"]["mrr"])
        assert same.mean() > 0.9
    assert np.isclose(*result.methods["model"].values["mrr"][:2]).mean() < 0.7  # as other seeds do


def test_one_seed_is_what_it_was():
    config = replace(RECIPES["triplet"], seed=4)
    plain, named = (cross_validation(DATA, config, (1,), folds=3, seeds=seeds) for seeds in (None, [4]))
    for method, by_metric in plain.values.items():
        for metric, figures in by_metric.items():
            np.testing.assert_array_equal(figures, named.values[method][metric])
    assert plain.seeds == ()


def said(script, options) -> tuple[list[str], str]:
    """The lines that a script prints, and what it says to run next."""
    out = StringIO()
    # A script says to JAX how to use the processors; here JAX runs already, and other tests' processes must not see it.
    with redirect_stdout(out), patch.dict(os.environ):
        following = script.main(options)
    return out.getvalue().splitlines(), following


def toml(value: object) -> str:
    """A value as TOML, tables in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {toml(part)}" for name, part in value.items()) + "}"
    return "[" + ", ".join(map(toml, value)) + "]" if isinstance(value, list) else json.dumps(value)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """`train` alone, then with four seeds: the folders, the dataset, the config and what was said."""
    root = tmp_path_factory.mktemp("seeds")
    folder, config = root / "dataset", replace(RECIPES["triplet"], seed=2)
    folder.mkdir()
    lines = [f"{name} = {toml(part)}" for name, part in DATA.schema.source.items()]
    (folder / "dataset.toml").write_text("\n".join(lines), "utf-8")
    for name, table in (("products.json", DATA.products), ("customers.json", DATA.customers)):
        rows = [dict(zip(table.columns, values, strict=True)) for values in zip(*table.columns.values(), strict=True)]
        (folder / name).write_text(json.dumps(rows), "utf-8")
    said(train, train.Options(folder, config, root / "alone"))
    lines, following = said(train, train.Options(folder, config, root / "run", seeds=4, ensemble=True))
    return SimpleNamespace(root=root, folder=folder, config=config, lines=lines, following=following)


def test_train_with_seeds_writes_the_same_model(trained):
    alone, run = trained.root / "alone", trained.root / "run"
    names = {path.name for path in alone.iterdir()}
    assert len(names) == 5
    assert {"model.json", "loss.csv", "run.json", "run.toml"} < names
    for name in names - {"run.toml"}:  # which says how many seeds there were
        assert (run / name).read_bytes() == (alone / name).read_bytes()
    assert {path.name for path in run.iterdir()} - names == {"seeds.json"}
    assert trained.following.endswith(" --seeds 4 --ensemble")


def test_table_and_seeds_json_say_what_the_models_reach(trained):
    data, config = load_dataset(trained.folder), trained.config
    models = [fit(data, config), *fit_seeds(data, config, [3, 4, 5])]
    document = json.loads((trained.root / "run" / "seeds.json").read_text())
    assert list(document["seeds"]) == ["2", "3", "4", "5"]
    table = trained.lines[trained.lines.index(next(line for line in trained.lines if line.startswith("in-sample"))) :]
    rows = {line.split()[0]: line.split()[1:] for line in table if " 0." in line}
    alone = [in_sample(model, data, (3, 10)) for model in models]
    ensemble = in_sample(models, data, (3, 10), ensemble=True)
    assert list(rows) == ["loss", *alone[0].metrics]
    for name, shown in rows.items():
        losses = [float(model.losses[-1]) for model in models]
        figures = losses if name == "loss" else [one.mean("model", name) for one in alone]
        assert [by_name[name] for by_name in document["seeds"].values()] == pytest.approx(figures)
        mean, deviation = sum(figures) / 4, statistics.stdev(figures)
        assert (document["mean"][name], document["standard deviation"][name]) == pytest.approx((mean, deviation))
        expected = [mean, deviation, min(figures), max(figures)]
        if name != "loss":
            expected.append(ensemble.mean("ensemble", name))
            assert document["ensemble"][name] == pytest.approx(expected[-1])
        assert list(map(float, shown)) == pytest.approx(expected, abs=0.00051)
    assert any("This is memory, not foresight." in line for line in trained.lines)


def test_evaluate_with_seeds_shows_mean_and_spread(trained, monkeypatch):
    for name in ("results_by_segment", "embedding_space"):  # pictures take a while
        monkeypatch.setattr(reports, name, lambda *_, **__: None)
    options = evaluate.Options(trained.folder, trained.root / "run", folds=3, seeds=3, ensemble=True, full=True)
    lines, _ = said(evaluate, options)
    summary = json.loads((trained.root / "run" / "cross-validation" / "metrics.json").read_text())
    assert summary["seeds"] == [2, 3, 4]

    def shown(name: str) -> list[float]:
        (line,) = (line for line in lines if line.strip().startswith(name) and " 0." in line and "MRR" not in line)
        return [float(figure) for figure in re.findall(r"(?<!± )\b\d\.\d+", line)]

    columns = ["mrr", "ndcg@10", "hit@3", "hit@10", "category_hit@3", "category_hit@10", "auc"]
    over = summary["over seeds"]
    each = [over[name]["all"]["each"] for name in columns]
    assert all(len(figures) == 3 for figures in each)
    assert shown("model, 3 seeds") == pytest.approx([sum(figures) / 3 for figures in each], abs=0.00051)
    assert shown("± between seeds") == pytest.approx([statistics.stdev(f) for f in each], abs=0.00051)
    methods = summary["methods"]
    together = [methods["ensemble"][name]["all"]["mean"] for name in columns]
    assert shown("ensemble of 3 seeds") == pytest.approx(together, abs=0.00051)
    for name, found in over.items():
        figures = found["all"]["each"]
        assert methods["model"][name]["all"]["mean"] == pytest.approx(sum(figures) / 3)
        assert found["all"]["standard deviation"] == pytest.approx(statistics.stdev(figures))
        # Other seeds beside other customers only widen the interval.
        wide, narrow = found["other customers and seeds"], found["other customers"]
        assert wide["high"] - wide["low"] >= 0.9 * (narrow["high"] - narrow["low"])
    assert all(len(line.rstrip()) <= 80 for line in lines if " ± " in line)


@pytest.mark.parametrize(
    ("script", "options", "sentence"),
    [
        (train, {"seeds": 0}, r"^seeds: found 0; allowed: 1 or more$"),
        (evaluate, {"seed": -1}, r"^seed: found -1; allowed: from 0 to 4294967295$"),
        (evaluate, {"seeds": -1}, r"^seeds: found -1; allowed: 1 or more$"),
        (train, {"ensemble": True}, r"^ensemble: found one seed; allowed: with 2 seeds or more"),
        (evaluate, {"ensemble": True}, r"^ensemble: found one seed; allowed: with 2 seeds or more"),
        (
            train,
            {"recipe": DeepConfig(seed=2**32 - 2), "seeds": 3},
            r"^seed: found 4294967296; allowed: ",
        ),
        (evaluate, {"seeds": 2, "protocol": "in-sample"}, r"^seeds: found 2; allowed: with held-out protocols alone"),
    ],
)
def test_bad_options_are_sentences(trained, script, options, sentence):
    before = (trained.root / "run" / "model.json").read_bytes()
    with pytest.raises(InputError, match=sentence):
        said(script, script.Options(trained.folder, run=trained.root / "run", **options))
    assert (trained.root / "run" / "model.json").read_bytes() == before


def test_another_model_removes_the_figures_over_seeds(trained):
    run = trained.root / "again"
    run.mkdir()
    (run / "seeds.json").write_text("{}")
    (run / "run.json").write_text('{"recsys_jax": "0"}')
    said(train, train.Options(trained.folder, trained.config, run))
    assert not (run / "seeds.json").exists()
