"""Splits: nobody and nothing is on both sides that a split keeps apart, and whatever is promised to be asked is."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_jax.data.dataset import Dataset, assemble, load_dataset
from recsys_jax.data.schema import Schema
from recsys_jax.data.splits import (
    SPLITS,
    combination_split,
    cross_validation_split,
    customer_folds,
    hold_out_split,
    product_split,
    time_split,
)
from recsys_jax.data.tables import Table
from recsys_jax.errors import InputError

EXTRA = {"values": "learned", "unknown": "extra-row", "missing": "extra-row"}
SCHEMA = {
    "name": "shop",
    "products": {
        "file": "p.json",
        "id": "id",
        "category": "kind",
        "features": [{"name": "kind", "kind": "categorical", **EXTRA}],
    },
    "customers": {
        "file": "c.json",
        "id": "id",
        "segment": "group",
        "purchases": "bought",
        "date": "when",
        "features": [
            {"name": "group", "kind": "categorical", **EXTRA},
            {"name": "likes", "kind": "multi-categorical", "separator": "|", **EXTRA},
            {"name": "age", "kind": "numeric", "scale": 50, "unknown": "error", "missing": "flag"},
        ],
    },
}


def shop(customers: list[dict], products: int = 6, dated: bool = True) -> Dataset:
    """Products p0, p1, ... of the kinds a and b in turn; customers k0, k1, ... who bought a list of them."""
    document = json.loads(json.dumps(SCHEMA))
    if not dated:
        del document["customers"]["date"]
    rows = [{"id": f"p{i}", "kind": "ab"[i % 2]} for i in range(products)]
    blank = {"group": "x", "likes": "a", "age": 30, "when": 0, "bought": ["p0"]}
    people = [{"id": f"k{i}", **blank, **row} for i, row in enumerate(customers)]
    ids = [row["id"] for row in rows]
    schema = Schema.parse(document, "shop/dataset.toml")
    return assemble(schema, Table.of(rows, "p.json"), ids, Table.of(people, "c.json"), Path())


def some_shop(seed: int, customers: int = 60, products: int = 17, combinations: int = 12) -> Dataset:
    """A random shop: half of its customers bought several products, every tenth one nothing."""
    rng = np.random.default_rng(seed)
    kinds = [
        {"group": "xyz"[i % 3], "likes": "|".join("abc"[: 1 + i % 2]), "age": 20 + i // 3} for i in range(combinations)
    ]
    rows = []
    for i in range(customers):
        count = 0 if i % 10 == 9 else int(rng.integers(1, 6)) if i % 2 else 1
        bought = [f"p{p}" for p in rng.choice(products, count, replace=False)]
        rows.append({**kinds[rng.integers(combinations)], "bought": bought, "when": int(rng.integers(0, 9))})
    return shop(rows, products)


def refused(call) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert "allowed:" in str(caught.value)
    return str(caught.value)


SHOPS = [some_shop(seed) for seed in range(8)]
CASES = [(dataset, folds, seed) for seed, dataset in enumerate(SHOPS) for folds in (2, 3, 5)]


def same(one, other) -> bool:
    """Whether two splits ask for the same purchases in the same folds."""
    assert len(one.folds) == len(other.folds)
    return all(np.array_equal(a.queries, b.queries) for a, b in zip(one.folds, other.folds, strict=True))


# What holds for all


@pytest.mark.parametrize("name", SPLITS)
def test_every_split_by_its_name(name):
    for dataset, folds, seed in CASES:
        split = SPLITS[name](dataset, folds, seed)
        assert split.name == name
        assert split.title
        assert len(split.folds) == (1 if name in ("hold-out", "time") else folds)
        for fold in split.folds:
            assert fold.train.dtype == fold.queries.dtype == bool
            assert fold.train.shape == fold.queries.shape == (len(dataset.purchases),)
            assert (fold.train != fold.queries).all()  # each purchase on one side
            assert fold.train.any()
            assert fold.queries.any()
            assert (fold.candidates is None) == (name != "new-products")
        asked = sum(fold.queries.astype(int) for fold in split.folds)
        assert (asked == 1).all() if len(split.folds) > 1 else asked.max() == 1


def test_the_names():
    assert list(SPLITS) == ["cross-validation", "hold-out", "time", "new-combinations", "new-products"]
    with pytest.raises(TypeError):
        SPLITS["mine"] = cross_validation_split


@pytest.mark.parametrize("name", ["cross-validation", "new-combinations", "new-products"])
def test_splits_follow_from_the_seed(name):
    dataset = SHOPS[0]
    first = SPLITS[name](dataset, 5, 7)
    assert same(first, SPLITS[name](dataset, 5, 7))
    assert not same(first, SPLITS[name](dataset, 5, 8))
    assert "seed" in refused(lambda: SPLITS[name](dataset, 5, -1))


@pytest.mark.parametrize("name", ["hold-out", "time"])
def test_splits_without_a_seed_take_one_part_in_folds(name):
    dataset = SHOPS[0]
    assert same(SPLITS[name](dataset, 5, 0), SPLITS[name](dataset, 5, 9))
    direct = hold_out_split(dataset, 3) if name == "hold-out" else time_split(dataset, 1 / 3)
    assert same(SPLITS[name](dataset, 3, 0), direct)
    assert not same(SPLITS[name](dataset, 3, 0), SPLITS[name](dataset, 5, 0))


@pytest.mark.parametrize("name", SPLITS)
@pytest.mark.parametrize("folds", [1, 0, -2])
def test_fewer_than_two_folds(name, folds):
    assert f"folds: found {folds}; allowed: 2" in refused(lambda: SPLITS[name](SHOPS[0], folds, 0))


# New customers


def test_a_customer_is_asked_by_a_model_that_has_not_seen_it():
    for dataset, folds, seed in CASES:
        customers = dataset.purchases[:, 0]
        for fold in cross_validation_split(dataset, folds, seed).folds:
            assert not set(customers[fold.train]) & set(customers[fold.queries])


def test_the_folds_are_those_of_customer_folds():
    """So that figures stay comparable with those that were published for a seed."""
    for dataset, folds, seed in CASES:
        number = customer_folds(len(dataset.customers), folds, seed, dataset.segments)[dataset.purchases[:, 0]]
        split = cross_validation_split(dataset, folds, seed)
        for i, fold in enumerate(split.folds):
            np.testing.assert_array_equal(fold.queries, number == i)
        assert split.title == f"cross-validation, {folds} folds over customers"


def test_each_segment_is_spread_evenly():
    groups = ["x"] * 11 + ["y"] * 7 + ["z"] * 2
    dataset = shop([{"group": group} for group in groups])
    for seed in range(20):
        for fold in cross_validation_split(dataset, 3, seed).folds:
            counts = Counter(groups[row] for row in dataset.purchases[fold.queries, 0])
            assert (counts["x"], counts["y"], counts["z"]) in [
                (x, y, z) for x in (3, 4) for y in (2, 3) for z in (0, 1)
            ]


def test_a_fold_of_customers_without_purchases_is_refused():
    dataset = shop([{}, {"bought": []}, {"bought": []}])
    said = refused(lambda: cross_validation_split(dataset, 3, 0))
    assert said.startswith("shop, cross-validation, 3 folds over customers: found a fold without purchases to ask for")
    said = refused(lambda: cross_validation_split(shop([{}, {"bought": []}]), 2, 0))
    assert "a fold without purchases" in said


# The same customers in every program


def asked_customers(dataset: Dataset, fold) -> set[str]:
    return {dataset.customer_ids[row] for row in dataset.purchases[fold.queries, 0]}


def test_the_held_out_are_those_of_the_formula():
    """By hand: `printf %s k3 | sha1sum` prints b532a5440dd8422d9d5f8d999b310687d4a2fed9, which 5 divides."""
    rests = [3, 4, 4, 0, 2, 4, 2, 3, 1, 0, 0, 0]  # of k0 to k11
    dataset = shop([{"bought": ["p0", "p1"]} for _ in rests])
    (fold,) = hold_out_split(dataset).folds
    assert asked_customers(dataset, fold) == {f"k{i}" for i, rest in enumerate(rests) if rest == 0}
    assert fold.queries.sum() == 2 * rests.count(0)  # with all that they bought
    # Divided by 2 instead, the number's last digit decides: k3 ends in 9.
    (fold,) = hold_out_split(dataset, 2).folds
    assert asked_customers(dataset, fold) == {"k0", "k2", "k4", "k5", "k6", "k10", "k11"} - {"k5"}


def test_ids_are_utf_8_texts():
    """The checksums of é and 97 are divisible by 5, those of 김 and k4 are not; é in Latin-1 would have another."""
    dataset = shop([{"id": key} for key in ("é", 97.0, "김", "k4")])
    (fold,) = hold_out_split(dataset).folds
    assert asked_customers(dataset, fold) == {"é", "97"}


def test_the_order_of_the_table_does_not_matter():
    rows = [{"id": f"k{i}"} for i in range(40)]
    there, back = shop(rows), shop(rows[::-1])
    there_asked, back_asked = (asked_customers(one, hold_out_split(one).folds[0]) for one in (there, back))
    assert there_asked == back_asked
    assert there.customer_ids == back.customer_ids[::-1]


def test_nobody_or_everybody_held_out():
    some = {"bought": ["p0", "p1"]}
    nobody = shop([{"id": "k0", **some}, {"id": "k1", **some}, {"id": "k3", "bought": []}])
    everybody = shop([{"id": "k3", **some}, {"id": "k9", **some}, {"id": "k0", "bought": []}])
    said = refused(lambda: hold_out_split(nobody))
    assert said.startswith("c.json: sha1(id) % 5 = 0 holds out none of the 2 customers with purchases")
    assert "holds out all of the 2 customers" in refused(lambda: hold_out_split(everybody))
    for share in (1, 0, -5):
        assert f"share: found {share}; allowed: 2 or more" in refused(lambda share=share: hold_out_split(nobody, share))


# The future


def times(dates: list[float], share: float) -> list[bool]:
    """Which of the purchases, made by one customer each at these times, are asked."""
    dataset = shop([{"when": when} for when in dates])
    (fold,) = time_split(dataset, share).folds
    return fold.queries.tolist()


@pytest.mark.parametrize(
    ("dates", "share", "later"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 0.2, {8, 9}),
        ([9, 8, 7, 6, 5, 4, 3, 2, 1, 0], 0.2, {8, 9}),  # the order of the table does not matter
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 0.3, {7, 8, 9}),
        ([0, 1, 2, 3, 4], 0.5, {2, 3, 4}),
        # The last two begin within the five of date 4, who stay together.
        ([0, 1, 2, 3, 4, 4, 4, 4, 4, 9], 0.2, {4, 9}),
        # They begin at the first date, which must remain to learn from.
        ([4, 4, 4, 4, 4, 4, 4, 4, 4, 9], 0.2, {9}),
        ([4, 4, 4, 4, 4, 4, 4, 4, 5, 9], 0.9, {5, 9}),
        ([0, 1, 2], 1e-9, {2}),
        ([0, 1, 2], 1 - 1e-9, {1, 2}),
        ([-5, 0.5], 0.2, {0.5}),
    ],
)
def test_the_last_share_by_hand(dates, share, later):
    assert times(dates, share) == [when in later for when in dates]


@settings(deadline=None, max_examples=100)
@given(
    dates=st.lists(st.integers(0, 9), min_size=2, max_size=30).filter(lambda dates: len(set(dates)) > 1),
    share=st.floats(0.01, 0.99),
)
def test_everything_asked_comes_later(dates, share):
    asked = np.array(times(dates, share))
    when = np.array(dates)
    assert when[asked].min() > when[~asked].max()
    # As few as hold the share, but that a date stays whole and the first one remains.
    wanted = min(max(len(dates) - round(len(dates) * (1 - share)), 1), len(dates))
    assert asked.sum() >= wanted or set(when[~asked]) == {when.min()}
    assert (when > when[asked].min()).sum() < wanted or set(when[~asked]) == {when.min()}


def test_who_comes_back_is_asked_too():
    """k0's first purchase is learned from and the second asked; the product that was new then is a candidate."""
    document = [{"id": "k0", "when": 1, "bought": ["p0"]}, {"id": "k1", "when": 2}, {"id": "k2", "when": 3}]
    document += [{"id": "k3", "when": 86400 * 366, "bought": ["p5"]}]
    dataset = shop(document)
    schema = {**SCHEMA, "customers": {**SCHEMA["customers"], "repeated": "first"}}
    rows = [{**{name: column[i] for name, column in dataset.customers.columns.items()}} for i in range(4)]
    rows[3]["id"] = "k0"
    again = assemble(
        Schema.parse(schema, "shop"), dataset.products, dataset.product_ids, Table.of(rows, "c.json"), Path()
    )
    assert again.customer_ids == ["k0", "k1", "k2"]
    split = time_split(again, 0.25)
    (fold,) = split.folds
    assert again.purchases[fold.queries].tolist() == [[0, 5]]
    assert again.purchases[fold.train].tolist() == [[0, 0], [1, 0], [2, 0]]
    assert fold.candidates is None
    assert split.title == "time, the purchases from 1971-01-02 on"


