"""PyTorch checkpoints: the same recommendations on both sides, the same bytes after a round trip, no code let in."""

import itertools
import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import mall_products
from test_artifacts import same_tree

from recsys_jax import (
    DeepConfig,
    InputError,
    Recommender,
    Schema,
    Table,
    fit,
    load_checkpoint,
    load_dataset,
    load_model,
    save_checkpoint,
    save_model,
    scores,
)
from recsys_jax.evaluation.engine import in_sample
from recsys_jax.storage.torch import catalogue, published_schema
from recsys_jax_benchmark.pytorch import reference

ROOT = Path(__file__).parents[2]
MALL = ROOT / "data" / "amoremall"
PRODUCTS = reference.read_rows(MALL / "products.json")
KINDS = (
    ["dry", "oily", "combination", "sensitive", "normal"],
    list(reference.SKIN_CONCERNS),
    ["F", "M"],
    [1, 19, 34, 50, 83],
)
# Every kind of customer there is, at five ages.
EVERYBODY = [
    dict(zip(("skin_type", "skin_concern", "gender", "age"), kind, strict=True)) for kind in itertools.product(*KINDS)
]


@pytest.fixture(scope="module")
def customers():
    """As many customers as the published data has, each with a random purchase."""
    rng = np.random.default_rng(5)
    return [
        {
            **EVERYBODY[rng.integers(len(EVERYBODY))],
            "user_id": f"u{number}",
            "persona_name": "all",
            "purchased_product_id": PRODUCTS[rng.integers(len(PRODUCTS))]["product_id"],
        }
        for number in range(277)
    ]


@pytest.fixture(scope="module")
def trained(customers, tmp_path_factory):
    """A checkpoint of the reference training, its file and its model."""
    path = tmp_path_factory.mktemp("torch") / "model.pth"
    model, _ = reference.train(customers, PRODUCTS, epochs=20, seed=1)
    reference.save(model, reference.brands(PRODUCTS), path)
    return path, model


def scores_of_reference(model, brand_map) -> np.ndarray:
    anchors, products = reference.encode(model, EVERYBODY, PRODUCTS, brand_map)
    return ((1 + anchors @ products.T) / 2).numpy()


def assert_same_lists(rec: Recommender, expected: np.ndarray, count: int = 10) -> None:
    """The same scores to 1e-5, and the same lists wherever neighbouring scores differ by more than 1e-6."""
    row_of = {product["product_id"]: row for row, product in enumerate(PRODUCTS)}
    ours = rec.recommend_batch(EVERYBODY, top_n=count)
    order = np.argsort(-expected, axis=1, kind="stable")
    compared = 0
    for own, places, row in zip(expected, order, ours, strict=True):
        ids = [row_of[one["product_id"]] for one in row]
        np.testing.assert_allclose([one["score"] for one in row], own[ids], atol=1e-5)
        gaps = -np.diff(own[places]) > 1e-6
        for place in range(count):
            if gaps[place] and (place == 0 or gaps[place - 1]):
                assert ids[place] == places[place]
                compared += 1
            else:
                assert abs(own[ids[place]] - own[places[place]]) <= 1e-5
    assert compared > 0.6 * count * len(ours)  # ties are the exception


def weights(path: Path) -> dict:
    return torch.load(path, weights_only=True)["model_state_dict"]


def test_an_imported_checkpoint_recommends_what_pytorch_recommends(trained):
    path, model = trained
    rec = Recommender.from_torch(path, products=MALL)
    expected = scores_of_reference(model, reference.brands(PRODUCTS))
    customers = rec.model.embed_customers(Table.of(EVERYBODY, "everybody"))
    np.testing.assert_allclose(scores(customers, rec.model.product_embeddings), expected, atol=1e-5)
    assert_same_lists(rec, expected)


@pytest.mark.parametrize(
    "products",
    [MALL, str(MALL / "products.json"), PRODUCTS, pd.DataFrame(PRODUCTS)],
    ids=["folder", "file", "rows", "frame"],
)
def test_products_come_in_any_form(trained, products, tmp_path):
    rec = Recommender.from_torch(trained[0], products=products, boosts=MALL / "boosts.toml")
    expected = Recommender.from_torch(trained[0], products=MALL, boosts=MALL / "boosts.toml")
    assert rec.recommend(**EVERYBODY[0]) == expected.recommend(**EVERYBODY[0])


