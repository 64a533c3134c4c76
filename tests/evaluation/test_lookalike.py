"""What the pipeline recovers of the look-alike's planted truth, which only tests read.

pytest tests/test_lookalike.py -s     shows the figures
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from protocols import cross_validation

from recsys_jax import DeepConfig, WideConfig
from recsys_jax.data.dataset import assemble, read_products
from recsys_jax.data.schema import Schema
from recsys_jax.data.splits import customer_folds
from recsys_jax.data.tables import Table
from recsys_jax.evaluation.baselines import popularities
from recsys_jax.evaluation.methods import fixed
from recsys_jax.models import metrics
from recsys_jax.personas.catalogue import read_catalogue
from recsys_jax.personas.clustering import fit_personas
from recsys_jax.personas.customers import customer_rows, read_reviews
from recsys_jax.personas.encoders import get_encoder
from recsys_jax.personas.folds import personas_of_fold

pytestmark = pytest.mark.usefixtures("optimised")
MALL = Path(__file__).parents[2] / "data" / "amoremall"


@pytest.fixture(scope="module")
def mall(tmp_path_factory):
    """The dataset with the default encoder's personas, what makes it anew in each fold, and the planted scores."""
    cache = tmp_path_factory.mktemp("cache")
    schema = Schema.read(MALL / "dataset.toml")
    reviews = read_reviews(MALL, schema)
    products, ids = read_products(MALL, schema)
    encoder = get_encoder("use", corpus=reviews.texts, cache=cache)
    embeddings = encoder.encode(reviews.texts)
    personas = fit_personas(embeddings, reviews.texts, read_catalogue(MALL / "personas.toml"), encoder=encoder)
    customers = Table.of(customer_rows(reviews, personas, embeddings, 0), "customers")
    dataset = assemble(schema, products, ids, customers, MALL)
    return dataset, personas_of_fold(MALL, dataset, personas), planted(ids, dataset.categories)


def planted(product_ids, categories):
    """P(product | persona, skin type) of each review's writer (277, 93): by Bayes, from the two planted tables."""
    truth = json.loads((MALL / "truth.json").read_text("utf-8"))
    by_persona = {name: np.array([row[i] for i in product_ids]) for name, row in truth["preferences"].items()}
    by_skin = truth["skin_types"]
    rows = [
        by_persona[writer["persona"]] * np.array([by_skin[category][writer["skin_type"]] for category in categories])
        for writer in truth["personas"]
    ]
    return np.array([row / row.sum() for row in rows])


def surely_above(a, b) -> bool:
    """Whether the mean of a lies above that of b by more than two standard errors of the paired difference."""
    difference = a - b
    return difference.mean() > 2 * difference.std() / np.sqrt(277)


@pytest.mark.parametrize(
    "config",
    [WideConfig(), DeepConfig(loss="triplet"), DeepConfig(loss="infonce")],
    ids=["wide", "triplet", "infonce"],
)
@pytest.mark.parametrize(
    "splits", [1, pytest.param(3, marks=pytest.mark.slow(reason="the means that docs/results.md quotes"))]
)
def test_cross_validated_above_popularity_per_persona(splits, config, mall, request):
    """On held-out customers; each review's figure is its mean over the splits."""
    dataset, of_fold, truth = mall
    found: dict[str, dict[str, np.ndarray]] = {}
    for split in range(splits):
        result = cross_validation(
            dataset,
            replace(config, seed=split),
            (3,),
            seed=split,
            dataset_of_fold=of_fold,
            beside={**popularities(dataset), "planted optimum": fixed(lambda rows: truth[rows])},
            control=False,
        )
        order = np.argsort(result.customers)
        for method, by_metric in result.values.items():
            for metric, values in by_metric.items():
                kept = found.setdefault(method, {}).setdefault(metric, np.zeros(277))
                kept += values[order] / splits
    print(f"\n{request.node.callspec.id}, 5-fold cross-validation over 277 customers, {splits} splits")
    for method, by_metric in found.items():
        print(f"  {method:24}", "  ".join(f"{metric} {np.nanmean(values):.3f}" for metric, values in by_metric.items()))

    for metric in ("mrr", "hit@3", "category_hit@3", "ndcg@3"):
        optimum, popular = found["planted optimum"][metric], found["popularity per persona"][metric]
        assert surely_above(optimum, popular)  # the truth says that it can be
        assert surely_above(found["model"][metric], popular)
        assert surely_above(found["model"][metric], found["random"][metric])
        if metric != "category_hit@3":  # the best list for a category is another one than the likeliest products
            assert found["model"][metric].mean() < optimum.mean()  # more than the optimum would be a leak


def test_the_planted_truth_as_the_datasheet_quotes_it(mall):
    """The planted ranking and the counts, on the true personas, mean of ten splits; `data/README.md` has this table."""
    dataset, _, truth = mall
    written = json.loads((MALL / "truth.json").read_text("utf-8"))["personas"]
    _, writers = np.unique([review["persona"] for review in written], return_inverse=True)
    bought = np.array([dataset.product_ids.index(review["product_id"]) for review in written])
    category = np.array(dataset.categories)
    same = category[bought][:, None] == category

    def figures(scores):
        ranked = metrics.ranks(scores, bought)
        found = metrics.reciprocal_rank(ranked), metrics.hit_at_k(ranked, k=3)
        return [float(x.mean()) for x in (*found, metrics.category_hit(metrics.category_ranks(scores, same), k=3))]

    counted = []
    for split in range(10):
        fold, scores = customer_folds(277, 5, split, [str(who) for who in writers]), np.zeros((277, 93))
        for number in range(5):
            counts = np.zeros((6, 93))
            np.add.at(counts, (writers[fold != number], bought[fold != number]), 1)
            scores[fold == number] = counts[writers[fold == number]]
        counted.append(figures(scores))
    # One product of each of the three likeliest categories: the best list for naming the category.
    likely = {code: truth[:, category == code].sum(axis=1) for code in np.unique(category)}
    third = np.sort(np.stack(list(likely.values())), axis=0)[-3]
    named = np.array([likely[code][row] >= third[row] for row, code in enumerate(category[bought])])
    rows = {
        "the planted P(product given persona and skin type)": figures(truth),
        "training counts of (persona, product)": np.mean(counted, axis=0),
        "random": figures(np.zeros((277, 93))),
    }
    lines = [f"| {name} | " + " | ".join(f"{value:.3f}" for value in row) + " |" for name, row in rows.items()]
    lines.append(f"| one product of each of the three likeliest categories | | | {named.mean():.3f} |")
    sheet = (MALL.parent / "README.md").read_text("utf-8")
    for line in lines:
        print(line)
    assert all(line in sheet for line in lines)