def test_no_dates_or_one_is_a_sentence(films):
    said = refused(lambda: time_split(shop([{}, {}], dated=False)))
    assert said.startswith("dataset.toml, [customers]: date: it is not given")
    assert refused(lambda: time_split(load_dataset(films))).startswith("dataset.toml, [interactions]: date")
    one = shop([{"when": "2024-03-01T12:30"}, {"when": "2024-03-01T12:30Z"}])
    assert refused(lambda: time_split(one)).startswith("shop: found the date 2024-03-01 12:30:00 for all purchases")
    for share in (0, 1, -0.2, 5, float("nan")):
        assert f"share: found {share}" in refused(lambda share=share: time_split(SHOPS[0], share))


# New combinations of attributes


def attributes(dataset: Dataset) -> list[tuple]:
    """What each customer's values mean, read by other code than the library's."""
    columns = dataset.customers.columns
    return [
        (group, frozenset((likes or "").split("|")), None if age is None else float(age))
        for group, likes, age in zip(columns["group"], columns["likes"], columns["age"], strict=True)
    ]


def test_no_combination_is_on_both_sides():
    for dataset, folds, seed in CASES:
        known = attributes(dataset)
        shared_by_several = Counter(known[row] for row in set(dataset.purchases[:, 0].tolist()))
        assert max(shared_by_several.values()) > 1  # or there would be nothing to keep together
        for fold in combination_split(dataset, folds, seed).folds:
            learned = {known[row] for row in dataset.purchases[fold.train, 0]}
            assert not learned & {known[row] for row in dataset.purchases[fold.queries, 0]}


