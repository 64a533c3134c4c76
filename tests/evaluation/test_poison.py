"""What is held out is poisoned, and nothing that is learned may move: not in a single byte."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from recsys_jax import DeepConfig, WideConfig
from recsys_jax.data.dataset import Dataset, assemble, load_dataset, read_schema
from recsys_jax.data.schema import Schema
from recsys_jax.data.splits import SPLITS, Fold, Split
from recsys_jax.data.tables import Table
from recsys_jax.evaluation import baselines, methods
from recsys_jax.evaluation.engine import MODEL, evaluate
from recsys_jax.evaluation.methods import Learned, Method, recipe
from recsys_jax.personas import folds as persona_folds
from recsys_jax.personas.catalogue import read_catalogue
from recsys_jax.personas.clustering import fit_personas
from recsys_jax.personas.customers import customer_rows, read_reviews
from recsys_jax.personas.encoders import get_encoder

MALL = Path(__file__).parents[2] / "data" / "amoremall"
LEARNED = {"values": "learned", "unknown": "extra-row", "missing": "extra-row"}
SCHEMA = Schema.parse(
    {
        "name": "poison",
        "products": {
            "file": "p.json",
            "id": "id",
            "category": "kind",
            "features": [{"name": "kind", "kind": "categorical", **LEARNED}],
        },
        "customers": {
            "file": "c.json",
            "id": "id",
            "segment": "group",
            "purchases": "bought",
            "features": [
                {"name": "group", "kind": "categorical", **LEARNED},
                {"name": "concerns", "kind": "multi-categorical", "separator": "|", **LEARNED},
                {"name": "age", "kind": "numeric", "standardise": True, "unknown": "error", "missing": "flag"},
            ],
        },
    },
    "schema",
)
PRODUCTS = [{"id": f"p{i}", "kind": f"kind{i % 3}"} for i in range(9)]
RECIPES = {
    "wide": WideConfig(),
    "triplet": DeepConfig(epochs=2),
    "softmax": DeepConfig(loss="softmax", popularity_bias=True, id_embedding=True, attribute_dropout=0.2, epochs=2),
    "extra customers": DeepConfig(loss="infonce", log_q=True, extra_customers=40, number_jitter=0.1, epochs=2),
}


def made(rows: list[dict]) -> Dataset:
    ids = [row["id"] for row in PRODUCTS]
    return assemble(SCHEMA, Table.of(PRODUCTS, "products"), ids, Table.of(rows, "customers"), Path())


def clean_rows() -> list[dict]:
    rng = np.random.default_rng(0)
    return [
        {
            "id": f"c{i}",
            "group": f"g{rng.integers(3)}",
            "concerns": "|".join(rng.choice(["dry", "fine", "red"], rng.integers(1, 3), replace=False)),
            "age": int(rng.integers(18, 70)),
            "bought": [f"p{j}" for j in rng.choice(9, rng.integers(1, 4), replace=False)],
        }
        for i in range(60)
    ]


def poisoned_rows(known: np.ndarray) -> list[dict]:
    """Whoever is held out has words never heard of, monstrous ages and other purchases."""
    rows = clean_rows()
    for i in np.flatnonzero(~known):
        rows[i] |= {
            "group": ["poison", "g0"][i % 2],
            "concerns": f"arsenic{i}|dry|lead|mercury|thallium|red|fine",
            "age": [1e14, -1e14, None][i % 3],
            "bought": [f"p{j}" for j in range(9) if j % 4 == i % 4],
        }
    return rows


def one_fold(dataset: Dataset, known: np.ndarray) -> Split:
    train = known[dataset.purchases[:, 0]]
    return Split("cross-validation", "one fold", (Fold(train, ~train),))


def leaves(*trees: object) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(trees)]


def everything_learned(dataset, known, config, monkeypatch) -> dict[str, object]:
    """What a run of the protocol fits, caught where the protocol asks for it."""
    caught: dict[str, object] = {}
    members = np.flatnonzero(known)

    def fit(*arguments, **options):
        model = kept["fit"](*arguments, **options)
        caught["vocabularies and scaling"] = [fitted.learned() for fitted in model.customers]
        caught["parameters"] = leaves(model.variables)
        caught["products"] = leaves(model.product_embeddings, model.product_bias, model.purchases)
        caught["losses"] = leaves(model.losses)
        return model

    def naive_bayes(*arguments, **options):
        found = kept["naive_bayes"](*arguments, **options)
        caught["naive Bayes"] = (leaves(found.log_popularity, found.log_ratio), found.alpha, found.values.shape[1])
        return found

    def watched(name: str, method: Method) -> Method:
        def learn(dataset, fold, number, progress):
            learned = method.learn(dataset, fold, number, progress)

            def scorers(view):
                found = learned.scorers(view)
                # Groups may be numbered anew where the poison brings new ones: what counts is everyone's score.
                caught.setdefault("scores", {})[name] = found[0](members).tobytes()
                return found

            return Learned(scorers)

        return Method(learn)

    places = ((methods, "fit", fit), (baselines, "naive_bayes", naive_bayes))
    kept = {name: getattr(module, name) for module, name, _ in places}
    with monkeypatch.context() as patch:
        for module, name, spy in places:
            patch.setattr(module, name, spy)
        beside = {name: watched(name, method) for name, method in baselines.baselines(dataset).items()}
        evaluate(dataset, one_fold(dataset, known), {MODEL: recipe(config), **beside}, (3,))
    assert set(caught["scores"]) == set(beside)
    return caught


def masks(name: str) -> list[np.ndarray]:
    """Who may be learned from in each fold of a split."""
    dataset = made(clean_rows())
    found = []
    for fold in SPLITS[name](dataset, 3, 0).folds:
        known = np.ones(len(dataset.customers), bool)
        known[dataset.purchases[fold.queries, 0]] = False
        assert known[dataset.purchases[fold.train, 0]].all()  # it splits by customers
        found.append(known)
    return found


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", ["cross-validation", "hold-out", "new-combinations"])
def test_nothing_learned_moves(name, recipe, monkeypatch):
    # Of `deep`, the published recipe is trained in all folds and its variations in one.
    for known in masks(name)[: None if recipe in ("wide", "triplet") else 1]:
        clean, poisoned = (
            everything_learned(made(rows), known, RECIPES[recipe], monkeypatch)
            for rows in (clean_rows(), poisoned_rows(known))
        )
        assert set(clean) == {"vocabularies and scaling", "parameters", "products", "losses", "naive Bayes", "scores"}
        for what, learned in clean.items():
            assert learned == poisoned[what], what


@pytest.mark.parametrize("leak", ["fit", "baselines"])
def test_a_leak_would_be_seen(leak, monkeypatch):
    """The same comparison fails where the held-out purchases are learned from."""
    honest_fit, honest_baselines = methods.fit, baselines.baselines

    def greedy_fit(dataset, config, *, train, progress):
        return honest_fit(dataset, config, train=np.ones_like(train), progress=progress)

    def greedy(method: Method) -> Method:
        def learn(dataset, fold, number, progress):
            return method.learn(dataset, replace(fold, train=np.ones_like(fold.train)), number, progress)

        return Method(learn)

    def greedy_baselines(dataset):
        return {name: greedy(method) for name, method in honest_baselines(dataset).items()}

    if leak == "fit":
        monkeypatch.setattr(methods, "fit", greedy_fit)
    else:
        monkeypatch.setattr(baselines, "baselines", greedy_baselines)
    known = masks("hold-out")[0]
    clean, poisoned = (
        everything_learned(made(rows), known, RECIPES["triplet"], monkeypatch)
        for rows in (clean_rows(), poisoned_rows(known))
    )
    moved = {what for what in clean if clean[what] != poisoned[what]}
    if leak == "fit":
        assert moved == {"vocabularies and scaling", "parameters", "products", "losses"}
    else:
        assert moved == {"naive Bayes", "scores"}


@pytest.fixture(scope="module")
def mall():
    """The mall's dataset with customers made of all reviews, and the personas."""
    reviews = read_reviews(MALL, read_schema(MALL))
    encoder = get_encoder("lsa", corpus=reviews.texts, seed=0)
    embeddings = encoder.encode(reviews.texts)
    catalogue = read_catalogue(MALL / "personas.toml")
    personas = fit_personas(embeddings, reviews.texts, catalogue, encoder=encoder, k=6, seed=0)
    return reviews, customer_rows(reviews, personas, embeddings, 0), personas