def test_the_published_schema_is_the_shipped_one():
    assert published_schema().source == Schema.read(MALL / "dataset.toml").source


def test_sizes_are_read_from_the_tensors(tmp_path):
    path = tmp_path / "model.pth"
    brand_map = reference.brands(PRODUCTS)
    model = reference.TwoTower(len(brand_map), embed_dim=7, hidden_dim=11, output_dim=5)
    reference.save(model, brand_map, path)
    rec = Recommender.from_torch(path, products=MALL)
    config = rec.model.config
    assert (config.embedding_dim, config.hidden_dim, config.output_dim) == (7, 11, 5)
    assert_same_lists(rec, scores_of_reference(model, brand_map))


def test_brands_keep_their_rows_whatever_the_order_of_the_products(trained, tmp_path):
    model = trained[1]
    brand_map = dict(reversed(reference.brands(PRODUCTS).items()))
    reference.save(model, brand_map, tmp_path / "model.pth")
    rec = Recommender.from_torch(tmp_path / "model.pth", products=list(reversed(PRODUCTS)))
    assert_same_lists(rec, scores_of_reference(model, brand_map))


def test_an_unknown_brand_is_the_mean_of_the_catalogues(trained):
    rec = Recommender.from_torch(trained[0], products=MALL)
    rows = [reference.brands(PRODUCTS)[product["brand_name"]] for product in PRODUCTS]
    mean = weights(trained[0])["brand_emb.weight"][rows].mean(dim=0)
    np.testing.assert_allclose(rec.model.variables["params"]["product"]["deep"]["brand_emb"][-1], mean, atol=1e-6)
    rec.add_products([{**PRODUCTS[0], "product_id": "new", "brand_name": "never seen"}])
    assert any(one["product_id"] == "new" for one in rec.recommend(**EVERYBODY[0], top_n=94))


def test_the_reference_gets_its_own_figures_back(customers, trained, tmp_path):
    (tmp_path / "customers.json").write_text(json.dumps(customers))
    dataset = load_dataset(MALL, tmp_path / "customers.json")
    model = load_checkpoint(trained[0], dataset.schema, dataset.products, trained_on=dataset)
    expected = reference.evaluate(trained[1], customers, PRODUCTS, reference.brands(PRODUCTS))
    save_model(model, tmp_path / "run")
    figures = in_sample(load_model(tmp_path / "run"), dataset, (3, 10))
    assert {name: figures.mean("model", name) for name in expected} == pytest.approx(expected, abs=1e-12)
    assert expected["hit@10"] > 0.2


def test_without_a_word_on_what_it_was_trained_on_it_is_not_evaluated_in_sample(customers, trained, tmp_path):
    (tmp_path / "customers.json").write_text(json.dumps(customers))
    dataset = load_dataset(MALL, tmp_path / "customers.json")
    model = load_checkpoint(trained[0], dataset.schema, dataset.products)
    # A checkpoint doesn't say what was bought, nor how its training went.
    assert (model.purchases.tolist(), model.losses.tolist()) == ([0] * len(dataset.product_ids), [])
    with pytest.raises(InputError, match="not the customers"):
        in_sample(model, dataset, (3,))
    for rows in ([0, 1], [1, 0]):
        with pytest.raises(InputError, match="found other products"):
            load_checkpoint(trained[0], dataset.schema, dataset.products.select(rows), trained_on=dataset)


def test_from_pytorch_and_back_the_weights_are_the_same_bytes(trained, tmp_path):
    save_model(Recommender.from_torch(trained[0], products=MALL).model, tmp_path / "run")
    save_checkpoint(load_model(tmp_path / "run"), tmp_path / "back.pth")
    before, after = weights(trained[0]), weights(tmp_path / "back.pth")
    assert list(after) == list(before)
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        assert after[name].numpy().tobytes() == tensor.numpy().tobytes(), name
    assert int(after["customer_mlp.2.num_batches_tracked"]) == 20 * 9
    assert int(after["product_mlp.2.num_batches_tracked"]) == 20 * 9 * 2
    assert torch.load(tmp_path / "back.pth", weights_only=True)["brand_map"] == reference.brands(PRODUCTS)
    reference.load(tmp_path / "back.pth")


