"""Two tiny shops, as folders and as trained models: a cosmetics mall, and films with everything a mall doesn't have."""

import ctypes
import gc
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import pytest
import typechecker  # noqa: F401  before what it checks
from hypothesis import HealthCheck, settings

from recsys_jax import DeepConfig, TrainedModel, WideConfig, fit, load_dataset, save_model
from recsys_jax.config import Config

# The tests' work is small: a second thread of PyTorch's or NumPy's only slows it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nothing is looked for on a hub: a test that names an encoder that isn't here would wait for the network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# A busy machine is slow; that is no failure.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

MALL_TOML = """\
name = "mall"

[products]
file = "products.json"
id = "product_id"
name = "product_name"
brand = "brand_name"
category = "category"
price = "price"
reviews = "reviews"

[[products.features]]
name = "category"
kind = "categorical"
values = [97, 98, 99, 101, 103]
labels = ["Skincare", "Makeup", "Perfume", "Accessories", "Men"]
unknown = "error"
missing = "error"

[[products.features]]
name = "brand"
column = "brand_name"
kind = "categorical"
values = "learned"
unknown = "extra-row"
missing = "error"

[[products.features]]
name = "price"
kind = "numeric"
scale = 200000
clip = [0, 1]
min = 0
unknown = "error"
missing = "error"

[customers]
file = "customers.json"
id = "user_id"
segment = "persona_name"
purchases = "purchased_product_id"

[[customers.features]]
name = "skin_type"
kind = "categorical"
values = ["dry", "oily", "combination", "sensitive", "normal"]
aliases = { mature = "sensitive", unknown = "normal" }
unknown = "error"
missing = "error"

[[customers.features]]
name = "skin_concern"
kind = "categorical"
values = ["moisture", "wrinkle", "gift", "repurchase", "calming", "texture"]
unknown = "error"
missing = "error"

[[customers.features]]
name = "gender"
kind = "categorical"
values = ["F", "M"]
unknown = "error"
missing = "error"

[[customers.features]]
name = "age"
kind = "numeric"
scale = 50
min = 1
max = 120
unknown = "error"
missing = "error"
"""

# id, name, brand, category, price, review texts
MALL_PRODUCTS = [
    ("p1", "Dew Serum", "Isul", 97, 46000, ["Moist all day.", "My dry skin likes it."]),
    ("p2", "Calm Cream", "Sori", 97, 32000, ["Calms my skin."]),
    ("p3", "Rose Lip", "Isul", 98, 18000, []),
    ("p4", "Velvet Cushion", "Maru", 98, 24000, ["Covers well."]),
    ("p5", "Night Perfume", "Sori", 99, 120000, ["A gift."]),
    ("p6", "Wide Brush", "Maru", 101, 9000, []),
    ("p7", "Men Lotion", "Haneul", 103, 28000, ["My husband uses it."]),
    ("p8", "Gold Ampoule", "Isul", 97, 250000, ["Fewer wrinkles."]),
]

# id, persona, age, gender, skin type, concern, purchase
MALL_CUSTOMERS = [
    ("u1", "Dew", 25, "F", "dry", "moisture", "p1"),
    ("u2", "Dew", 32, "F", "dry", "moisture", "p2"),
    ("u3", "Gold", 58, "F", "mature", "wrinkle", "p8"),
    ("u4", "Gold", 61, "F", "sensitive", "wrinkle", "p8"),
    ("u5", "Gift", 40, "M", "unknown", "gift", "p5"),
    ("u6", "Gift", 35, "M", "normal", "gift", "p7"),
    ("u7", "Calm", 22, "F", "sensitive", "calming", "p2"),
    ("u8", "Calm", 29, "F", "combination", "calming", "p4"),
    ("u9", "Again", 45, "F", "oily", "repurchase", "p3"),
    ("u10", "Smooth", 19, "M", "oily", "texture", "p6"),
]


def mall_products() -> list[dict]:
    """The rows of products.json, new ones at each call."""
    return [
        {
            "product_id": product_id,
            "product_name": name,
            "price": price,
            "brand_name": brand,
            "category": category,
            "rating": 4.5,
            "reviews": [{"reviewer": "", "rating": 5, "content": text, "date": ""} for text in texts],
        }
        for product_id, name, brand, category, price, texts in MALL_PRODUCTS
    ]


def mall_customers() -> list[dict]:
    """The rows of customers.json, with the columns of the published file and more."""
    category = {product_id: code for product_id, _, _, code, _, _ in MALL_PRODUCTS}
    return [
        {
            "user_id": user_id,
            "persona_id": number // 2,
            "persona_name": persona,
            "age": age,
            "gender": gender,
            "skin_type": skin_type,
            "skin_concern": concern,
            "purchased_product_id": bought,
            "product_category": category[bought],
            "review_text": "words that no feature reads",
        }
        for number, (user_id, persona, age, gender, skin_type, concern, bought) in enumerate(MALL_CUSTOMERS)
    ]


