"""Comparisons against figures worked out by hand; recipes from TOML; tuning that sees its training part alone."""

import csv
import io
import json
import math
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from recsys_jax import DeepConfig, WideConfig
from recsys_jax.console.pictures.plots import comparison_differences
from recsys_jax.data.dataset import Dataset, assemble
from recsys_jax.data.schema import Schema
from recsys_jax.data.splits import Split, cross_validation_split, hold_out_split
from recsys_jax.data.tables import Table
from recsys_jax.errors import InputError
from recsys_jax.evaluation.baselines import baselines
from recsys_jax.evaluation.engine import Answers, evaluate
from recsys_jax.evaluation.findings import ranking
from recsys_jax.evaluation.methods import (
    PUBLISHED,
    SOFTMAX,
    built_in,
    configs_text,
    parse_configs,
    read_config,
    read_configs,
    recipe,
    training_part,
    tune,
    tuned,
)
from recsys_jax.evaluation.report import METRICS, compare

Z = 1.96  # of 95 % of a normal distribution


def answers(values, seeds=()):
    """The same values for each metric; a row per seed."""
    rows = np.atleast_2d(np.asarray(values, float))
    return Answers(dict.fromkeys(METRICS, rows), tuple(seeds))


def test_the_best_comes_first_and_others_are_compared_with_it():
    customers = np.arange(4)
    found = compare(
        {"low": answers([0, 0, 0, 0]), "high": answers([1, 1, 0, 0]), "middle": answers([1, 0, 0, 0])}, customers
    )
    assert [row.method for row in found.rows] == ["high", "middle", "low"]
    assert [row.means["mrr"].mean for row in found.rows] == [0.5, 0.25, 0.0]
    assert not found.rows[0].minus_best
    assert [row.minus_best["mrr"].mean for row in found.rows[1:]] == [-0.25, -0.5]
    assert (found.queries, found.customers) == (4, 4)


def test_a_constant_lead_is_no_noise_and_a_varying_one_is():
    rng = np.random.default_rng(0)
    hard = rng.uniform(0.2, 0.8, 300)  # how hard a query is concerns all methods and cancels
    noise = rng.normal(0, 0.3, 300)
    noise -= noise.mean() + 0.001
    found = compare(
        {"best": answers(hard), "a bit worse": answers(hard - 0.01), "noisy": answers(hard + noise)}, np.arange(300)
    )
    assert {row.method: row.reading() for row in found.rows} == {
        "best": "the best",
        "a bit worse": "worse",
        "noisy": "inside the noise",
    }


def test_intervals_are_those_of_drawing_customers():
    rng = np.random.default_rng(1)
    customers = np.repeat(np.arange(200), rng.integers(1, 6, 200))
    per_customer = rng.normal(0, 0.3, 200)
    a = 0.5 + per_customer[customers] + rng.normal(0, 0.1, len(customers))
    b = a - 0.05 + 0.5 * per_customer[customers]
    found = compare({"a": answers(a), "b": answers(b)}, customers, count=2000)
    members = [np.flatnonzero(customers == one) for one in range(200)]
    other = np.random.default_rng(99)
    draws = [np.concatenate([members[one] for one in other.integers(0, 200, 200)]) for _ in range(2000)]
    for values, interval in ((a, found.rows[0].means["mrr"]), (b - a, found.rows[1].minus_best["mrr"])):
        low, high = np.quantile([values[rows].mean() for rows in draws], [0.025, 0.975])
        assert interval.mean == pytest.approx(values.mean())
        assert interval.low == pytest.approx(low, abs=0.15 * (high - low))
        assert interval.high == pytest.approx(high, abs=0.15 * (high - low))


