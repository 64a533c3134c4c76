"""Bring your own shop: what docs/datasets.md says is run; the descriptions in data/ read what they describe."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import done, run, told
from manual import files

from recsys_jax import DeepConfig, InputError, Recommender, TrainedModel, fit, load_dataset, save_model

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
SHOP = files("docs/datasets.md")
FEW = DeepConfig(epochs=20, batch_size=8)


def write(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    return folder


@pytest.fixture
def shop(tmp_path, monkeypatch) -> Path:
    """The example shop of the manual, at the relative path that its commands use."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "shop", SHOP)
    return Path("shop")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> TrainedModel:
    return fit(load_dataset(write(tmp_path_factory.mktemp("tea") / "shop", SHOP)), FEW)


# The manual


def test_the_example_shop_trains_and_recommends(shop):
    assert set(SHOP) == {"products.csv", "customers.csv", "purchases.csv", "dataset.toml", "boosts.toml"}
    dataset = load_dataset(shop)
    assert len(dataset.purchases) == SHOP["purchases.csv"].count("\n") - 1
    rec = Recommender(fit(dataset, replace(FEW, epochs=60)))
    best = rec.recommend(age=40, newsletter="no", likes=["strong"], drinks="morning", top_n=2)
    assert {one["category"] for one in best} == {"black"}


def test_the_boost_rules_do_what_the_manual_says(shop, trained):
    save_model(trained, Path("runs/tea"))
    rec = Recommender.load("runs/tea", boosts="shop/boosts.toml")

    def boosts(drinks):
        return {one["product_id"]: one["boosts"] for one in rec.recommend(drinks=drinks, top_n=20) if one["boosts"]}

    mild, less = {"mild in the evening": 0.1}, {"brand = Kumo": -0.05}
    assert boosts("night") == {"T06": mild, "T04": {**mild, **less}, "T03": less, "T05": less}
    assert boosts("morning") == {"T03": less, "T04": less, "T05": less}


def test_the_values_of_one_attribute_on_the_command_line(shop, trained):
    """As in the table or by commas; a value that is none is noted."""
    save_model(trained, Path("runs/tea"))
    values = ("fresh|floral", "fresh,floral", "fresh,flroal")
    said = [run("recommend", "runs/tea", f"likes={likes}", "--json") for likes in values]
    assert said[0].stdout == said[1].stdout != said[2].stdout
    assert said[0].stderr == said[1].stderr
    assert "does not know" not in said[0].stderr
    assert "the model does not know 'flroal'" in said[2].stderr


# What is replaced in which file, one mistake at a time.
MISTAKES = [
    ("dataset.toml", 'name = "brand"\nkind', 'name = "brand"\ncolunm = "brand"\nkind'),
    ("dataset.toml", 'missing = "flag"\n\n[customers]', "[customers]"),
    ("dataset.toml", 'missing = "ignore"', 'missing = "skip"'),
    ("dataset.toml", 'night = "evening"', 'night = "late"'),
    ("dataset.toml", 'segment = "drinks"', 'segment = "drinks"\npurchases = "bought"'),
    ("dataset.toml", 'file = "customers.csv"', ""),
    ("dataset.toml", 'file = "products.csv"', 'file = "products.xlsx"'),
    ("dataset.toml", 'file = "products.csv"', 'file = "product.csv"'),
    ("products.csv", "sku,", "SKU,"),
    ("products.csv", "Ginger and Lemon", "Ginger, Lemon"),
    ("products.csv", "Ginger and Lemon", "Чай".encode("cp1251")),
    ("products.csv", "T02", "T01"),
    ("products.csv", "T02", ""),
    ("products.csv", "Kumo,green", "Kumo,white"),
    ("products.csv", "Kumo,green", "Kumo,"),
    ("customers.csv", "c7,62", "c7,62 years"),
    ("customers.csv", "c7,62", "c7,620"),
    ("purchases.csv", "c4,T08", "c4,T80"),
    ("purchases.csv", "c4,T08", "c44,T08"),
    ("dataset.toml", 'product = "sku"', 'product = "sku"\ndate = "sku"'),
]


