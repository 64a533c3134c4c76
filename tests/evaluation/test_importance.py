"""What a model listens to: each attribute shuffled alone, against models that are known to read one of them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from protocols import cross_validation, evaluate_split, in_sample

from recsys_jax import DeepConfig, WideConfig, fit
from recsys_jax.config import Config
from recsys_jax.console.reports import summary, write
from recsys_jax.data.dataset import Dataset, assemble
from recsys_jax.data.schema import Schema
from recsys_jax.data.splits import SPLITS, Derived, Fold
from recsys_jax.data.tables import Table
from recsys_jax.evaluation.bootstrap import seeds_interval
from recsys_jax.evaluation.engine import CONTROL, MODEL, Evaluation, evaluate
from recsys_jax.evaluation.findings import most_important
from recsys_jax.evaluation.methods import Learned, Method, fixed
from recsys_jax.evaluation.queries import Queries, Scorer
from recsys_jax.evaluation.report import report

LEARNED = {"kind": "categorical", "values": "learned", "unknown": "extra-row", "missing": "extra-row"}
SKIN, STAR, HAIR = ({"name": name, **LEARNED} for name in ("skin", "star", "hair"))
PRODUCTS = [{"id": f"{skin}{i}", "kind": skin} for skin in "abc" for i in range(4)]
Model = Callable[[dict[str, str], int], float]
"""The score of a product's row for a customer's attributes."""


def shop(rows: list[dict], *features: dict, date: bool = False) -> Dataset:
    """Four products for each of three skins, and the given customers."""
    customers = {"file": "c.json", "id": "id", "purchases": "bought", "features": list(features)}
    schema = Schema.parse(
        {
            "name": "shop",
            "products": {"file": "p.json", "id": "id", "features": [{"name": "kind", **LEARNED}]},
            "customers": {**customers, "date": "day"} if date else customers,
        },
        "schema",
    )
    ids = [row["id"] for row in PRODUCTS]
    table = [{"id": f"c{i}", **row} for i, row in enumerate(rows)]
    return assemble(schema, Table.of(PRODUCTS, "products"), ids, Table.of(table, "customers"), Path())


def planted(size: int = 120) -> list[dict]:
    """Who bought one of the four products of their own skin; the star says nothing."""
    rng = np.random.default_rng(1)
    skins, stars = rng.choice(list("abc"), size), rng.choice(["leo", "virgo"], size)
    return [
        {"skin": str(skin), "star": str(star), "bought": [f"{skin}{rng.integers(4)}"]}
        for skin, star in zip(skins, stars, strict=True)
    ]


def ranking(*models: Model, columns: tuple[str, ...] = ("skin", "star")) -> Method:
    """What reads the columns, and ranks by what each of the models makes of them: one of each seed."""

    def scorers(view: Dataset) -> list[Scorer]:
        read = [view.customers.column(column) for column in columns]
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*read, strict=True)]
        tables = [np.array([[model(row, i) for i in range(12)] for row in rows]) for model in models]
        return [Scorer.table(table, np.arange(len(rows))) for table in tables]

    return Method(lambda *learned: Learned(scorers, columns=columns), tuple(range(len(models))))


def by_skin(row: dict[str, str], product: int) -> float:
    """The products of the customer's own skin stand first, in order; the second and the third tie."""
    return 12.0 * (PRODUCTS[product]["kind"] == row["skin"]) - (product + 1) // 2


def by_nothing(row: dict[str, str], product: int) -> float:
    return -float(product)


def asked(data: Dataset, method: Method, folds: int = 4, **options) -> Evaluation:
    return evaluate(data, SPLITS["cross-validation"](data, folds, 0), {MODEL: method}, (3,), **options)


RECIPES: dict[str, tuple[Config, list[int] | None]] = {
    "deep": (DeepConfig(loss="softmax", popularity_bias=True, epochs=40), [0, 1]),
    "wide": (WideConfig(own_l2=1.0, attribute_l2=1.0, factor_l2=1.0, item_factors=4), None),
}


@pytest.mark.parametrize("name", RECIPES)
def test_what_decides_is_told_from_noise(name):
    data = shop(planted(), STAR, SKIN)
    config, seeds = RECIPES[name]
    found = report(cross_validation(data, config, (3,), folds=3, seeds=seeds, beside={}))
    assert list(found.importance) == ["skin", "star"]  # the most important first, whatever the schema's order
    skin, star = found.importance.values()
    # One of four products of the own skin: the mean of 1, 1/2, 1/3 and 1/4. Of another skin, after the four of that:
    # half of what is left ranks before these four, so 1/5 to 1/12. Two of three customers get another skin.
    assert skin.mean == pytest.approx(2 / 3 * (25 / 48 - np.mean(1 / np.arange(5, 13))), abs=0.06)
    assert skin.reading == "better"
    assert star.low <= 0 <= star.high
    assert star.reading == "inside the noise"
    assert skin.n == star.n == 120