def test_seeds_are_averaged_their_spread_is_told_and_widens_the_difference():
    rng = np.random.default_rng(2)
    hard = rng.uniform(0, 1, 1000)
    shifts = np.array([-0.05, 0.0, 0.05])
    trained = hard - 0.1 + shifts[:, None]
    found = compare({"fixed": answers(hard), "trained": answers(trained, (0, 1, 2))}, np.arange(1000))
    row = found.rows[1]
    assert row.means["mrr"].mean == pytest.approx(trained.mean())
    assert row.spread["mrr"] == pytest.approx(0.05)  # the deviation of -0.05, 0, 0.05, of two degrees of freedom
    assert math.isnan(found.rows[0].spread["mrr"])
    # Query by query the difference is constant but for the seeds: its deviation is 0.05 / sqrt(3).
    difference = row.minus_best["mrr"]
    assert difference.mean == pytest.approx(-0.1)
    assert difference.high - difference.low == pytest.approx(2 * Z * 0.05 / np.sqrt(3), rel=0.25)


def test_another_metric_may_say_better():
    first = Answers({"mrr": np.full((1, 9), 0.5), "ndcg@10": np.full((1, 9), 0.1), "hit@10": np.full((1, 9), 0.5)})
    found = compare({"first": first, "second": answers(np.full(9, 0.4))}, np.arange(9))
    assert [found.rows[1].reading(metric) for metric in METRICS] == ["worse", "better", "worse"]


def test_folds_are_joined_in_turn():
    parts = [Answers(dict.fromkeys(METRICS, np.full((2, n), float(n))), (5, 6), (f"fold of {n}",), 1.5) for n in (1, 2)]
    whole = Answers.join(parts)
    assert whole.values["mrr"].tolist() == [[1, 2, 2], [1, 2, 2]]
    assert (whole.seeds, whole.notes, whole.seconds) == ((5, 6), ("fold of 1", "fold of 2"), 3.0)


def test_what_is_written_says_what_was_found():
    found = compare({"b": answers([0, 1]), "a": answers([[1, 1], [1, 0]], (0, 1))}, np.arange(2))
    document = json.loads(json.dumps(found.document(), allow_nan=False))
    assert [(one["rank"], one["method"]) for one in document["methods"]] == [(1, "a"), (2, "b")]
    assert document["methods"][0]["minus the best"] is None
    assert document["methods"][1]["minus the best"]["mrr"]["mean"] == pytest.approx(0.5 - 0.75)
    assert document["methods"][1]["standard deviation over seeds"]["mrr"] is None
    assert document["queries"] == 2
    rows = list(csv.DictReader(io.StringIO(found.csv())))
    assert [row["method"] for row in rows] == ["a", "b"]
    assert float(rows[0]["mrr"]) == 0.75
    assert float(rows[0]["mrr over seeds"]) == pytest.approx(np.std([1, 0.5], ddof=1), abs=1e-6)
    assert rows[0]["mrr minus best"] == ""
    assert float(rows[1]["hit@10 minus best"]) == pytest.approx(-0.25)


def test_wrong_answers_are_sentences():
    with pytest.raises(InputError, match="methods: found none"):
        compare({}, np.arange(2))
    with pytest.raises(InputError, match="b: found answers to 3 queries; allowed: to all 2"):
        compare({"a": answers([0, 1]), "b": answers([0, 1, 1])}, np.arange(2))
    with pytest.raises(InputError, match="seeds: found methods with 2 and 3; allowed: one number"):
        compare({"a": answers(np.zeros((2, 2))), "b": answers(np.zeros((3, 2)))}, np.arange(2))


def test_one_customer_has_no_interval_and_is_drawn_all_the_same(tmp_path):
    found = compare({"a": answers([1.0]), "b": answers([0.5])}, np.array([0]))
    assert math.isnan(found.rows[1].minus_best["mrr"].low)
    comparison_differences(tmp_path / "one.png", found, "one\nn = 1")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


# Recipes


