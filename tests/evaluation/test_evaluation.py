"""Protocols and baselines, on data whose figures can be counted."""

import time
from dataclasses import replace

import numpy as np
import pytest
from protocols import bought_by, cross_validation, evaluate_split, in_sample

from recsys_jax import DeepConfig
from recsys_jax.data.splits import SPLITS, Derived, Fold, Split
from recsys_jax.data.tables import Table
from recsys_jax.errors import InputError
from recsys_jax.evaluation.baselines import baselines
from recsys_jax.evaluation.bootstrap import mean_interval
from recsys_jax.evaluation.engine import ALL, MODEL, evaluate
from recsys_jax.evaluation.methods import Method, fixed, model_scorer
from recsys_jax.evaluation.queries import Queries, Scorer, attribute_rows
from recsys_jax.evaluation.report import report
from recsys_jax.models import metrics
from recsys_jax.training.fit import fit


@pytest.fixture(scope="module")
def counted():
    return bought_by({"x": [["p0"], ["p0"], ["p0"], ["p1"], ["p2"]], "y": [["q0"], ["q0"], ["q1"], ["p0"], ["q0"]]})


@pytest.fixture(scope="module")
def model(counted):
    return fit(counted, DeepConfig(epochs=2))


def test_in_sample_baselines_by_hand(counted, model):
    result = in_sample(model, counted, (1, 3))
    # Bought: p0 4 times, q0 3, p1, p2 and q1 once. At the first place: p0, so 4 of 10 are hit.
    assert result.mean("popularity", "hit@1") == pytest.approx(0.4)
    # The third place is shared by the three that were bought once.
    assert result.mean("popularity", "hit@3") == pytest.approx((4 + 3 + 3 * (1 / 3)) / 10)
    # x: p0 3 times, p1 and p2 once; y: q0 3 times, q1 and p0 once.
    assert result.mean("popularity per group", "hit@1") == pytest.approx(6 / 10)
    assert result.mean("popularity per group", "hit@1", "x") == pytest.approx(3 / 5)
    assert result.mean("popularity per group", "hit@3") == pytest.approx(1.0)
    assert result.mean("popularity per group", "mrr", "x") == pytest.approx((3 * 1 + 2 * (1 / 2 + 1 / 3) / 2) / 5)
    # The kind of the first: right for all of x; for y where it is b, 4 of 5.
    assert result.mean("popularity per group", "category_hit@1") == pytest.approx(9 / 10)
    assert result.mean("random", "hit@3") == pytest.approx(3 / 8)
    # Three of eight with four of a kind miss that kind with C(4, 3) / C(8, 3).
    assert result.mean("random", "category_hit@3") == pytest.approx(1 - 4 / 56)
    assert result.protocol == "in-sample"
    assert result.queries == {ALL: 10, "x": 5, "y": 5}


def test_several_purchases_are_several_queries():
    data = bought_by({"x": [["p0", "p1"], ["p0"]], "y": [["q0", "q1", "q2"]]})
    result = in_sample(fit(data, DeepConfig(epochs=1)), data, (1,))
    assert len(np.unique(result.customers)) == 3
    assert result.queries == {ALL: 6, "x": 3, "y": 3}


def test_held_out_counts_leave_the_held_out_purchase_out(counted):
    """Leave-one-out by hand: each customer is ranked by what the others bought."""
    result = cross_validation(counted, DeepConfig(epochs=1), (1,), folds=10)
    # A buyer of p0: the others bought p0 3 times and q0 3 times, so the first place is shared: 1/2 for each of the 4.
    # A buyer of q0: p0 4, q0 2. The others: their product is not the first.
    assert result.mean("popularity", "hit@1") == pytest.approx(4 * 0.5 / 10)
    assert len(result.customers) == len(set(result.customers.tolist())) == 10
    assert result.protocol == "cross-validation, 10 folds over customers"


def test_a_customers_purchases_stay_together_and_each_is_asked_once():
    data = bought_by({"x": [["p0", "p1"], ["p2", "p0"], ["p1"]], "y": [["q0", "q1", "q2"], ["q0"], ["q3", "q1"]]})
    seen = []
    original = data.purchases

    def of_fold(known):
        seen.append(known.copy())
        return data

    result = cross_validation(data, DeepConfig(epochs=1), (1,), folds=3, dataset_of_fold=of_fold)
    assert sum(~known for known in seen).tolist() == [1] * 6  # each customer is held out once
    asked = sorted(zip(result.customers.tolist(), result.products.tolist(), strict=True))
    assert asked == sorted(map(tuple, original.tolist()))


