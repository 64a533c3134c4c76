"""The main job, from made reviews to recommendations."""

import json
import re
import shutil
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path

import pytest
from command_line import done, run, told

from recsys_jax.cli.run import Options, folder_of, other_datasets
from recsys_jax.console.places import make_mall
from recsys_jax.data.dataset import read_schema
from recsys_jax.personas.catalogue import read_catalogue
from recsys_jax.personas.customers import read_reviews

ROOT = Path(__file__).parents[2]
MALL = ROOT / "data" / "amoremall"


@pytest.fixture(scope="module")
def job(tmp_path_factory, optimised):
    """The main job with an encoder that needs no model, where there is no dataset yet."""
    cwd = tmp_path_factory.mktemp("job")
    return cwd, done("run", "--encoder", "lsa", cwd=cwd)


def test_datasets_beside_the_example_are_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_mall(Path("data/amoremall"))
    assert other_datasets() == []
    for other in ("shop", "data/tea", "data/films"):
        shutil.copytree("data/amoremall", other)
    (tmp_path / "data/tea/products.json").unlink()  # a description alone
    assert other_datasets() == [Path("data/films"), Path("shop")]


def test_the_main_job(job):
    cwd, result = job
    out = cwd / "runs" / "amoremall"
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    # Beside a picture, which names a number stands for: only where no font here has their signs.
    assert {name for name in names if not name.endswith("_names.csv")} == {
        "PERSONA_DEFINITION.md",
        "customers.json",
        "embedding_space.png",
        "loss.csv",
        "run.toml",
        "model.json",
        next(out.glob("model-*.safetensors")).name,
        "persona_distribution.png",
        "persona_labels.csv",
        "personas/arrays.npz",
        "personas/model.json",
        "report.html",
        "report.md",
        "run.json",
        *(
            f"{protocol}/{name}"
            for protocol in ("in-sample", "cross-validation")
            for name in ("metrics.json", "report.md", "results.csv", "results_by_segment.png")
        ),
    }
    for name in names:
        if name.endswith(".png"):
            assert (out / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert all(len(line) <= 80 for line in result.stdout.splitlines() if "│" in line or "─" in line or " 0." in line)
    # The published recipe is trained, a line per hundred epochs, and the first sentence after that is the finding.
    assert [line for line in result.stdout.splitlines() if line.startswith("Epoch")][-1].startswith("Epoch 500/500")
    after = result.stdout[result.stdout.index("Evaluation: deep beside wide and baselines") :].split("\n\n")[1]
    assert after.startswith("For customers it has never seen, ")
    first, *_ = " ".join(after.split()).split(". ")
    assert re.search(r"(list|chance|method measured here): MRR 0\.\d{4} against 0\.\d{4} \([+-]0\.\d{4}, 95 %", first)
    assert re.search(
        r"This model is deep; wide [a-z ]+ (a bestseller list|chance) \(MRR [+-]0", " ".join(after.split())
    )
    assert after.split() == (out / "report.md").read_text("utf-8").split("\n")[0].split()
    # The page for people begins with it, too.
    page = (out / "report.html").read_text("utf-8")
    assert f'<p class="lead">{first}.</p>' in page
    assert len(page.encode()) < 5_000_000
    # It ends with where the files are and what to try next, after two recommendations of three products.
    assert result.stdout.count("product  ") == 2
    done(*result.next(), cwd=cwd)
    assert result.next()[0] == "recommend"
    # Where it runs alone, it makes its own mall: the one in the repository.
    assert f"There is no {Path('data/amoremall')} here" in result.stdout
    for name in ("boosts.toml", "dataset.toml", "personas.toml", "products.json"):
        assert (cwd / "data" / "amoremall" / name).read_bytes() == (MALL / name).read_bytes()


def test_the_files_say_what_they_are(job):
    cwd, _ = job
    out = cwd / "runs" / "amoremall"
    customers = json.loads((out / "customers.json").read_text("utf-8"))
    assert len(customers) == 277
    assert set(customers[0]) >= {
        "user_id",
        "persona_id",
        "persona_name",
        "age",
        "gender",
        "skin_type",
        "skin_concern",
        "purchased_product_id",
        "product_category",
    }
    assert (out / "loss.csv").read_text().splitlines()[0] == "epoch,loss"
    results = (out / "cross-validation" / "results.csv").read_text("utf-8").splitlines()
    assert len(results) == 278
    metrics = json.loads((out / "cross-validation" / "metrics.json").read_text("utf-8"))
    assert metrics["protocol"] == "cross-validation, 5 folds over customers"
    rivals = {
        "random",
        "popularity",
        "inverse popularity",
        "popularity per persona",
        "naive Bayes",
        "logistic regression",
        "wide",
    }
    assert set(metrics["methods"]) == set(metrics["leak-free"]["methods"])
    assert set(metrics["methods"]) == {"model", "model, attributes shuffled", *rivals}
    assert metrics["queries"]["all"] == metrics["leak-free"]["queries"]["all"] == 277
    # Each review's writer is asked once, so the leak-free persona may differ, the purchase not.
    assert any("derived from the review" in sentence for sentence in metrics["findings"])


def test_a_product_file_is_described_as_the_mall_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "our shop.json").write_bytes((MALL / "products.json").read_bytes())
    folder = folder_of(Options(Path("our shop.json")), ExitStack())
    schema = read_schema(folder)
    assert (folder, schema.name) == (Path("runs/our shop-dataset"), "our shop")
    assert not schema.description  # nobody says of a shop's own file that it is invented
    assert "Invented" in read_schema(MALL).description["en"]
    assert len(read_reviews(folder, schema)) == 277
    assert read_catalogue(folder / schema.catalogue).personas