def test_recipes_are_read_as_written(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text(
        '["my own"]\nrecipe = "deep"\nloss = "softmax"\nhidden_dim = 128\npopularity_bias = true\ntemperature = 1\n'
        '[plain]\nrecipe = "wide"\nown_l2 = 30\nfactor_l2 = inf\n',
        encoding="utf-8",
    )
    assert read_configs(path) == {
        "my own": DeepConfig(loss="softmax", hidden_dim=128, popularity_bias=True, temperature=1.0),
        "plain": WideConfig(own_l2=30.0, factor_l2=math.inf),
    }


def test_recipes_that_are_written_are_read_as_they_were(tmp_path):
    path = tmp_path / "written.toml"
    configs = {
        "wide": WideConfig(item_factors=3, factor_l2=math.inf),
        'a "name", 이름\\': DeepConfig(loss="infonce", log_q=True, learning_rate=1e-5, dropout=0.123456789012345),
    }
    path.write_text(configs_text(configs), "utf-8")
    assert read_configs(path) == configs
    path.write_text(configs_text({"one": DeepConfig(epochs=3)}), "utf-8")
    assert read_config(path) == DeepConfig(epochs=3)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", r"my\.toml: found 0 entries; allowed: one table, such as \[training\]"),
        ('[a]\nrecipe = "wide"\n[b]\nrecipe = "deep"', r"my\.toml: found 2 entries; allowed: one table"),
        ("a = 3", r"my\.toml, \[a\]: found 3; allowed: a table with recipe"),
        ('[training]\nrecipe = "wide"\nitem_factors = 0', r"\[training\]: item_factors: found 0; allowed: 1 or more"),
    ],
)
def test_a_file_of_one_recipe_has_one(tmp_path, content, sentence):
    path = tmp_path / "my.toml"
    path.write_text(content, "utf-8")
    with pytest.raises(InputError, match=sentence):
        read_config(path)


def test_former_names_are_understood():
    told: list[str] = []
    document = {"a": {"recipe": "towers", "epochs": 3}, "b": {"recipe": "linear", "own_penalty": 30, "tastes": 4}}
    found = parse_configs(document, "my.toml", told.append)
    assert found == {"a": DeepConfig(epochs=3), "b": WideConfig(own_l2=30.0, item_factors=4)}
    assert "towers is now called deep" in told[0]
    assert all(
        word in told[1] for word in ("linear is now called wide", "own_penalty is now called own_l2", "item_factors")
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", r"my\.toml: found no table; allowed: one or more"),
        ("a = 3", r"my\.toml, \[a\]: found 3; allowed: a table with recipe"),
        ("[a]\nepochs = 3", r"my\.toml, \[a\]: recipe: found none; allowed: 'deep', 'wide'"),
        ('[a]\nrecipe = "forest"', r"\[a\]: recipe: found 'forest'; allowed: 'deep', 'wide'"),
        (
            '[a]\nrecipe = "wide"\nepochs = 3',
            r"\[a\]: found the field 'epochs'; allowed with recipe = 'wide': 'own_",
        ),
        ('[a]\nrecipe = "deep"\nepochs = 1.5', r"\[a\]: epochs: found 1.5; allowed: a whole number"),
        ('[a]\nrecipe = "deep"\nepochs = 0', r"\[a\]: epochs: found 0; allowed: 1 or more"),
        ('[a]\nrecipe = "deep"\nepochs = true', r"\[a\]: epochs: found True; allowed: a whole number"),
        ('[a]\nrecipe = "deep"\nlog_q = 1', r"\[a\]: log_q: found 1; allowed: true or false"),
        (
            '[a]\nrecipe = "deep"\nloss = "hinge"',
            r"\[a\]: loss: found 'hinge'; allowed: 'triplet', 'infonce', 'softm",
        ),
        ('[a]\nrecipe = "deep"\nloss = ["triplet"]', r"\[a\]: loss: found \['triplet'\]; allowed: 'triplet'"),
        ('[a]\nrecipe = "wide"\nown_l2 = "big"', r"\[a\]: own_l2: found 'big'; allowed: a number"),
        ('[a]\nrecipe = "wide"\nown_l2 = -1', r"\[a\]: own_l2: found -1.0; allowed: above 0"),
        ('[a]\nrecipe = "wide"\nseed = 1', r"\[a\]: found seed; allowed: --seed and --seeds"),
        ("[a", r"my\.toml: not readable as TOML"),
    ],
)
def test_a_wrong_file_is_a_sentence(tmp_path, content, sentence):
    path = tmp_path / "my.toml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=sentence):
        read_configs(path)