@pytest.mark.parametrize("negatives", ["random", "hard"])
def test_from_here_to_pytorch_and_back_the_weights_are_the_same_bytes(customers, negatives, tmp_path):
    (tmp_path / "customers.json").write_text(json.dumps(customers))
    dataset = load_dataset(MALL, tmp_path / "customers.json")
    model = fit(dataset, DeepConfig(epochs=3, negatives=negatives, embedding_dim=8))
    save_checkpoint(model, tmp_path / "model.pth")
    state = weights(tmp_path / "model.pth")
    passes = 2 if negatives == "random" else 1
    assert (
        int(state["product_mlp.2.num_batches_tracked"])
        == passes * int(state["customer_mlp.2.num_batches_tracked"])
        == passes * 3 * 9
    )
    assert_same_lists(Recommender(model), scores_of_reference(*reference.load(tmp_path / "model.pth")))
    back = load_checkpoint(tmp_path / "model.pth", dataset.schema, dataset.products)
    same_tree(back.variables, model.variables)
    assert back.batches == model.batches
    for space, original in ((back.customers, model.customers), (back.products, model.products)):
        assert [fitted.values for fitted in space] == [fitted.values for fitted in original]


# Features of another trade, in another order: a number first, a missing value, and a vocabulary that was learned.
DRESSES = {
    "name": "dresses",
    "products": {
        "file": "products.csv",
        "id": "id",
        "features": [
            {"name": "price", "kind": "numeric", "unknown": "error", "missing": {"as": 1}},
            {"name": "cut", "kind": "categorical", "values": "learned", "unknown": "extra-row", "missing": "extra-row"},
        ],
    },
    "customers": {
        "id": "id",
        "purchases": "bought",
        "features": [
            {"name": "height", "kind": "numeric", "scale": 100, "unknown": "error", "missing": "error"},
            {"name": "size", "kind": "categorical", "values": ["S", "M"], "unknown": "error", "missing": "extra-row"},
        ],
    },
}


def test_features_of_another_trade(tmp_path):
    torch.manual_seed(0)
    state = {"cut_emb.weight": torch.randn(2, 3), "size_emb.weight": torch.randn(2, 3)}
    for side in ("customer", "product"):
        layers = torch.nn.Sequential(
            torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.BatchNorm1d(6), torch.nn.Dropout(), torch.nn.Linear(6, 5)
        )
        layers(torch.randn(9, 4))
        state |= {f"{side}_mlp.{name}": tensor for name, tensor in layers.eval().state_dict().items()}
    torch.save({"model_state_dict": state, "cut_map": {"long": 1, "short": 0}, "epoch": 7}, tmp_path / "model.pth")
    schema = Schema.parse(DRESSES, "dresses")
    products = {"id": ["a", "b", "c"], "price": [0.5, None, 2], "cut": ["long", "short", None]}
    model = load_checkpoint(tmp_path / "model.pth", *catalogue(products, schema))
    # A product without a cut has the mean of the cuts in use; the layers are those of Sequential, in evaluation.
    tables = state["cut_emb.weight"]
    expected = torch.cat(
        [torch.tensor([[0.5], [1.0], [2.0]]), torch.stack([tables[1], tables[0], tables.mean(dim=0)])], dim=1
    )
    with torch.no_grad():
        expected = F.normalize(layers(expected), dim=1)
    np.testing.assert_allclose(model.product_embeddings, expected, atol=1e-6)
    save_checkpoint(model, tmp_path / "back.pth")
    for name, tensor in weights(tmp_path / "back.pth").items():
        assert torch.equal(tensor, state[name]), name


