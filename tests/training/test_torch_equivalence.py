"""With dropout on, trained as a whole: ours and PyTorch's cannot agree in bits, so they must agree in distribution.

`make prove` runs this, with its table: docs/parity.md quotes it.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import done
from scipy import stats
from torch_weights import references_state

from recsys_jax import DeepConfig, fit, load_dataset
from recsys_jax.evaluation.engine import in_sample
from recsys_jax_benchmark.pytorch import reference

ROOT = Path(__file__).parents[2]
MALL = ROOT / "data" / "amoremall"

# Hit@3 scatters by .018 from seed to seed: with ten seeds of either, one comparison in twenty of two equal trainings
# would end without a proof. Ours cost little.
OUR_SEEDS, THEIR_SEEDS = range(60), range(20)
LAST = 50  # epochs whose losses are averaged
ALPHA = 0.05
# Set before the first run. A shop would not notice either: three hits more or less in a hundred, where another seed
# alone moves the figure by as much; and a fiftieth of the margin in the loss.
MARGINS = {"Hit@3": 0.03, "Hit@3, ties as ours": 0.03, "final loss": 0.02}
WIDTHS = (17, 17, 20, 8, 9, 9)


def tost(ours, theirs, margin):
    """Two one-sided Welch tests: the p-values of "ours is below by the margin or more" and of "above by as much".

    Both below alpha: the means are equivalent. Then the 90 % interval of the difference lies within the margins.
    """
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    below = stats.ttest_ind(ours + margin, theirs, equal_var=False, alternative="greater").pvalue
    above = stats.ttest_ind(ours - margin, theirs, equal_var=False, alternative="less").pvalue
    return float(below), float(above)


def interval(ours, theirs):
    """The 90 % interval of the difference of the means (Welch)."""
    return stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(1 - 2 * ALPHA)


@pytest.fixture(scope="session")
def customers(tmp_path_factory):
    """The mall's customers, made of its reviews as the main job makes them."""
    folder = tmp_path_factory.mktemp("personas")
    done("personas", MALL, "--run", folder, "--cache", folder / "cache")
    return folder / "customers.json"


def theirs(customers, products, seed):
    model, losses = reference.train(customers, products, seed=seed)
    hits = reference.evaluate(model, customers, products, reference.brands(products), ks=[3])["hit@3"]
    return {"Hit@3": hits, "Hit@3, ties as ours": hits, "final loss": float(np.mean(losses[-LAST:]))}


def ours(dataset, customers, products, config):
    """Hit@3 counted by the reference's own code from our weights, and by ours: ties are told apart differently."""
    model = fit(dataset, config)
    brands = reference.brands(products)
    served = reference.TwoTower(len(brands))
    missing, unexpected = served.load_state_dict(references_state(model.variables), strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)  # a counter that nothing reads
    return {
        "Hit@3": reference.evaluate(served, customers, products, brands, ks=[3])["hit@3"],
        "Hit@3, ties as ours": in_sample(model, dataset, [3]).mean("model", "hit@3"),
        "final loss": float(model.losses[-LAST:].mean()),
    }


def of_all(seeds, one):
    results = [one(seed) for seed in seeds]
    return {name: np.array([result[name] for result in results]) for name in MARGINS}


@pytest.mark.slow(reason="trains with PyTorch and with JAX, 500 epochs from many seeds each")
def test_training_with_dropout_is_equivalent_to_pytorchs(customers, capsys):
    """500 epochs from many seeds on the shipped mall; and without dropout ours would be told apart."""
    dataset = load_dataset(MALL, customers)
    rows, products = json.loads(customers.read_text("utf-8")), reference.read_rows(MALL / "products.json")
    them = of_all(THEIR_SEEDS, lambda seed: theirs(rows, products, seed))
    us = of_all(OUR_SEEDS, lambda seed: ours(dataset, rows, products, DeepConfig(seed=seed)))
    other = of_all(OUR_SEEDS, lambda seed: ours(dataset, rows, products, replace(DeepConfig(seed=seed), dropout=0.0)))

    heads = "".join(map(str.rjust, ("ours", "PyTorch", "difference, 90 %", "margin", "p below", "p above"), WIDTHS))
    table = [f"\n{f'mean ± sd of {len(OUR_SEEDS)} and {len(THEIR_SEEDS)} seeds':<34}{heads}"]
    for title, mine in (("", us), (", no dropout", other)):
        for name, margin in MARGINS.items():
            means = [f"{np.mean(x):.4f} ± {np.std(x, ddof=1):.4f}" for x in (mine[name], them[name])]
            low, high = interval(mine[name], them[name])
            ps = [f"{p:.1g}" for p in tost(mine[name], them[name], margin)]
            shown = [*means, f"{low:+.4f} to {high:+.4f}", f"{margin:.2f}", *ps]
            table.append(f"{name + title:<34}" + "".join(map(str.rjust, shown, WIDTHS)))
    with capsys.disabled():
        print("\n".join(table))

    for name, margin in MARGINS.items():
        assert max(tost(us[name], them[name], margin)) < ALPHA, f"{name}: not shown to be equivalent"
    assert max(tost(other["final loss"], them["final loss"], MARGINS["final loss"])) > ALPHA


def test_equivalence_is_refused_where_it_is_not_shown():
    rng = np.random.default_rng(0)
    precise = rng.normal(0.40, 0.01, (2, 10))
    assert max(tost(*precise, 0.03)) < ALPHA
    for shift in (-0.03, 0.03):  # as large as the margin
        assert max(tost(precise[0] + shift, precise[1], 0.03)) > ALPHA
    few = np.array([[0.35, 0.40, 0.45], [0.36, 0.40, 0.44]])  # equal means, but three seeds that scatter
    assert max(tost(*few, 0.03)) > ALPHA
    assert few[0].mean() == pytest.approx(few[1].mean())