def write_mall(folder: Path) -> Path:
    """Writes dataset.toml, products.json and customers.json into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.toml").write_text(MALL_TOML, encoding="utf-8")
    (folder / "products.json").write_text(json.dumps(mall_products()), encoding="utf-8")
    (folder / "customers.json").write_text(json.dumps(mall_customers()), encoding="utf-8")
    return folder


# Several genres and languages in one field, missing numbers, learned vocabularies, column names unlike feature names,
# two features on one column, purchases in a table of their own.
FILMS_TOML = """\
name = "films"

[products]
file = "films.csv"
id = "film"
category = "studio"

[[products.features]]
name = "genres"
kind = "multi-categorical"
values = "learned"
separator = "|"
unknown = "ignore"
missing = "ignore"

[[products.features]]
name = "year"
kind = "numeric"
standardise = true
unknown = "missing"
missing = "flag"

[customers]
file = "viewers.csv"
id = "viewer"

[[customers.features]]
name = "likes"
column = "favourite_genres"
kind = "multi-categorical"
values = "learned"
separator = "|"
unknown = "extra-row"
missing = "extra-row"

[[customers.features]]
name = "country"
kind = "categorical"
values = "learned"
aliases = { Korea = "KR" }
unknown = "extra-row"
missing = "extra-row"

[[customers.features]]
name = "age"
kind = "numeric"
scale = 100
unknown = "missing"
missing = "flag"

[interactions]
file = "views.csv"
customer = "who"
product = "what"
"""

FILMS_CSV = """\
film,studio,genres,year
f1,Big,Drama|Crime,1990
f2,Big,Drama,2000
f3,Small,Comedy,2010
f4,Small,Comedy|Family,
f5,Small,,1950
"""

VIEWERS_CSV = """\
viewer,favourite_genres,country,age
v1,Drama,KR,30
v2,Drama|Crime,FR,
v3,Comedy,KR,50
v4,,,70
"""

VIEWS_CSV = """\
who,what
v1,f1
v1,f2
v2,f1
v3,f3
v3,f4
v4,f5
v4,f1
"""


def write_films(folder: Path) -> Path:
    """Writes dataset.toml and three CSV files into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in [
        ("dataset.toml", FILMS_TOML),
        ("films.csv", FILMS_CSV),
        ("viewers.csv", VIEWERS_CSV),
        ("views.csv", VIEWS_CSV),
    ]:
        (folder / name).write_text(text, encoding="utf-8")
    return folder


# Programs that tests run as processes of their own, and the fuzzer, which has an environment of its own.
collect_ignore = ["storage/_killed_saves.py", "storage/_memory.py", "data/fuzz_loaders.py"]


# What some environments lack (`make matrix`): the tests that need it are skipped there, and say so.
OPTIONAL = ("faiss", "optuna", "pandas", "playwright", "polars", "pyarrow", "sentence_transformers", "torch", "uvicorn")
MISSING = {name for name in OPTIONAL if not find_spec(name)}


def missing(error: BaseException | None) -> str | None:
    """The package that isn't installed here and that the error, or one that led to it, is about."""
    while error is not None:
        name = (getattr(error, "name", None) or "").partition(".")[0]
        if isinstance(error, ImportError) and name in MISSING:
            return name
        error = error.__cause__ or error.__context__
    return None


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[pytest.CollectReport]:
    report = yield
    found = re.search(r"No module named '(\w+)", str(report.longrepr)) if report.failed else None
    if found and found[1] in MISSING:
        report.outcome = "skipped"
        report.longrepr = str(collector.path), 0, f"Skipped: {found[1]} is not installed here"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    try:
        return (yield)
    except Exception as error:
        if name := missing(error):
            pytest.skip(f"{name} is not installed here")
        raise


# Compiled programs stay in memory, and what the allocator once had it keeps: a worker grew to 5 GB. So memory is given
# back after a module, and only where there is very much within one: some tests count what others have compiled there.
# What is imported takes 0.8 GB by itself: with little more than that nearly every module would compile all anew.
AFTER_MODULE, WITHIN = 2e9, 2.5e9


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Gives memory back between two tests where there is much."""
    most = WITHIN if nextitem is not None and nextitem.path == item.path else AFTER_MODULE
    statm = Path("/proc/self/statm")
    if statm.exists() and int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") > most:
        jax.clear_caches()
        gc.collect()
        with suppress(OSError, AttributeError):  # another C library than GNU's
            ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(scope="session", autouse=True)
def _compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What one process compiles, the others find: this one, its neighbours (xdist) and those that tests start.

    Those, which all run the same few programs, keep even what is compiled in no time.
    """
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        yield