def test_the_manual_lists_each_mistake_with_its_sentence(shop, trained):
    """Every sentence is produced by running, and no other stands there."""
    said = set()
    for name, old, new in MISTAKES:
        path, right = shop / name, SHOP[name]
        assert old in right
        wrong = right.replace(old, "\0", 1)
        path.write_bytes(wrong.encode().replace(b"\0", new if isinstance(new, bytes) else new.encode()))
        try:
            dataset = load_dataset(shop)
        except InputError as error:
            said.add(re.sub(r" \([0-9]+ of [0-9]+ rows cannot be used: .*\)$", "", str(error)))
        else:
            said.add(str(dataset.set_aside[0]))
        path.write_text(right, encoding="utf-8")
    rec = Recommender(trained)
    for wrong in ({"colour": "red"}, {"drinks": "noon"}):
        with pytest.raises(InputError) as error:
            rec.recommend(**wrong)
        said.add(str(error.value))
    for call in (
        lambda: Recommender.load("runs/tea"),
        lambda: rec.recommend_batch([{"agee": 30}]),
        lambda: rec.recommend_batch([{"sku": "T01", "name": "Breakfast", "price": 4}]),
        lambda: rec.recommend_batch([{"age": 30}], purchased_products=7),
        lambda: load_dataset(shop / "dataset.toml"),
    ):
        with pytest.raises(InputError) as error:
            call()
        said.add(str(error.value))
    listed = re.findall(r"^\* `(.+)`\\$", DOC[DOC.index("\n## Errors") :], re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) == said


# The dataset descriptions in data/


def test_a_row_per_purchase_with_repeated_customers(tmp_path):
    """data/oliveyoung describes tables that are not here; these have their columns, in Parquet."""
    import pyarrow as arrow
    from pyarrow import parquet

    folder = write(tmp_path / "beauty", {"dataset.toml": (ROOT / "data/oliveyoung/dataset.toml").read_text("utf-8")})
    ids = [f"A{i}" for i in range(6)]
    products = {
        "product_id": ids,
        "name": ids,
        "brand": ["가", "나"] * 3,
        "category": ["크림"] * 6,
        "avg_rating": [None, 4.5, 4.6, 4.7, 4.8, 4.9],
    }
    rows = [
        {
            "customer_id": f"k{i % 5}",
            "product_id": ids[i % 6],
            "skin_type": "건성",
            "skin_tone": None,
            "concerns": "주름",
        }
        for i in range(12)
    ]
    rows[1] |= {"skin_type": "지성", "skin_tone": "warm", "concerns": None}
    parquet.write_table(arrow.Table.from_pydict(products), folder / "products.parquet")
    parquet.write_table(arrow.Table.from_pylist(rows), folder / "interactions.parquet")

    dataset = load_dataset(folder)
    assert dataset.customer_ids == ["k0", "k1", "k2", "k3", "k4"]
    assert dataset.customers.column("skin_type") == ["건성", "지성", "건성", "건성", "건성"]  # the first row of each
    assert len(dataset.purchases) == 12
    assert "(1 have rows that differ)" in dataset.notes[0]
    model = fit(dataset, FEW)
    by_value = Recommender(model).recommend(skin_type="건성", concerns=["주름"])
    by_label = Recommender(model).recommend(skin_type="dry", concerns="주름")
    assert [one["score"] for one in by_value] == [one["score"] for one in by_label]


# MovieLens: invented rows in the form of the original files

GENRES = ["unknown", "Action", "Children's", "Film-Noir"]


def film(number: int, title: str, released: str, *own: str) -> str:
    flags = "|".join("1" if genre in own else "0" for genre in GENRES)
    return f"{number}|{title}|{released}||http://films.example/{number}|{flags}\n"