def test_folds_of_combinations_have_about_as_many_purchases():
    for dataset, folds, seed in CASES:
        known = attributes(dataset)
        largest = max(Counter(known[row] for row in dataset.purchases[:, 0]).values())
        sizes = [int(fold.queries.sum()) for fold in combination_split(dataset, folds, seed).folds]
        assert max(sizes) - min(sizes) <= largest


ALIKE = [
    ({"age": 30}, {"age": "30"}),
    ({"age": 30}, {"age": 30.0}),
    ({"age": None}, {"age": float("nan")}),
    ({"likes": "a|b"}, {"likes": " b | a|a"}),
    ({"likes": "a|b"}, {"likes": ["b", "a"]}),
    ({"likes": ""}, {"likes": None}),
    ({"group": 97}, {"group": "97"}),
    ({"group": "x "}, {"group": "x"}),
]
UNLIKE = [
    ({"age": 30}, {"age": 31}),
    ({"age": 30}, {"age": None}),
    ({"age": 0}, {"age": None}),
    ({"likes": "a|b"}, {"likes": "a"}),
    ({"likes": "a|b"}, {"likes": "a|c"}),
    ({"likes": "a"}, {"likes": None}),
    ({"group": "x"}, {"group": "X"}),
    ({"group": "x"}, {"group": "y"}),
    ({"group": "x"}, {"group": None}),
    ({"group": "x", "likes": "y"}, {"group": "y", "likes": "x"}),
]