@pytest.mark.parametrize(("recipe", "kind"), [("wide", WideConfig), ("deep", DeepConfig)])
def test_every_field_but_the_seed_can_be_written(recipe, kind):
    loss = {"loss": "softmax"} if recipe == "deep" else {}
    for field in fields(kind):
        value = 300.0 if field.default is None else field.default
        if field.name not in ("seed", "loss"):
            found = parse_configs({"a": {"recipe": recipe, **loss, field.name: value}}, "here")["a"]
            assert getattr(found, field.name) == value


def test_the_published_recipe_makes_fewer_passes_over_many_purchases():
    assert built_in(277)[PUBLISHED] == DeepConfig()
    few, many = (built_in(n)[PUBLISHED].epochs * n for n in (100_000, 1_000_000))
    assert few == many


# Methods and tuning, in a small shop

LEARNED = {"values": "learned", "unknown": "extra-row", "missing": "extra-row"}
SCHEMA = Schema.parse(
    {
        "name": "shop",
        "products": {"file": "p.json", "id": "id", "features": [{"name": "kind", "kind": "categorical", **LEARNED}]},
        "customers": {
            "file": "c.json",
            "id": "id",
            "purchases": "bought",
            "features": [{"name": "group", "kind": "categorical", **LEARNED}],
        },
    },
    "schema",
)


def shop(customers=60) -> Dataset:
    """Each group buys products of its own."""
    rng = np.random.default_rng(0)
    products = [{"id": f"p{i}", "kind": f"kind{i % 3}"} for i in range(9)]
    rows = [
        {"id": f"c{i}", "group": f"g{i % 3}", "bought": [f"p{i % 3 + 3 * one}" for one in rng.permutation(3)[:2]]}
        for i in range(customers)
    ]
    tables = Table.of(products, "products"), [row["id"] for row in products], Table.of(rows, "customers")
    return assemble(SCHEMA, *tables, Path())


def test_a_recipe_is_a_method_among_others():
    """The same recipe has the same figures whoever else is asked, alone and with several seeds; and so have others."""
    data = shop()
    split = cross_validation_split(data, 2, 0)
    deep = DeepConfig(loss="softmax", epochs=2, batch_size=16)
    wide = WideConfig(own_l2=30.0, attribute_l2=100.0, factor_l2=math.inf)
    methods = {"deep": recipe(deep, [0, 1]), "wide": recipe(wide, [0, 1]), **baselines(data)}
    told: list[tuple[float, int, str]] = []
    found = evaluate(data, split, methods, (10,), control=False, progress=lambda *one: told.append(one)).methods
    alone = {
        "deep": evaluate(data, split, {"model": recipe(deep, [0, 1])}, (10,)),
        "wide": evaluate(data, split, {"model": recipe(wide)}, (10,)),
    }
    for name, one in alone.items():
        for metric in METRICS:
            assert found[name].values[metric] == pytest.approx(one.methods["model"].values[metric])
    for name in baselines(data):
        one = evaluate(data, split, {name: methods[name]}, (10,), control=False).methods[name]
        assert all((one.values[metric] == found[name].values[metric]).all() for metric in METRICS)
    assert list(found) == list(methods)
    assert (found["deep"].seeds, found["wide"].seeds, found["popularity"].seeds) == ((0, 1), (), ())
    assert found["naive Bayes"].notes[0].startswith("alpha ")
    assert all(answers.seconds > 0 for answers in found.values())
    total = 2 * len(methods)
    assert told[0] == (0, total, "fold 1 of 2: deep")
    assert told[-1][:2] == (total, total)
    done = [one[0] for one in told]
    assert done == sorted(done)
    within = [one for one in told if one[2].startswith("fold 1 of 2: wide, ")]  # the second of the methods of a fold
    assert [one[0] for one in within] == [1.0, 2.0]  # all penalties are given: there is one fit