MOVIELENS = {
    "u.genre": "".join(f"{genre}|{number}\n" for number, genre in enumerate(GENRES)) + "\n",
    "u.item": film(1, "Sunday Robots (1995)", "01-Jan-1995", "Action", "Children's")
    + film(2, 'Café "Élan", The (1948)', "14-Jul-1948", "Film-Noir")
    + film(3, "unknown", "", "unknown")
    + film(4, "Two\x85Lines (1997)", "03-Mar-1997", "Action"),
    "u.user": "1|24|M|technician|00001\n2|53|F|other|T8H1N\n3|33|F|writer|00003\n",
    "u.data": "1\t1\t5\t881250949\n1\t4\t4\t881250950\n2\t2\t3\t881250951\n3\t2\t1\t881250952\n",
}


@pytest.fixture
def movielens(tmp_path) -> Path:
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    for name, content in MOVIELENS.items():
        (folder / name).write_bytes(content.encode("latin-1"))
    return folder


def test_movielens_is_converted_and_trains(movielens, tmp_path):
    out = tmp_path / "out" / "movielens"
    converted = done("dataset", "movielens", movielens, out)
    assert "interactions.csv  4 rows" in converted.stdout
    assert converted.next() == ["train", str(out)]

    dataset = load_dataset(out)
    assert dataset.products.columns == {
        "movie_id": ["1", "2", "3", "4"],
        "title": ["Sunday Robots (1995)", 'Café "Élan", The (1948)', "unknown", "Two\x85Lines (1997)"],
        "genres": ["Action|Children's", "Film-Noir", None, "Action"],
        "year": ["1995", "1948", None, "1997"],
    }
    assert dataset.customers.column("occupation") == ["technician", "other", "writer"]
    assert dataset.purchases.tolist() == [[0, 0], [0, 3], [1, 1], [2, 1]]

    model = fit(dataset, FEW)
    encoded = model.products.encode(dataset.products)
    assert encoded["genres"].tolist() == [[0, 1], [2, -1], [3, -1], [0, -1]]  # 3: the row of films without a genre
    years = np.array([1995, 1948, 1997])
    expected = [*((years - years.mean()) / years.std()), 0.0]
    np.testing.assert_allclose(encoded["year"][[0, 1, 3, 2], 0], expected, rtol=1e-6)
    assert encoded["year"][:, 1].tolist() == [0, 0, 1, 0]
    assert len(Recommender(model).recommend(age=30, gender="female", occupation="pilot", top_n=4)) == 4


def test_movielens_ratings_below_the_least_are_left_out(movielens, tmp_path):
    done("dataset", "movielens", movielens, tmp_path / "out", "--min-rating", 4)
    assert load_dataset(tmp_path / "out").purchases.tolist() == [[0, 0], [0, 3]]


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("u.item", None, None, ["u.item", "no such file", "u.genre"]),
        ("u.user", "2|53|F|other", "2|53|F", ["u.user, line 2", "found 4 fields", "'|'", "allowed: 5"]),
        ("u.data", "2\t2\t3", "2\t2\t9", ["u.data, line 3", "rating '9'", "1 to 5"]),
        ("u.data", "\t", ",", ["u.data, line 1", "found 1 field", "allowed: 4"]),
        ("u.item", "14-Jul-1948", "July", ["u.item, line 2", "'July'", "01-Jan-1995"]),
        ("u.genre", "Action|1\n", "", ["u.item, line 1", "allowed: 8"]),
    ],
)
def test_movielens_mistakes_are_sentences(movielens, tmp_path, name, old, new, words):
    if old is None:
        (movielens / name).unlink()
    else:
        assert old in MOVIELENS[name]
        (movielens / name).write_bytes(MOVIELENS[name].replace(old, new).encode("latin-1"))
    result = run("dataset", "movielens", movielens, tmp_path / "out")
    assert result.returncode == 2
    assert all(word in result.stderr for word in words), result.stderr
    assert not (tmp_path / "out").exists()


def test_movielens_refuses_a_rating_that_nobody_gives(movielens, tmp_path):
    told(
        run("dataset", "movielens", movielens, tmp_path / "out", "--min-rating", 6),
        "min_rating: found 6; allowed: 1 to 5",
    )