@pytest.mark.parametrize(("one", "other"), ALIKE, ids=str)
def test_values_that_mean_the_same_are_one_combination(one, other):
    dataset = shop([{"age": 70, "likes": "z"}, one, other])
    for seed in range(4):
        sizes = {tuple(fold.queries.tolist()) for fold in combination_split(dataset, 2, seed).folds}
        assert sizes == {(True, False, False), (False, True, True)}
    alone = shop([{"age": 70, "likes": "z", "bought": []}, {**one, "bought": ["p0", "p1"]}, {"likes": "z"}, other])
    assert "folds: found 3; allowed: 2 to 2" in refused(lambda: combination_split(alone, 3, 0))


@pytest.mark.parametrize(("one", "other"), UNLIKE, ids=str)
def test_values_that_mean_something_else_are_two(one, other):
    (first, second) = combination_split(shop([one, other]), 2, 0).folds
    assert {tuple(first.queries.tolist()), tuple(second.queries.tolist())} == {(True, False), (False, True)}


def test_an_alias_and_its_value_are_one_combination(mall):
    """In the mall "mature" means "sensitive"."""
    rows = json.loads((mall / "customers.json").read_text(encoding="utf-8"))
    for row, skin_type in zip(rows, ["mature", "sensitive"] + ["dry"] * 8, strict=True):
        row.update(skin_type=skin_type, skin_concern="gift", gender="F", age=30)
    (mall / "customers.json").write_text(json.dumps(rows), encoding="utf-8")
    first, _ = combination_split(load_dataset(mall), 2, 0).folds
    assert Counter(first.queries.tolist()) in ({True: 2, False: 8}, {True: 8, False: 2})
    assert first.queries[0] == first.queries[1]