def test_the_same_seed_gives_the_same_figures(counted):
    runs = [cross_validation(counted, DeepConfig(epochs=2, seed=3), (1,), folds=2, seed=s) for s in (1, 1, 2)]
    one, two, other = (run.values["model"]["mrr"].tolist() for run in runs)
    assert one == two
    assert one != other


def test_bad_requests_are_sentences(counted, model):
    with pytest.raises(InputError, match=r"^k: found 0; allowed: from 1 to 2147483647$"):
        in_sample(model, counted, (0,))
    with pytest.raises(InputError, match=r"^k: found none; allowed: one length or more$"):
        in_sample(model, counted, ())
    split = SPLITS["hold-out"](counted, 5, 0)
    with pytest.raises(InputError, match=r"^seed: found -1; allowed: from 0 to 4294967295$"):
        evaluate_split(counted, DeepConfig(), split, (1,), seed=-1)
    with pytest.raises(InputError, match="not the products that the model was trained on"):
        in_sample(replace(model, product_ids=("z",)), counted, (1,))
    with pytest.raises(InputError, match="not the customers and purchases that the model was trained on"):
        in_sample(model, replace(counted, purchases=counted.purchases[1:]), (1,))
    # Other attributes for the same purchases, as a published customer file has beside one made of the same reviews.
    columns = {**counted.customers.columns, "group": ["y"] * 5 + ["x"] * 5}
    with pytest.raises(InputError, match="not the customers and purchases that the model was trained on"):
        in_sample(model, replace(counted, customers=Table("others", columns)), (1,))
    with pytest.raises(InputError, match=r"^folds: found 11; allowed: 2 to 10"):
        cross_validation(counted, DeepConfig(), (1,), folds=11)


def values(scorer, data, ks=(1, 3), *, candidates=None):
    everything = np.ones(len(data.purchases), bool)
    queries = everything if candidates is None else candidates[data.purchases[:, 1]]
    return Queries.of(data, Fold(everything, queries, candidates), ks).values(scorer)