def test_nothing_but_the_shuffled_attribute_counts():
    """A model that reads the star and makes nothing of it loses nothing by it, to the last bit, however ranks round."""
    found = asked(shop(planted(), SKIN, STAR), ranking(by_skin))
    assert found.lost["skin"].mean() > 0.1
    assert not found.lost["star"].any()
    # With all at once, a model of the skin alone loses as much as by the skin, but for the luck of the shuffles.
    lost = found.mean(MODEL, "mrr") - found.mean(CONTROL, "mrr")
    assert found.lost["skin"].mean() == pytest.approx(lost, abs=0.05)


def test_values_move_between_those_asked_in_a_fold():
    """All bought one product, at the place that the skin says: shuffled, the places in a fold only change hands."""

    def by_place(row: dict[str, str], product: int) -> float:
        return {"a": 12.5, "b": 8.5, "c": 4.5}[row["skin"]] if product == 0 else 12.0 - product

    data = shop([{**row, "bought": ["a0"]} for row in planted(40)], SKIN, STAR)
    found = asked(data, ranking(by_place))
    assert found.lost["skin"].any()
    fold = np.repeat(np.arange(4), 10)
    np.testing.assert_allclose(np.bincount(fold, found.lost["skin"][0]), 0, atol=1e-12)


def test_a_customer_asked_alone_borrows_from_all_others():
    found = asked(shop(planted(12), SKIN, STAR), ranking(by_skin), folds=12)
    assert found.lost["skin"].mean() > 0.1


def test_each_seeds_model_is_asked_and_the_mean_is_theirs():
    found = asked(shop(planted(), SKIN, STAR), ranking(by_skin, by_nothing))
    one, other = found.lost["skin"]
    assert one.mean() > 0.1
    assert not other.any()
    of_skin = report(found, count=50, seed=3).importance["skin"]
    assert of_skin == seeds_interval(found.lost["skin"], found.customers, count=50, seed=3)
    assert of_skin.mean == pytest.approx(one.mean() / 2)