def test_fewer_combinations_than_folds():
    dataset = shop([{"age": age, "bought": ["p0"] if age < 33 else []} for age in (30, 30, 31, 32, 33, 34)])
    said = refused(lambda: combination_split(dataset, 4, 0))
    assert said.startswith("folds: found 4; allowed: 2 to 3, the number of different combinations")
    assert len(combination_split(dataset, 3, 0).folds) == 3
    assert combination_split(dataset, 3, 0).title.endswith("3 folds over 3 combinations")


def test_a_value_that_the_schema_refuses():
    said = refused(lambda: combination_split(shop([{"bought": []}, {"age": 30}, {"age": "old"}]), 2, 0))
    assert said.startswith("c.json, row 3, age: found 'old'")


# New products


def test_a_product_is_asked_by_a_model_that_has_not_seen_it():
    for dataset, folds, seed in CASES:
        products = dataset.purchases[:, 1]
        for fold in product_split(dataset, folds, seed).folds:
            assert not fold.candidates[products[fold.train]].any()
            assert fold.candidates[products[fold.queries]].all()


def test_every_product_is_a_candidate_once_and_each_category_evenly():
    for dataset, folds, seed in CASES:
        dealt = np.stack([fold.candidates for fold in product_split(dataset, folds, seed).folds])
        assert (dealt.sum(axis=0) == 1).all()
        kinds = np.array(dataset.categories)
        for members in (kinds == "a", kinds == "b", kinds != ""):
            sizes = dealt[:, members].sum(axis=1)
            assert members.sum() == sizes.sum() > 0
            assert sizes.max() - sizes.min() <= 1


def test_products_without_categories(films):
    toml = films / "dataset.toml"
    toml.write_text(toml.read_text(encoding="utf-8").replace('category = "studio"\n', ""), encoding="utf-8")
    dataset = load_dataset(films)
    assert dataset.categories is None
    sizes = [int(fold.candidates.sum()) for fold in product_split(dataset, 2, 0).folds]
    assert sorted(sizes) == [2, 3]


def test_bad_folds_of_products():
    said = refused(lambda: product_split(shop([{}, {}], products=4), 5, 0))
    assert said == "folds: found 5; allowed: 2 to 4, the number of products"
    said = refused(lambda: product_split(shop([{"bought": ["p0", "p1"]}], products=4), 4, 0))
    assert "new products, 4 folds over products: found a fold without purchases to ask for" in said
    said = refused(lambda: product_split(shop([{"bought": ["p0"]}], products=2), 2, 0))
    assert "a fold without purchases" in said


@pytest.mark.wild
def test_one_cannot_be_parted():
    """No range that ends before it begins."""
    alone = shop([{"bought": ["p0", "p1"]}], products=1 + 1)
    assert refused(lambda: cross_validation_split(alone, 5, 0)) == "customers: found 1; allowed: 2 or more"
    said = refused(lambda: combination_split(alone, 2, 0))
    assert said.startswith("different combinations of attributes that customers")
    assert said.endswith(": found 1; allowed: 2 or more")
    one_product = shop([{}, {}], products=1)
    assert refused(lambda: product_split(one_product, 5, 0)) == "products: found 1; allowed: 2 or more"


@pytest.mark.wild
@pytest.mark.parametrize("seed", [-1, 2**32, 10**21])
@pytest.mark.parametrize("split", [cross_validation_split, combination_split, product_split])
def test_seeds_beyond_those_that_every_generator_takes(split, seed):
    said = refused(lambda: split(shop([{}, {"age": 31}]), 2, seed))
    assert said == f"seed: found {seed}; allowed: from 0 to 4294967295"