class Evil:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_file_that_would_run_code_is_refused_and_runs_none(trained, tmp_path):
    folder = tmp_path / "made"
    for content in ({"model_state_dict": Evil(folder)}, trained[1]):
        torch.save(content, tmp_path / "model.pth")
        with pytest.raises(InputError, match=r"model\.pth: refused: opening it would run code, \S+; allowed: "):
            Recommender.from_torch(tmp_path / "model.pth", products=MALL)
    assert not folder.exists()


def changed(path: Path, change) -> dict:
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    return checkpoint


def _set(name, tensor):
    return lambda checkpoint: checkpoint["model_state_dict"].update({name: tensor})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("model_state_dict"), ["model_state_dict", "brand_map"]),
        (lambda c: c.update(model_state_dict=3), ["model_state_dict"]),
        (lambda c: c.pop("brand_map"), ["brand_map: found NoneType", "a dictionary"]),
        (lambda c: c["brand_map"].pop(next(iter(c["brand_map"]))), ["brand_map", "without gaps"]),
        (lambda c: c["brand_map"].update({next(iter(c["brand_map"])): 1}), ["brand_map", "numbered from 0"]),
        (lambda c: c["brand_map"].update({next(iter(c["brand_map"])): 0.0}), ["brand_map", "numbered from 0"]),
        (lambda c: c["brand_map"].update({"one more": 19}), ["brand_emb.weight: found (19, 16)", "(20, 16)"]),
        (lambda c: c["model_state_dict"].pop("gender_emb.weight"), ["gender_emb.weight: found nothing"]),
        (_set("tone_emb.weight", torch.zeros(3, 16)), ["tone_emb.weight: found Tensor", "skin_type_emb.weight"]),
        (_set("customer_mlp.4.bias", [0.0] * 32), ["customer_mlp.4.bias: found list"]),
        (_set("customer_mlp.0.weight", torch.zeros(64, 48)), ["found (64, 48)", "(64, 49)"]),
        (_set("customer_mlp.0.weight", torch.zeros(63, 49)), ["found (63, 49)", "(64, 49)"]),
        (_set("product_mlp.4.weight", torch.zeros(())), ["product_mlp.4.weight", "found ()"]),
        (_set("skin_type_emb.weight", torch.zeros(5, 0)), ["skin_type_emb.weight", "found (5, 0)"]),
        (_set("skin_type_emb.weight", torch.zeros(5, 16).double()), ["float64", "torch.float32"]),
        (_set("skin_type_emb.weight", torch.zeros(5, 16).to_sparse()), ["_rebuild_sparse_tensor; allowed"]),
        (_set("gender_emb.weight", torch.full((2, 16), torch.nan)), ["gender_emb.weight", "not finite"]),
        (_set("gender_emb.weight", torch.zeros(2, 16, device="meta")), ["_rebuild_meta_tensor_no_storage; "]),
        (_set("gender_emb.weight", torch.zeros(1, 16).expand(2, 16)), ["gender_emb.weight", "special kind"]),
        (_set("gender_emb.weight", torch.zeros(1, 1).expand(10**6, 10**6)), ["(1000000, 1000000)"]),
        (_set("gender_emb.weight", torch.zeros(2, 16, dtype=torch.cfloat).conj().imag), ["special kind"]),
        (_set("product_mlp.4.weight", torch.full((32, 64), 3e38)), ["too large"]),
        (lambda c: c.update(extra_rows=3), ["extra_rows: found int"]),
        (_set("product_mlp.2.running_var", -torch.ones(64)), ["running_var", "below 0"]),
        (
            lambda c: c.update(extra_rows={"brand_emb.weight": torch.zeros(2, 16)}),
            ["extra_rows, brand_emb.weight", "(1, 16)"],
        ),
        (lambda c: c.update(extra_rows={"brand_emb.weight": "none"}), ["extra_rows, brand_emb.weight", "found str"]),
    ],
)
def test_what_does_not_fit_is_one_sentence(trained, tmp_path, change, words):
    path = tmp_path / "model.pth"
    torch.save(changed(trained[0], change), path)
    with pytest.raises(InputError) as caught:
        Recommender.from_torch(path, products=MALL)
    for word in [str(path), *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 and no more"])
def test_no_checkpoint_at_all(tmp_path, content):
    path = tmp_path / "model.pth"
    with pytest.raises(InputError, match="there is no such file"):
        Recommender.from_torch(path, products=MALL)
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged, or no PyTorch file"):
        Recommender.from_torch(path, products=MALL)
    torch.save([1, 2], path)
    with pytest.raises(InputError, match="found list; allowed: a dictionary"):
        Recommender.from_torch(path, products=MALL)


def test_a_truncated_or_flipped_file_never_ends_in_a_traceback(trained, tmp_path):
    content = trained[0].read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "model.pth"
    refused = 0
    for _ in range(60):
        damaged = bytearray(content[: rng.integers(1, len(content) + 1)])
        for place in rng.integers(0, len(damaged), 3):
            damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with suppress(InputError):
            Recommender.from_torch(path, products=MALL)
            continue
        refused += 1
    assert refused >= 50


def test_products_that_the_schema_does_not_allow(trained):
    for products, words in [
        ([], "there are no products"),
        ([*PRODUCTS, PRODUCTS[0]], "row 94, product_id"),
        ([{**PRODUCTS[0], "category": 55}], "category: found 55"),
        ([{"product_id": "a"}], "missing"),
        (MALL / "absent.json", "there is no such file"),
        (7, "allowed: a data frame"),
    ]:
        with pytest.raises(InputError, match=words):
            Recommender.from_torch(trained[0], products=products)


def test_what_a_checkpoint_cannot_hold(films_model, mall_model, tmp_path):
    with pytest.raises(InputError, match="several values"):
        save_checkpoint(films_model, tmp_path / "model.pth")
    for name in ("popularity_bias", "id_embedding"):
        config = replace(mall_model.config, loss="infonce", **{name: True})
        with pytest.raises(InputError, match=rf"found {name} \(recipe deep\); allowed: a model without it"):
            save_checkpoint(replace(mall_model, config=config), tmp_path / "model.pth")
    assert not (tmp_path / "model.pth").exists()


@pytest.mark.parametrize(
    ("side", "change", "words"),
    [
        ("products", {"name": "size"}, "'size' has the name of another"),
        ("customers", {"kind": "multi-categorical"}, "'size' has several values"),
    ],
)
def test_a_schema_that_a_checkpoint_cannot_be_of(trained, side, change, words):
    document = {**DRESSES, side: {**DRESSES[side], "features": [dict(f) for f in DRESSES[side]["features"]]}}
    document[side]["features"][1].update(change)
    with pytest.raises(InputError, match=words):
        load_checkpoint(trained[0], *catalogue([{"id": "a", "price": 1}], Schema.parse(document, "dresses")))


def test_a_number_with_a_learned_mean_is_refused(trained):
    document = {**DRESSES, "products": {**DRESSES["products"], "features": [dict(DRESSES["products"]["features"][0])]}}
    document["products"]["features"][0]["standardise"] = True
    with pytest.raises(InputError, match="'price' has a mean learned in training"):
        load_checkpoint(trained[0], *catalogue([{"id": "a", "price": 1}], Schema.parse(document, "dresses")))


def test_a_mall_without_the_shipped_data_round_trips_too(mall_model, tmp_path):
    save_checkpoint(mall_model, tmp_path / "model.pth")
    rec = Recommender.from_torch(tmp_path / "model.pth", products=mall_products())
    expected = Recommender(mall_model).recommend(age=30, gender="F", skin_type="dry", skin_concern="gift", top_n=8)
    found = rec.recommend(age=30, gender="F", skin_type="dry", skin_concern="gift", top_n=8)
    assert [one["product_id"] for one in found] == [one["product_id"] for one in expected]


def test_a_model_of_another_recipe_is_told_which_to_train(model_of, tmp_path):
    """Whatever features it has: they are no reason to say, as the recipe has to be another in any case."""
    with pytest.raises(InputError, match=r"found popularity_bias \(recipe wide\); allowed: .*DATASET deep makes it"):
        save_checkpoint(model_of("films", "wide"), tmp_path / "model.pth")