def product_rows() -> list[dict]:
    return json.loads((MALL / "products.json").read_text("utf-8"))


@pytest.mark.wild
@pytest.mark.parametrize(
    "name",
    [
        "🧴.json",
        'a "b" \\c.json',
        "a\x7fb.json",
        "a\udcffb.json",
        "새 상품.jsonl",
        "lines.json",
        "P.NDJSON",
        "C:a.json",
    ],
)
def test_a_product_file_of_any_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    rows = product_rows()
    lines = name.startswith(("새", "lines", "P"))
    Path(name).write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows), "utf-8")
    folder = folder_of(Options(Path(name)), ExitStack())
    assert len(read_reviews(folder, read_schema(folder))) == 277


@pytest.mark.wild
@pytest.mark.parametrize("asked", [["--k", "1"], ["--k", "9" * 22], ["--seed", "-1"], ["--encoder", "no such encoder"]])
def test_a_product_file_that_makes_no_personas_leaves_nothing(tmp_path, asked):
    (tmp_path / "p.json").write_bytes((MALL / "products.json").read_bytes())
    assert run("run", "p.json", *asked, cwd=tmp_path).returncode == 2
    assert not list((tmp_path / "runs").glob("*"))


NO_PRODUCTS = {
    "p.csv": (b"product_id,reviews\n1,good\n", "p.csv: found the ending '.csv'; allowed: .json, .jsonl, "),
    "p.tsv": (b"product_id\treviews\n1\tgood\n", "p.tsv: found the ending '.tsv'; allowed: .json, "),
    "p.xlsx": (b"PK\x03\x04", "p.xlsx: found the ending '.xlsx'; allowed: .json, "),
    "excel.json": (b"PK\x03\x04", "excel.json: found a ZIP archive or an Excel sheet"),
    "old.json": (b"\xd0\xcf\x11\xe0\xa1\xb1", "old.json: found an Excel sheet: save it in Excel by"),
    "zipped.json": (b"\x1f\x8b\x08", "zipped.json: found a file compressed by gzip"),
    "table.json": (b"product_id,reviews\n1,good\n", "table.json: not valid JSON"),
    "cut.jsonl": (b'{"product_id": 1}\n{"product_id": 2', "cut.jsonl, line 2: not valid JSON"),
    "orders.json": (b'[{"order": 1}]', "orders.json: the column 'product_id' is missing; found: order"),
    "silent.json": (
        json.dumps([{**row, "reviews": []} for row in product_rows()]).encode(),
        "silent.json: there are no reviews in its column 'reviews'",
    ),
    "empty.json": (b"", "empty.json: found an empty file; allowed: JSON"),
}


@pytest.mark.wild
@pytest.mark.parametrize("name", NO_PRODUCTS)
def test_a_file_of_another_kind_is_told_by_its_own_name_and_leaves_nothing(tmp_path, name):
    content, sentence = NO_PRODUCTS[name]
    (tmp_path / name).write_bytes(content)
    told(run("run", name, cwd=tmp_path), sentence)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_is_packaged_is_what_the_mall_has(tmp_path):
    """Boost rules, too, which the README's example reads."""
    make_mall(tmp_path)
    for name in ("boosts.toml", "personas.toml"):
        packaged = files("recsys_jax.data").joinpath(name).read_bytes()
        assert (MALL / name).read_bytes() == packaged == (tmp_path / name).read_bytes()
    (tmp_path / "boosts.toml").write_text("# mine")
    make_mall(tmp_path)
    assert (tmp_path / "boosts.toml").read_text() == "# mine"
