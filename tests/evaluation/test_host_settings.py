"""What a host program has set for JAX, NumPy and scikit-learn: everything is the same, and stays set."""

from contextlib import nullcontext

import jax
import numpy as np
import pytest
import sklearn
from conftest import mall_products, write_mall
from protocols import cross_validation

from recsys_jax import DeepConfig, Recommender, WideConfig, fit, fit_seeds, load_dataset, load_model, scores, top_k
from recsys_jax.console.pictures.embedding import embedding_space
from recsys_jax.models import towers
from recsys_jax.serving.boosts import BoostRule

pytestmark = pytest.mark.wild

DEEP = DeepConfig(
    loss="softmax",
    popularity_bias=True,
    id_embedding=True,
    attribute_dropout=0.2,
    number_jitter=0.1,
    epochs=2,
    batch_size=4,
    hidden_dim=12,
    output_dim=6,
    embedding_dim=5,
)
TRIPLET = DeepConfig(epochs=2, batch_size=4, hidden_dim=12, output_dim=6, embedding_dim=5)
WIDE = WideConfig(own_l2=1.0, attribute_l2=1.0, factor_l2=1.0, item_factors=4)
ASKED = {"age": 32, "gender": "F", "skin_type": "dry", "skin_concern": "moisture"}
RULES = (BoostRule("dry", {"skin_type": {"dry"}}, {"category": {"98"}}, 0.2),)


def everything(dataset) -> dict[str, object]:
    """A small end-to-end: every recipe, seeds, an evaluation, and every kind of request."""
    models = {"deep": fit(dataset, DEEP), "wide": fit(dataset, WIDE)}
    models |= {f"seed {n}": model for n, model in enumerate(fit_seeds(dataset, TRIPLET, [0, 1]))}
    found: dict[str, object] = {}
    for name, model in models.items():
        leaves = jax.tree.leaves(model.variables)
        assert all(isinstance(leaf, np.ndarray) and leaf.dtype == np.float32 for leaf in leaves)
        found[name] = [leaf.tobytes() for leaf in (*leaves, model.losses, model.product_embeddings)]
    for name in ("deep", "wide"):
        recommender = Recommender(models[name], RULES)
        recommender.warmup(8, exclusions=1)
        requests = [ASKED, {**ASKED, "age": 60}]
        found[f"{name}, lists"] = [
            recommender.recommend(**ASKED),
            recommender.recommend_batch(requests, purchased_products=[["p1"], []]),
            [part.tobytes() for part in recommender.rank_batch(requests)],
        ]
        recommender.add_products([{**mall_products()[0], "product_id": "new"}])
        found[f"{name}, grown"] = recommender.recommend_batch(requests, categories=[97])
    evaluated = cross_validation(dataset, DEEP, (3,), folds=2)
    found["figures"] = {method: evaluated.mean(method, "mrr") for method in evaluated.values}
    return found


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return load_dataset(write_mall(tmp_path_factory.mktemp("mall")))


@pytest.fixture(scope="module")
def expected(dataset):
    return everything(dataset)


def mesh():
    return jax.make_mesh((jax.device_count(),), ("rows",))


SETTINGS = {
    "64 bits": lambda: jax.enable_x64(True),
    "stops at NaN": lambda: jax.debug_nans(True),
    "stops at infinity": lambda: jax.debug_infs(True),
    "no promotion of ranks": lambda: jax.numpy_rank_promotion("raise"),
    "no promotion of types": lambda: jax.numpy_dtype_promotion("strict"),
    "no transfers": lambda: jax.transfer_guard("disallow"),
    "a mesh": lambda: jax.set_mesh(mesh()),
    "another way to draw": lambda: jax.threefry_partitionable(False),
    "other products of matrices": lambda: jax.default_matmul_precision("bfloat16"),
    "NumPy raises": lambda: np.errstate(all="raise", under="ignore"),
    "none": nullcontext,
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_host_may_set_what_it_likes(name, dataset, expected):
    with SETTINGS[name]():
        before = jax.config.jax_enable_x64, jax.config.jax_debug_nans, jax.sharding.get_mesh()
        assert everything(dataset) == expected
        assert (jax.config.jax_enable_x64, jax.config.jax_debug_nans, jax.sharding.get_mesh()) == before


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("recipe", ["deep", "wide"])
def test_what_was_saved_is_loaded(name, recipe, run_of):
    """The shapes that a file must have are those of 32 bits, also where they were never asked for before."""
    towers._shapes.cache_clear()
    with SETTINGS[name]():
        loaded = load_model(run_of("mall", recipe))
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(loaded.variables))


@pytest.mark.parametrize("total", [50, 100_000], ids=["few", "many"])
@pytest.mark.parametrize("name", ["64 bits", "no promotion of ranks", "no promotion of types", "none"])
def test_scores_and_the_best_of_them_are_computed_as_they_come(name, total):
    """Functions of a caller's arrays: in its settings, of its type."""
    rng = np.random.default_rng(0)
    customers, products = (rng.integers(-2, 3, (count, 4)).astype(np.float32) for count in (2, total))
    options = {"bias": np.ones(total, np.float32), "exclude": np.array([[3, -1]] * 2), "allowed": products[:, 0] > 0}
    best = top_k(customers, products, 3, **options)
    with SETTINGS[name]():
        again = top_k(customers, products, 3, **options)
        assert [part.dtype for part in again] == [np.float32, np.int32]
        for one, other in zip(best, again, strict=True):
            np.testing.assert_array_equal(one, other)
        assert scores(customers, products[:9]).dtype == np.float32


def test_a_picture_where_scikit_learn_gives_data_frames(mall_model, dataset, tmp_path):
    pytest.importorskip("pandas")
    with sklearn.config_context(transform_output="pandas"):
        embedding_space(tmp_path / "picture.png", mall_model, dataset, seed=0)
    embedding_space(tmp_path / "other.png", mall_model, dataset, seed=0)
    assert (tmp_path / "picture.png").read_bytes() == (tmp_path / "other.png").read_bytes()