def test_a_method_tells_how_far_it_is():
    """With one fold the first method is most of the wait: what is left of it is known from its first step on."""
    data = shop()
    told: list[tuple[float, float, str]] = []
    methods = {"wide": recipe(WideConfig(inner_folds=2)), "tuned": tuned(2, [0], recipe="wide"), **baselines(data)}
    evaluate(data, hold_out_split(data, 2), methods, (10,), control=False, progress=lambda *one: told.append(one))
    done = [one[0] for one in told]
    assert done == sorted(done)
    assert sum(0 < one < 1 for one in done) >= 10, "penalties are compared one after the other"
    tuning = [(at, word) for at, _, word in told if "tuned" in word]
    assert tuning[1][0] == pytest.approx(1 + 1 / 3)
    assert tuning[1][1].startswith("fold 1 of 1: tuned, 1/2, inner MRR ")
    assert sum(1 + 2 / 3 < at < 2 for at, _ in tuning) >= 1, "the fit of all purchases is the third"
    assert "logistic regression, penalty 3" in " ".join(word for *_, word in told)


def test_a_training_that_diverges_is_a_sentence():
    data = shop()
    config = DeepConfig(loss="softmax", temperature=1e-38, epochs=1)
    with pytest.raises(InputError, match="wild: training, epoch 1, batch 1 of 2: found the loss nan"):
        evaluate(data, cross_validation_split(data, 2, 0), {"wild": recipe(config)})


def test_who_is_ahead_is_said_and_who_may_be_as_good():
    rng = np.random.default_rng(0)
    hard, noise = rng.uniform(0.2, 0.8, 300), rng.normal(0, 0.3, 300)
    methods = {"ours": hard, "other": hard + noise - noise.mean() - 0.001, "popularity": hard - 0.1}
    found = compare({name: answers(values) for name, values in methods.items()}, np.arange(300))
    said = ranking(found, "cross-validation", ["ours"])
    assert said.startswith("For customers never seen, ours is ahead of 2 others: MRR 0.")
    assert "Inside the noise of it: other." in said
    assert said.endswith(" It beats a bestseller list (MRR +0.1000, 95 % interval +0.1000 to +0.1000).")
    said = ranking(found, "cross-validation", ["other"])
    assert "The best recipe, other, beats a bestseller list (MRR +0.0990, 95 % interval +0.0" in said


def test_a_ranking_says_what_undoes_it():
    """A bestseller list that its inverse beats is no yardstick, and few customers are few."""
    values = np.random.default_rng(0).uniform(0.2, 0.8, 300)
    methods = {"ours": values, "popularity": values - 0.2, "inverse popularity": values - 0.1}
    found = compare({name: answers(one) for name, one in methods.items()}, np.arange(300))
    said = ranking(found, "cross-validation", ["ours"])
    assert said.endswith("). A bestseller list is a poor yardstick here: its inverse beats it.")
    methods["inverse popularity"] = values - 0.3
    found = compare({name: answers(one) for name, one in methods.items()}, np.arange(300))
    assert "poor yardstick" not in ranking(found, "cross-validation", ["ours"])
    few = compare({name: answers(one[:50]) for name, one in methods.items()}, np.arange(50))
    assert ranking(few, "cross-validation", ["ours"]).endswith("Only 50 customers were asked.")
    new = compare({"ours": answers(values), "random": answers(values - 0.1)}, np.arange(300))
    assert " It beats chance (MRR +0.1000," in ranking(new, "new-products", ["ours"])


def test_the_training_part_has_nobody_else():
    data = shop(6)
    train = np.isin(data.purchases[:, 0], [1, 4])
    part = training_part(data, train)
    assert part.customer_ids == ["c1", "c4"]
    assert part.customers.column("group") == ["g1", "g1"]
    wanted = data.purchases[train]
    assert (np.array([1, 4])[part.purchases[:, 0]] == wanted[:, 0]).all()
    assert (part.purchases[:, 1] == wanted[:, 1]).all()