def test_it_follows_its_seed_and_moves_nothing_else():
    data = shop(planted(), SKIN, STAR)
    one, same, other = (asked(data, ranking(by_skin), seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.lost["skin"], same.lost["skin"])
    assert (one.lost["skin"] != other.lost["skin"]).any()
    without = asked(data, replace_columns(ranking(by_skin)))
    assert not without.lost
    for method in (MODEL, CONTROL):
        np.testing.assert_array_equal(one.values[method]["mrr"], without.values[method]["mrr"])


def replace_columns(method: Method) -> Method:
    """The same model, which does not say what it reads."""
    return Method(lambda *learned: replace(method.learn(*learned), columns=()), method.seeds)


def test_it_is_of_the_view_without_the_leak():
    """With the leak, the skin is the answer; without it, everybody has the same one, so that nothing can be lost."""
    data = shop(planted(), SKIN, STAR)
    blank = Table("blank", {**data.customers.columns, "skin": ["a"] * 120})
    result = asked(data, ranking(by_skin), dataset_of_fold=lambda known: Derived(data, replace(data, customers=blank)))
    assert not result.lost
    assert set(result.leak_free.lost) == {"skin", "star"}
    assert not result.leak_free.lost["skin"].any()
    document = report(result, count=10).document()
    assert "importance" not in document
    assert document["leak-free"]["importance"]["skin"]["mean"] == 0


def test_a_column_that_no_model_reads_has_none():
    """Neither one that is no feature, nor a feature that no training customer states; of folds, only those count."""
    few = [{**row, "shoe": i, "hair": "curly" if i == 5 else None} for i, row in enumerate(planted(40))]
    data = shop(few, SKIN, HAIR)
    config = DeepConfig(epochs=1)
    held = data.purchases[:, 0] == 5
    split = SPLITS["hold-out"](data, 5, 0)
    result = evaluate_split(data, config, replace(split, folds=(Fold(~held, held),)), (3,), beside={})
    assert list(result.lost) == ["skin"]
    kept = data.purchases[:, 0] % 2 == 0
    both = replace(split, folds=(Fold(~held, held), Fold(~kept, kept)))
    result = evaluate_split(data, config, both, (3,), beside={})
    assert list(result.lost) == ["skin", "hair"]
    assert result.lost["hair"].shape == (1, 21)
    assert result.lost["hair"][0, 0] == 0
    assert result.stated == {"skin": 1.0, "hair": 1 / 21}


def test_a_column_of_two_features_is_one_attribute():
    data = shop(planted(40), SKIN, {**SKIN, "name": "again", "column": "skin"})
    result = cross_validation(data, DeepConfig(epochs=1), (3,), folds=2, beside={})
    assert list(result.lost) == ["skin"]


def test_none_in_sample_without_control_and_of_what_reads_nothing():
    data = shop(planted(40), SKIN, STAR)
    model = fit(data, DeepConfig(epochs=1))
    assert not in_sample(model, data, (3,)).lost
    assert not asked(data, ranking(by_skin), control=False).lost
    found = report(asked(data, fixed(lambda rows: np.zeros((len(rows), 12)))), count=10)
    assert not found.importance
    assert "importance" not in found.document()


@pytest.mark.parametrize("name", ["cross-validation", "time", "new-products"])
def test_ranks_alone_are_those_of_all_metrics(name):
    """Of queries that are asked once and three times over, also without what was bought before, and of new products."""
    rng = np.random.default_rng(1)
    names = [row["id"] for row in PRODUCTS]
    rows = [{"skin": "a", "star": "leo", "day": f"2024-01-{1 + i % 28:02}"} for i in range(60)]
    for row in rows:
        row["bought"] = rng.choice(names, 3, replace=False).tolist()
    data = shop(rows, SKIN, STAR, date=True)
    data = replace(data, dates=rng.permutation(data.dates))  # so that customers come back
    queries = Queries.of(data, SPLITS[name](data, 3, 0).folds[0], (3,))
    assert (queries.bought is not None) == (name == "time")
    # Few different scores, so that many tie.
    scorer = Scorer.table(rng.integers(4, size=(20, 12)).astype(float), rng.integers(20, size=60))
    values, _, _ = queries.values(scorer)
    np.testing.assert_array_equal(queries.reciprocal_ranks(scorer), values["mrr"])
    again = replace(scorer, group=np.tile(scorer.group[queries.listed], 3))
    np.testing.assert_array_equal(queries.repeated(3).reciprocal_ranks(again), np.tile(values["mrr"], 3))


def test_it_is_written_and_said_in_a_line(tmp_path, capsys):
    data = shop([{**row, "star": row["star"] if i % 2 else None} for i, row in enumerate(planted())], SKIN, STAR)
    methods = {MODEL: ranking(by_skin), "random": fixed(lambda rows: np.zeros((len(rows), 12)))}
    found = report(evaluate(data, SPLITS["cross-validation"](data, 4, 0), methods, (3,)))
    write(found, data, tmp_path, "cross-validation", 3, model="", derived=None)
    page = (tmp_path / "cross-validation" / "report.md").read_text("utf-8")
    _, section = page.split("# What the model listens to\n")
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    skin, star, both = lines[2:]
    assert skin.startswith(f"| skin (100 %) | MRR | {found.importance['skin'].mean:+.4f} | ")
    assert skin.endswith(" | better |")
    assert star == "| star (50 %) | MRR | +0.0000 | +0.0000 to +0.0000 | inside the noise |"
    assert both.startswith("| all attributes at once | MRR | +0.")
    document = json.loads((tmp_path / "cross-validation" / "metrics.json").read_text("utf-8"))
    assert document["importance"]["star"] == {
        "mean": 0.0,
        "low": 0.0,
        "high": 0.0,
        "n": 120,
        "reading": "inside the noise",
        "stated": 0.5,
    }
    summary(found)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.strip() == most_important(found)
    assert last.startswith(f"  It listens most to skin, worth MRR {found.importance['skin'].mean:.4f} (0.")
    assert f"{found.importance['skin'].mean:.4f}" in most_important(found, "ko")


def test_nothing_is_said_to_matter_where_attributes_may_not_help():
    data = shop(planted(), SKIN, STAR)
    assert most_important(report(asked(data, ranking(by_nothing)), count=50)) == ""
    found = report(asked(data, ranking(by_skin)), count=50)
    assert most_important(found)
    nothing = {**found.differences, CONTROL: dict.fromkeys(found.differences[CONTROL], found.importance["star"])}
    assert most_important(replace(found, differences=nothing)) == ""
    assert most_important(replace(found, importance={})) == ""