def poisoned_folder(folder: Path, known: np.ndarray) -> Path:
    """The mall, with other texts and profiles in the reviews that are held out."""
    shutil.copytree(MALL, folder)
    products, number = json.loads((MALL / "products.json").read_text("utf-8")), 0
    for product in products:
        for place, review in enumerate(product["reviews"]):
            if not known[number]:
                text = "수은 비소 납 수은 비소 " * (3 + number % 5)
                product["reviews"][place] = {**review, "profile_info": "70대/남성/지성/주름", "content": text}
            number += 1
    assert number == len(known)
    (folder / "products.json").write_text(json.dumps(products, ensure_ascii=False), "utf-8")
    return folder


def test_no_persona_moves(mall, tmp_path, monkeypatch):
    """Encoder, clusters, names and the training customers' attributes are those of the training reviews alone."""
    reviews, columns, personas = mall
    (tmp_path / "customers.json").write_text(
        json.dumps([dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]), "utf-8"
    )
    dataset = load_dataset(MALL, tmp_path / "customers.json")
    known = np.arange(len(reviews)) % 5 != 0
    fitted = []
    fit = persona_folds.fit_personas
    monkeypatch.setattr(persona_folds, "fit_personas", lambda *a, **o: fitted.append(fit(*a, **o)) or fitted[-1])
    views = []
    for folder in (MALL, poisoned_folder(tmp_path / "poisoned", known)):
        views.append(persona_folds.personas_of_fold(folder, dataset, personas)(known))
    one, other = fitted
    for name in ("mean", "components", "centres"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name
    for name in ("personas", "keywords", "evidence", "nearest", "silhouettes"):
        assert getattr(one, name) == getattr(other, name), name
    assert one.encoder.terms == other.encoder.terms
    assert one.encoder.components.tobytes() == other.encoder.components.tobytes()

    def values(view, rows):
        names = [feature.column for feature in view.schema.customers.features] + ["persona_name"]
        return [[view.customers.column(name)[row] for name in names] for row in rows]

    training, held_out = np.flatnonzero(known), np.flatnonzero(~known)
    clean, poisoned = views
    assert (
        values(clean.dataset, training)
        == values(poisoned.dataset, training)
        == values(clean.leak_free, training)
        == values(poisoned.leak_free, training)
    )
    # The held-out customers' own view sees the poison; without the leak, nothing of the text is seen.
    persona = [[row[-1] for row in values(view, held_out)] for view in (clean.dataset, poisoned.dataset)]
    assert persona[0] != persona[1]
    drawn = [[row[-1] for row in values(view, held_out)] for view in (clean.leak_free, poisoned.leak_free)]
    assert drawn[0] == drawn[1]


def test_without_the_leak_only_the_profile_speaks(mall, tmp_path):
    """Held-out customers keep what their profile states, and have personas in the training customers' shares."""
    reviews, columns, personas = mall
    (tmp_path / "customers.json").write_text(
        json.dumps([dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]), "utf-8"
    )
    dataset = load_dataset(MALL, tmp_path / "customers.json")
    known = np.arange(len(reviews)) % 2 == 0
    view = persona_folds.personas_of_fold(MALL, dataset, personas)(known)
    leaky, honest = view.dataset.customers, view.leak_free.customers
    for row in np.flatnonzero(~known):
        profile = reviews.profiles[row] or ""
        for word, value in (("건성", "dry"), ("지성", "oily"), ("복합성", "combination")):
            if f"/{word}" in profile:
                assert honest.column("skin_type")[row] == leaky.column("skin_type")[row] == value
    names, shares = np.unique(np.asarray(honest.column("persona_name"))[known], return_counts=True)
    drawn = [np.mean(np.asarray(honest.column("persona_name"))[~known] == name) for name in names]
    # Within three standard errors of a share among so many.
    expected = shares / known.sum()
    error = np.sqrt(expected * (1 - expected) / (~known).sum())
    assert (np.abs(drawn - expected) < 3 * error + 1e-9).all()
    assert np.mean(np.asarray(honest.column("persona_name")) == np.asarray(leaky.column("persona_name"))) < 0.75