@pytest.mark.parametrize("name", ["deep", "wide"])
def test_held_out_customers_never_reach_the_tuning(name):
    data = shop()
    fold = cross_validation_split(data, 3, 0).folds[0]
    held = np.unique(data.purchases[fold.queries, 0])
    clean = tune(data, fold.train, 2, seed=4, recipe=name)
    groups = list(data.customers.column("group"))
    for row in held:
        groups[row] = "poison"
    purchases = data.purchases.copy()
    purchases[fold.queries, 1] = (purchases[fold.queries, 1] + 4) % 9
    table = replace(data.customers, columns={**data.customers.columns, "group": groups})
    poisoned = replace(data, customers=table, purchases=purchases)
    assert tune(poisoned, fold.train, 2, seed=4, recipe=name) == clean
    # And the test would see it: one training customer's group moves the figures.
    groups[int(np.setdiff1d(np.arange(60), held)[0])] = "poison"
    moved = replace(data, customers=replace(data.customers, columns={**data.customers.columns, "group": groups}))
    assert tune(moved, fold.train, 1, seed=4, recipe=name).tried != clean.tried[:1]


def test_tuning_starts_from_the_recipe_and_comes_closer_to_the_best(monkeypatch):
    def closeness(part, inner, task, config):
        return -abs(np.log(config.learning_rate / 0.01)) - abs(config.dropout - 0.4)

    monkeypatch.setattr("recsys_jax.evaluation.methods._score", closeness)
    data, told = shop(), []
    everything = np.ones(len(data.purchases), bool)
    found = tune(data, everything, 40, seed=1, progress=lambda *one: told.append(one))
    assert found.tried[0][0] == replace(SOFTMAX, seed=1)
    assert found.score == max(score for _, score in found.tried)
    assert (found.config, found.score) in found.tried
    assert found.score > 0.25 * found.tried[0][1]  # scores are negative: four times as close
    assert [one[:2] for one in told] == [(done, 40) for done in range(1, 41)]
    for config, _ in found.tried:
        assert 3e-4 <= config.learning_rate <= 3e-2
        assert 2 <= config.epochs <= 30
        assert config.output_dim in (16, 32, 64)
        assert (config.loss, config.popularity_bias, config.id_embedding) == ("softmax", True, True)
    assert tune(data, everything, 40, seed=1) == found
    assert tune(data, everything, 40, seed=2) != found


@pytest.mark.parametrize("name", ["deep", "wide"])
def test_what_was_tuned_trains_on_all_of_the_training_part(name):
    data = shop()
    fold = cross_validation_split(data, 3, 0).folds[0]
    split = Split("one", "one fold", (fold,))
    found = evaluate(data, split, {"tuned": tuned(2, [0], recipe=name)}).methods["tuned"]
    best = tune(data, fold.train, 2, seed=0, recipe=name).config
    assert best.recipe == name
    again = evaluate(data, split, {"best": recipe(best, [0])}).methods["best"]
    assert found.values["mrr"].tolist() == again.values["mrr"].tolist()
    whole = "epochs" if name == "deep" else "item_factors"
    assert f"{whole} {getattr(best, whole)}" in found.notes[0]


def test_tuning_of_wide_starts_from_the_recipe_and_tries_nothing_twice(monkeypatch):
    asked = []

    def closeness(part, inner, task, config):
        asked.append(config)
        return -abs(np.log(config.item_factors / 5)) - (config.output_dim != 32)

    monkeypatch.setattr("recsys_jax.evaluation.methods._score", closeness)
    data = shop()
    everything = np.ones(len(data.purchases), bool)
    found = tune(data, everything, 40, seed=1, recipe="wide")
    assert found.tried[0][0] == asked[0] == WideConfig(seed=1)
    assert len(found.tried) == 40 > len(asked) == len(set(asked))
    assert found.score == max(score for _, score in found.tried) > 0.25 * found.tried[0][1]
    assert all((one.own_l2, one.attribute_l2, one.factor_l2) == (None, None, None) for one in asked)
    asked.clear()
    assert tune(data, everything, 40, seed=1, recipe="wide") == found


def test_without_optuna_and_with_no_trials_tuning_is_a_sentence(monkeypatch):
    data = shop()
    everything = np.ones(len(data.purchases), bool)
    with pytest.raises(InputError, match="trials: found 0; allowed: 1 or more"):
        tune(data, everything, 0)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"tuning needs Optuna: \S+ -m pip install 'recsys_jax\[tuning\]'"):
        tune(data, everything, 1)