def test_shared_scores_mean_the_same_as_each_query_by_itself():
    """Every figure is the one that `metrics` gives for that query alone, ties included."""
    rng = np.random.default_rng(0)
    names = [f"{letter}{i}" for letter in "pq" for i in range(4)]
    data = bought_by({group: [[str(rng.choice(names))] for _ in range(100)] for group in "xy"})
    # Few different scores, so that many tie.
    table = rng.integers(3, size=(2, 8)).astype(float)
    shared = Scorer.table(table, np.repeat([0, 1], 100))
    codes = np.array([0] * 4 + [1] * 4)
    counts = np.bincount(data.purchases[:, 1], minlength=8)
    found, lists, _ = values(shared, data)
    plain, _, _ = values(Scorer(shared, np.arange(200)), data)
    for i, (customer, target) in enumerate(data.purchases):
        scores, targets = table[[customer // 100]], np.array([target])
        ranked = metrics.ranks(scores, targets)
        of_category = metrics.category_ranks(scores, codes[targets][:, None] == codes[None])
        expected = {
            **{f"hit@{k}": metrics.hit_at_k(ranked, k=k) for k in (1, 3)},
            **{f"category_hit@{k}": metrics.category_hit(of_category, k=k) for k in (1, 3)},
            "mrr": metrics.reciprocal_rank(ranked),
            **{f"ndcg@{k}": metrics.ndcg_at_k(ranked, k=k) for k in (1, 3)},
            "auc": metrics.count_matched_auc(scores, targets, counts),
        }
        assert {name: one[i] for name, one in found.items()} == {
            name: pytest.approx(one[0], nan_ok=True) for name, one in expected.items()
        }
    for name, one in plain.items():
        np.testing.assert_array_equal(one, found[name])
    np.testing.assert_allclose(lists[3].exposure().sum(), 3 * 200)


class Counting:
    """A scorer that says how many rows of scores it was asked for."""

    def __init__(self, scorer):
        self.scorer, self.rows = scorer, 0

    def __call__(self, rows):
        self.rows += len(rows)
        return self.scorer(rows)


def test_customers_who_are_alike_are_scored_once():
    data = bought_by({"x": [["p0", "p1", "q0"], ["p2"]], "y": [["q1", "p0"]]})
    scorer = Counting(lambda rows: rows[:, None] + np.arange(8.0))
    values(Scorer(scorer, np.arange(3)), data)
    assert scorer.rows == 3  # a customer who bought much is scored once
    groups = Counting(lambda rows: rows[:, None] + np.arange(8.0))
    values(Scorer(groups, np.array([0, 0, 1])), data)
    assert groups.rows == 2


def test_the_model_scores_as_embeddings_say(counted, model):
    """Of ten customers two combinations are embedded; everybody has the scores of their own attributes."""
    scorer = model_scorer(model, counted)
    assert len(np.unique(scorer.group)) == 2
    customers = model.embed_customers(counted.customers)
    expected = (1 + customers @ model.product_embeddings.T) / 2 + model.product_bias
    np.testing.assert_allclose(scorer(np.arange(10)), expected, atol=1e-6)


def test_attribute_rows_tell_a_missing_value_from_a_word(counted):
    values = ["a", None, "None", "a", ["a"], "['a']"]
    columns = {"id": list("123456"), "group": values, "bought": [["p0"]] * 6}
    first, group = attribute_rows(replace(counted, customers=Table("values", columns)))
    assert group.tolist() == [0, 1, 2, 0, 3, 4]
    assert [values[row] for row in first] == ["a", None, "None", ["a"], "['a']"]


def test_only_candidates_are_ranked():
    """New products: chance is that of the few that are ranked, and they alone are listed."""
    data = bought_by({"x": [["p0"], ["p1"], ["p2"]], "y": [["q0"], ["q1"], ["p0"]]})
    candidates = np.isin(np.arange(8), [0, 1, 4])  # p0, p1, q0
    # The best of all is p2, which is no candidate: the order among the others is p1, q0, p0.
    scorer = Scorer.table(np.array([[1.0, 3, 9, 0, 2, 0, 0, 0]]), np.zeros(6, int))
    found, lists, _ = values(scorer, data, (1, 2), candidates=candidates)
    bought = [data.product_ids[row] for row in data.purchases[candidates[data.purchases[:, 1]], 1]]
    by_hand = {"p1": 1.0, "q0": 1 / 2, "p0": 1 / 3}
    assert found["mrr"].tolist() == pytest.approx([by_hand[name] for name in bought])
    assert lists[1].exposure().tolist() == [0, 4, 0, 0, 0, 0, 0, 0]
    assert lists[1].total == 8


def test_lists_are_measured_customer_by_customer():
    """Among the candidates, by hand: each customer counts alike, whatever was bought."""
    data = bought_by({"x": [["p0", "p1", "q0"], ["q0"]], "y": [["p1", "p2"]]})
    candidates = np.isin(np.arange(8), [0, 1, 4])  # p0, p1, q0, which are ranked p1, q0, p0 for x and q0, p1, p0 for y
    table = np.array([[1.0, 3, 9, 0, 2, 0, 0, 0], [1.0, 2, 9, 0, 3, 0, 0, 0]])
    *_, found = values(Scorer.table(table, np.array([0, 0, 1])), data, (2,), candidates=candidates)
    second = 1 / np.log2(3)
    assert found["precision@2"].tolist() == [1, 1 / 2, 1 / 2]
    assert found["recall@2"].tolist() == pytest.approx([2 / 3, 1, 1])
    assert found["map@2"].tolist() == pytest.approx([(1 + 1) / 3, 1 / 2, 1 / 2])
    assert found["ndcg@2"].tolist() == pytest.approx([1, second, second])


def test_means_over_customers_stand_in_the_document():
    """Of folds, of several seeds and of the control; the interval draws the customers."""
    data = bought_by({"x": [["p0", "p1"], ["p2", "p0"], ["p1"]], "y": [["q0", "q1", "q2"], ["q0"], ["q3", "q1"]]})
    result = cross_validation(data, DeepConfig(epochs=2), (1, 3), folds=3, seeds=[0, 1], ensemble=True)
    document = report(result, count=50).document()["per customer"]
    assert set(document) == set(result.methods)
    for method, answers in result.methods.items():
        assert answers.of_customers["map@3"].shape == (len(answers.values["mrr"]), 6)
        # What a customer's hits say, purchase by purchase.
        hits = [result.values[method]["hit@3"][result.customers == customer] for customer in result.listed]
        for metric, expected in (
            ("recall@3", [one.mean() for one in hits]),
            ("precision@3", [sum(one) / 3 for one in hits]),
        ):
            assert answers.of_customers[metric].mean(axis=0) == pytest.approx(np.array(expected))
            assert document[method][metric]["mean"] == pytest.approx(np.mean(expected))
            assert document[method][metric]["n"] == 6
            alone = mean_interval(np.array(expected), result.listed, count=50)
            assert document[method][metric]["low"] == pytest.approx(alone.low)


@pytest.fixture(scope="module")
def shop():
    """Group x buys p-products, group y q-products, so that attributes tell all."""
    rng = np.random.default_rng(1)
    return bought_by(
        {
            "x": [[f"p{i}" for i in rng.choice(4, 2, replace=False)] for _ in range(60)],
            "y": [[f"q{i}" for i in rng.choice(4, 2, replace=False)] for _ in range(60)],
        }
    )


@pytest.mark.parametrize("name", ["cross-validation", "hold-out", "new-products"])
def test_any_split_is_asked_as_it_says(name, shop):
    split = SPLITS[name](shop, 4, 0)
    result = evaluate_split(shop, DeepConfig(epochs=1), split, (1, 2))
    asked = np.concatenate([shop.purchases[fold.queries] for fold in split.folds])
    np.testing.assert_array_equal(np.stack([result.customers, result.products], axis=1), asked)
    assert (result.split, result.protocol) == (name, split.title)
    new = name == "new-products"
    assert result.candidates == (2 if new else 8)
    assert result.mean("random", "hit@1") == pytest.approx(1 / 2 if new else 1 / 8)
    rivals = ["popularity by category"] if new else ["popularity", "popularity per group", "inverse popularity"]
    assert set(result.values) == {
        "model",
        "random",
        *rivals,
        *([] if new else ["naive Bayes", "logistic regression"]),
        "model, attributes shuffled",
    }
    lists = sum(len(np.unique(shop.purchases[fold.queries, 0])) for fold in split.folds)
    found = {len(answers.lists[1].rows) for answers in result.methods.values() if answers.lists}
    assert found == {len(result.listed)} == {lists}
    assert not result.methods["model, attributes shuffled"].lists


def test_the_control_loses_what_the_attributes_told(shop):
    """With as many of either group, half of the shuffled customers get the other group's products: 1/2 of the hits."""
    split = SPLITS["cross-validation"](shop, 5, 0)
    told = fixed(lambda rows: np.where(rows[:, None] < 60, [1.0] * 4 + [0.0] * 4, [0.0] * 4 + [1.0] * 4))
    config = DeepConfig(loss="softmax", popularity_bias=True, epochs=60)
    result = evaluate_split(shop, config, split, (4,), beside={**baselines(shop), "told": told})
    assert result.mean("told", "hit@4") == 1
    assert result.mean("model", "hit@4") > 0.95
    assert result.mean("model, attributes shuffled", "hit@4") == pytest.approx(0.5, abs=0.1)
    # The groups' own popularity, and naive Bayes, know it too.
    assert result.mean("popularity per group", "hit@4") > 0.95
    assert result.mean("naive Bayes", "hit@4") > 0.95
    assert result.mean("popularity", "hit@4") < 0.7


def test_the_control_follows_its_seed(shop):
    split = SPLITS["hold-out"](shop, 5, 0)
    runs = [evaluate_split(shop, DeepConfig(epochs=2), split, (1,), seed=seed) for seed in (0, 0, 1)]
    one, same, other = (run.values["model, attributes shuffled"]["mrr"].tolist() for run in runs)
    assert one == same != other
    np.testing.assert_array_equal(runs[0].values["model"]["mrr"], runs[2].values["model"]["mrr"])


def test_both_views_of_a_derived_fold_are_asked_of_one_model(shop):
    """Whoever knows the answer gives it away; the other view hands everybody the group that is bought less."""
    told = [["x", "y"][bought[0][0] == "q"] for bought in shop.customers.column("bought")]
    hidden = replace(shop, customers=Table("told", {**shop.customers.columns, "group": told}))

    def of_fold(known):
        groups = [group if seen else "x" for group, seen in zip(told, known.tolist(), strict=True)]
        return Derived(hidden, replace(hidden, customers=Table("x", {**shop.customers.columns, "group": groups})))

    split = SPLITS["cross-validation"](shop, 4, 0)
    result = evaluate_split(shop, DeepConfig(epochs=1), split, (4,), dataset_of_fold=of_fold)
    honest = result.leak_free
    assert result.mean("popularity per group", "hit@4") > 0.95
    assert honest.mean("popularity per group", "hit@4") == pytest.approx(0.5)  # all are thought to be x
    np.testing.assert_array_equal(result.products, honest.products)
    assert honest.leak_free is None


def test_where_only_the_segment_was_derived_there_is_no_leak(shop):
    """Models read the same in both views: groups are those of the first, and rivals learn those of the second."""
    told = [["x", "y"][bought[0][0] == "q"] for bought in shop.customers.column("bought")]
    schema = replace(shop.schema, customers=replace(shop.schema.customers, segment="told"))

    def view(groups):
        return replace(shop, schema=schema, customers=Table("told", {**shop.customers.columns, "told": groups}))

    def of_fold(known):
        return Derived(view(told), view([one if seen else "x" for one, seen in zip(told, known.tolist(), strict=True)]))

    split = SPLITS["cross-validation"](shop, 4, 0)
    result = evaluate_split(view(told), DeepConfig(epochs=1), split, (4,), dataset_of_fold=of_fold)
    assert result.leak_free is None
    assert set(result.queries) == {ALL, "x", "y"}
    assert result.mean("popularity per told", "hit@4") == pytest.approx(0.5)


def test_the_time_is_that_of_the_clock(shop):
    """With what making customers anew took; and both views of a fold took the training, which is one."""

    def slow(known):
        time.sleep(0.05)
        return Derived(shop, shop)

    def learn(dataset, fold, number, progress):
        time.sleep(0.1)
        return fixed(lambda rows: np.zeros((len(rows), len(dataset.product_ids)))).learn(
            dataset, fold, number, progress
        )

    began = time.perf_counter()
    split = SPLITS["cross-validation"](shop, 4, 0)
    result = evaluate(shop, split, {MODEL: Method(learn)}, (1,), dataset_of_fold=slow)
    assert result.leak_free is None
    assert 4 * 0.15 <= result.seconds <= time.perf_counter() - began
    assert result.methods[MODEL].seconds >= 4 * 0.1


def test_customers_on_both_sides_cannot_be_made_in_the_fold(shop):
    fold = Fold(np.arange(240) % 2 == 0, np.arange(240) % 2 == 1)
    split = Split("halves", "halves of each customer", (fold,))
    with pytest.raises(InputError, match=r"^halves of each customer: found a customer with purchases on both sides"):
        evaluate_split(shop, DeepConfig(epochs=1), split, (1,), dataset_of_fold=lambda known: shop)


@pytest.mark.wild
@pytest.mark.parametrize("taken", ["all", "other customers", "other customers and seeds"])
def test_a_segment_has_no_name_that_means_something_else(taken):
    data = bought_by({taken: [["p0"], ["p0"], ["p1"]], "y": [["q0"], ["q1"]], f"{taken} (group)": [["p2"]]})
    models = [fit(data, DeepConfig(epochs=1, seed=seed)) for seed in (0, 1)]
    result = in_sample(models, data, (1,))
    assert result.queries == {ALL: 6, f"{taken} (group)": 3, "y": 2, f"{taken} (group) (group)": 1}
    document = report(result, count=10).document()
    assert set(document["methods"]["model"]["mrr"]) == set(result.queries) == set(document["queries"])
    over = document["over seeds"]["mrr"]
    assert set(over) == {"other customers", "other customers and seeds", *result.queries}
    assert over["other customers"]["n"] == 6


@pytest.mark.wild
@pytest.mark.parametrize("k", [2**31, 10**21, -(10**21)])
def test_lists_longer_than_any_catalogue(counted, model, k):
    with pytest.raises(InputError, match=rf"^k: found {k}; allowed: from 1 to 2147483647$"):
        in_sample(model, counted, (3, k))


@pytest.mark.wild
@pytest.mark.parametrize("seed", [2**32, 10**21])
def test_seeds_that_a_picture_would_refuse_afterwards(counted, seed):
    with pytest.raises(InputError, match=rf"^seed: found {seed}; allowed: from 0 to 4294967295$"):
        evaluate_split(counted, DeepConfig(), SPLITS["hold-out"](counted, 5, 0), (1,), seed=seed)