@pytest.fixture(scope="module")
def optimised() -> Iterator[None]:
    """For long trainings: XLA optimises them also where `make test` says that it need not."""
    quick = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", quick)


@pytest.fixture
def mall(tmp_path: Path) -> Path:
    """A folder of its own with the mall, to be changed at will."""
    return write_mall(tmp_path / "mall")


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """A folder of its own with the films, to be changed at will."""
    return write_films(tmp_path / "films")


# Small and quick to train; every test of the API runs for each. A new recipe is served by one more line.
RECIPES: dict[str, Config] = {
    "deep": DeepConfig(epochs=8, batch_size=4, hidden_dim=12, output_dim=6, embedding_dim=5, seed=3),
    "deep-infonce": DeepConfig(
        loss="infonce",
        popularity_bias=True,
        id_embedding=True,
        epochs=4,
        batch_size=4,
        hidden_dim=10,
        output_dim=6,
        embedding_dim=4,
    ),
    "wide": WideConfig(own_l2=1.0, attribute_l2=1.0, factor_l2=1.0, item_factors=4),
}
SHOPS = {"mall": write_mall, "films": write_films}


@pytest.fixture(scope="session")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], TrainedModel]:
    """The model of a shop by a recipe, trained once."""

    @cache
    def train(shop: str, recipe: str) -> TrainedModel:
        return fit(load_dataset(SHOPS[shop](tmp_path_factory.mktemp(shop))), RECIPES[recipe])

    return train


@pytest.fixture(scope="session")
def run_of(
    model_of: Callable[[str, str], TrainedModel], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Path]:
    """That model as saved; not to be changed."""

    @cache
    def save(shop: str, recipe: str) -> Path:
        folder = tmp_path_factory.mktemp("run")
        save_model(model_of(shop, recipe), folder)
        return folder

    return save


@pytest.fixture(scope="session", params=RECIPES)
def recipe(request: pytest.FixtureRequest) -> str:
    """Each recipe in turn: whatever takes a fixture below runs for all of them."""
    return str(request.param)


@pytest.fixture(scope="session")
def served(recipe: str, model_of: Callable[[str, str], TrainedModel]) -> TrainedModel:
    """The mall's model by each recipe."""
    return model_of("mall", recipe)


@pytest.fixture(scope="session")
def served_films(recipe: str, model_of: Callable[[str, str], TrainedModel]) -> TrainedModel:
    """The films' model by each recipe."""
    return model_of("films", recipe)


@pytest.fixture(scope="session")
def served_run(recipe: str, run_of: Callable[[str, str], Path]) -> Path:
    """The mall's model by each recipe, as saved; not to be changed."""
    return run_of("mall", recipe)


@pytest.fixture(scope="session")
def served_films_run(recipe: str, run_of: Callable[[str, str], Path]) -> Path:
    """The films' model by each recipe, as saved; not to be changed."""
    return run_of("films", recipe)


@pytest.fixture(scope="session")
def mall_model(model_of: Callable[[str, str], TrainedModel]) -> TrainedModel:
    """The mall's model, trained for a moment as the published one is: triplet loss, random negatives."""
    return model_of("mall", "deep")


@pytest.fixture(scope="session")
def films_model(model_of: Callable[[str, str], TrainedModel]) -> TrainedModel:
    """The films' model, with a popularity bias and an embedding per product id."""
    return model_of("films", "deep-infonce")


@pytest.fixture(scope="session")
def mall_run(run_of: Callable[[str, str], Path]) -> Path:
    """The mall's model as saved; not to be changed."""
    return run_of("mall", "deep")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The Chromium of this machine, through Playwright; where either is missing, what needs it is skipped."""
    if "playwright" in MISSING:
        pytest.skip("playwright is not installed here")
    from playwright.sync_api import sync_playwright

    names = "chromium", "chromium-browser", "google-chrome"
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium is found here: apt install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found)
        yield started
        started.close()


@pytest.fixture
def browse(chromium: Any) -> Callable[..., AbstractContextManager[Any]]:
    """Opens a file; at the end it has asked for nothing, and its console said nothing but `expected`."""

    @contextmanager
    def open_(path: Path, width: int = 1280, expected: str = "", **options: object) -> Iterator[Any]:
        context = chromium.new_context(viewport={"width": width, "height": 800}, **options)
        page, told = context.new_page(), []
        own = path.as_uri(), "data:,"
        page.on("request", lambda request: told.append(request.url) if request.url not in own else None)
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("dialog", lambda dialog: told.append(dialog.message))
        page.goto(path.as_uri())
        yield page
        page.wait_for_load_state("networkidle")
        assert [one for one in told if not (expected and expected in one)] == []
        assert bool(told) == bool(expected)
        context.close()

    return open_
