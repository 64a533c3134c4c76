"""Every block of the manuals is run as it stands, one after the other; what cannot be is parsed, and says why."""

import csv
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Result, done
from conftest import write_mall
from manual import INSTEAD, PAGES, PROGRAMS, ROOT, TESTS, blocks, files, run_page, serving

from recsys_jax import cli
from recsys_jax.console.options import parse
from recsys_jax.personas.customers import read_reviews
from recsys_jax.storage.torch import published_schema

TOKEN, ADDRESS = "0123456789abcdef", "http://127.0.0.1:8000"


def test_each_page_has_its_run():
    """And each block of another kind the test that is named for it; and what is excused is there."""
    tests = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    read_elsewhere = {page for page in PAGES if all((page, one.language) in TESTS for one in blocks(page))}
    assert [page for page in PAGES if f'"{page}"' not in tests and page not in read_elsewhere] == []
    assert [name for name in TESTS.values() if f"def {name}(" not in tests] == []
    assert set(TESTS) <= {(page, one.language) for page in PAGES for one in blocks(page)}
    lines = "".join(one.text for page in PAGES for one in blocks(page, "sh"))
    said = set(re.findall(r"^(?:\S+/)?recsys-jax (.*?) *(?:#.*)?$", lines, re.MULTILINE))
    assert set(INSTEAD) <= said


# Of the mall


def write_amoremall(folder: Path) -> None:
    """data/amoremall with a third of its products, those that manuals name among them, and short trainings."""
    shutil.copytree(ROOT / "data" / "amoremall", folder / "data" / "amoremall")
    path = folder / "data" / "amoremall" / "products.json"
    products = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps([*products[:8], *products[20:45]], ensure_ascii=False), "utf-8")
    toml = path.with_name("dataset.toml")
    toml.write_text(toml.read_text("utf-8").replace('recipe = "deep"', 'recipe = "deep"\nepochs = 20'), "utf-8")


@pytest.fixture(scope="module")
def mall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the main job makes of it, trained for a moment."""
    folder = tmp_path_factory.mktemp("mall")
    write_amoremall(folder)
    write_mall(folder / "DATASET")
    done("personas", "--encoder", "lsa", cwd=folder)
    done("train", cwd=folder)
    done("torch", "export", "runs/amoremall", "model.pth", cwd=folder)
    products = json.loads((folder / "data" / "amoremall" / "products.json").read_text("utf-8"))
    customers = json.loads((folder / "runs" / "amoremall" / "customers.json").read_text("utf-8"))
    reviews = [{"product_id": one["product_id"], **review} for one in products for review in one["reviews"]]
    for name, rows, columns in (
        ("products", products, ("product_id", "product_name", "brand_name", "category", "price")),
        ("customers", customers, ("user_id", "age", "gender", "skin_type", "skin_concern")),
        ("purchases", customers, ("user_id", "purchased_product_id")),
        ("reviews", reviews, ("product_id", "content")),
    ):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([columns, *([row[column] for column in columns] for row in rows)])
    return folder


@pytest.mark.parametrize("page", ["README.md", "docs/ko/quickstart.md", "docs/recommending.md", "docs/commands.md"])
def test_manuals_of_the_mall(page, mall):
    shutil.rmtree(mall / "shop", ignore_errors=True)
    shutil.rmtree(mall / "shop-of-reviews", ignore_errors=True)
    ran = run_page(page, mall)
    said = "".join(ran.said)
    assert ": +" in said or "the model is" in said  # a reason, in words; or the finding
    if "values" in ran.names:
        assert ran.names["values"].shape == ran.names["ids"].shape == (1, 3)
        assert not {0, 5} & set(ran.names["ids"][0].tolist())


def test_the_manual_of_parity(mall):
    assert len(run_page("docs/parity.md", mall).names["rec"].product_ids) == 33


def test_the_notebook_runs_from_top_to_bottom(mall):
    """And stands there without results, which would be those of some other day."""
    cells = json.loads((ROOT / "docs" / "tour.ipynb").read_text("utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    assert len(run_page("docs/tour.ipynb", mall).said) > 8


def test_the_manual_of_developing(tmp_path):
    run_page("docs/developing.md", tmp_path)


# Of other shops


def write_movielens(folder: Path) -> None:
    """Invented people and films in the form of the original files, and the dataset that is made of them."""
    genres, flags = ("Action", "Comedy", "Drama"), ("1|0|0", "0|1|0", "0|0|1", "1|1|0")
    made = {
        "u.genre": [f"{name}|{number}" for number, name in enumerate(genres)],
        "u.item": [f"{n}|Film {n} ({1950 + n})|01-Jan-{1950 + n}||-|{flags[n % 4]}" for n in range(1, 21)],
        "u.user": [f"{n}|{18 + n}|{'FM'[n % 2]}|{('student', 'writer')[n % 3 > 0]}|-" for n in range(1, 31)],
        "u.data": [f"{n}\t{(n * n + 5 * k) % 20 + 1}\t4\t{10**9 + k * n}" for n in range(1, 31) for k in range(3)],
    }
    (folder / "ml-100k").mkdir()
    for name, lines in made.items():
        (folder / "ml-100k" / name).write_text("\n".join(lines) + "\n", "latin-1")
    done("dataset", "movielens", "ml-100k", "movielens", cwd=folder)


def labels(text: str) -> set[str]:
    """What tables and lines begin with, without figures."""
    first = (re.split(r"  +", line.strip())[0] for line in text.splitlines())
    return {re.sub(r"[\d.,+-]+", "0", one) for one in first if one and "─" not in one}


def test_the_manual_of_datasets(tmp_path, mall):
    page = "docs/datasets.md"
    (tmp_path / "shop").mkdir()
    for name, text in files(page).items():
        if name.endswith(".csv"):
            (tmp_path / "shop" / name).write_text(text, "utf-8")
    write_amoremall(tmp_path)
    shutil.copy(mall / "runs" / "amoremall" / "customers.json", tmp_path)
    write_movielens(tmp_path)
    shutil.rmtree(tmp_path / "movielens")
    ran = run_page(page, tmp_path, files_in="shop")
    every = {one["product_id"]: one for one in ran.names["rec"].recommend(top_n=20)}
    assert every.keys() == {f"T0{number}" for number in range(1, 10)} - {"T02"}  # one is removed, one added
    assert (every["T09"]["category"], every["T04"]["price"], every["T08"]["price"]) == ("herbal", 7.8, None)
    assert "+0.10" in "".join(ran.said)
    # The table of films has the columns that are shown, and what is asked for.
    [shown] = blocks(page, "text")
    head, columns = [" ".join(line.split()) for line in shown.text.splitlines() if line.strip()][:2]
    printed = [" ".join(line.split()) for line in ran.said[-1].splitlines()]
    assert head in printed
    assert columns in printed
    # Products with reviews are read as shown.
    [products] = blocks(page, "json")
    (tmp_path / "products.json").write_text(products.text, "utf-8")
    found = read_reviews(tmp_path, published_schema())
    assert (found.product_ids, [bool(one) for one in found.profiles]) == (["a1", "a1"], [True, False])


def test_the_manual_of_evaluation(tmp_path):
    page = "docs/evaluation.md"
    write_movielens(tmp_path)
    toml = write_mall(tmp_path / "FOLDER") / "dataset.toml"
    toml.write_text(toml.read_text("utf-8") + '\n[training]\nrecipe = "deep"\nepochs = 4\nbatch_size = 4\n', "utf-8")
    ran = run_page(page, tmp_path)
    [shown] = blocks(page, "text")
    missing = labels(shown.text) - labels("".join(ran.said))
    # What is left out, and what depends on the figures: the verdict, and which methods the model is not shown to beat.
    of_figures = ("[", "MRR 0 against 0", "For customers", "* The model is not shown to be better than", "noise)")
    assert {one for one in missing if not one.startswith(of_figures)} == set()


@pytest.mark.parametrize("page", ["docs/comparing.md", "docs/recipes.md"])
def test_manuals_of_recipes(page, tmp_path):
    write_movielens(tmp_path)
    (tmp_path / "movielens").rename(tmp_path / "DATASET")
    for name, text in files(page).items():
        (tmp_path / name).write_text(text, "utf-8")
    run_page(page, tmp_path, named={"/NAME/": "/movielens/", "/PROTOCOL/": "/hold-out/"})


# The service


@pytest.fixture(scope="module")
def service(mall: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `serve runs/amoremall` at a free port, which asks for a token."""
    token = tmp_path_factory.mktemp("secret") / "token"
    token.write_text(TOKEN)
    with serving(mall, ["serve", "runs/amoremall", "--token-file", str(token)]) as address:
        yield address


def program(name: str, *words: str, **options: Any) -> Result:
    """Runs what may be missing here."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed here")
    done = subprocess.run([name, *words], capture_output=True, text=True, check=False, **options)
    return Result(done.returncode, done.stdout, done.stderr)


def test_the_manual_of_the_service(mall, service, monkeypatch):
    """Each line of curl is answered; the token is added where the manual has no need of one."""
    answers = []

    def curl(folder: Path, words: list[str]) -> Result:
        at = [word.replace(ADDRESS, service) for word in words]
        token = [] if "-H" in words else ["-H", f"Authorization: Bearer {TOKEN}"]
        result = program("curl", "--silent", "--show-error", "--fail-with-body", *token, *at)
        answers.append(result.stdout)
        return result._replace(stderr=result.stderr + result.stdout if result.returncode else "")

    monkeypatch.setenv("RECSYS_JAX_TOKEN", TOKEN)
    run_page("docs/serving.md", mall, curl=curl)
    assert len(answers) > 8
    [shown] = [json.loads(one.text) for one in blocks("docs/serving.md", "json")]
    found = json.loads(answers[0])
    assert list(shown) == list(found)
    [product] = shown["products"]
    assert list(product) == list(found["products"][0])
    # The product that is shown is one of the mall.
    rows = json.loads((mall / "data" / "amoremall" / "products.json").read_text("utf-8"))
    [row] = [row for row in rows if row["product_id"] == product["product_id"]]
    assert (row["product_name"], row["brand_name"], row["price"]) == (
        product["name"],
        product["brand"],
        product["price"],
    )


PERSON = {"age": 32, "gender": "F", "skin_type": "dry", "skin_concern": "moisture"}


def test_the_javascript_asks_the_service(service):
    [code] = blocks("docs/serving.md", "js")
    ask = f"""
const plain = fetch, token = {{ authorization: "Bearer {TOKEN}" }};
globalThis.fetch = (url, asked) => plain(url, {{ ...asked, headers: {{ ...asked.headers, ...token }} }});
(async () => {{
  const base = {json.dumps(service)};
  const found = await recommend({json.dumps(PERSON)}, {{ top_n: 2 }}, base);
  let said = "";
  try {{ await recommend({{ skin_type: "scaly" }}, {{}}, base); }} catch (error) {{ said = error.message; }}
  console.log(JSON.stringify([found, said]));
}})();
"""
    result = program("node", "--eval", code.text + ask)
    found, said = json.loads(result.stdout)
    assert len(found) == 2
    assert "skin_type: found 'scaly'" in said


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def test_nginx_passes_requests_on(service, tmp_path):
    """The example as it stands, but for ports and places of files; the service asks for the token that nginx adds."""
    [block] = blocks("docs/serving.md", "nginx")
    port = free_port()
    places = {
        ADDRESS.removeprefix("http://"): service.removeprefix("http://"),
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/ssl/shop.example": f"{tmp_path}/shop.example",
        "/etc/nginx/": f"{tmp_path}/",
    }
    text = block.text
    for old, new in places.items():
        assert old in text
        text = text.replace(old, new)
    parts = "client_body", "proxy", "fastcgi", "uwsgi", "scgi"
    temporary = " ".join(f"{part}_temp_path {tmp_path}/{part};" for part in parts)
    head = f"daemon off; pid {tmp_path}/pid; error_log stderr; events {{}}"
    conf = tmp_path / "nginx.conf"
    conf.write_text(f"{head}\nhttp {{ access_log off; {temporary}\n{text}\n}}\n", "utf-8")
    (tmp_path / "recommendations.token").write_text(f'proxy_set_header Authorization "Bearer {TOKEN}";\n', "utf-8")
    made = f"{tmp_path}/shop.example"
    key = ["-keyout", f"{made}.key", "-out", f"{made}.pem", "-subj", "/CN=shop.example"]
    nginx = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin") or "nginx"
    assert program("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *key).returncode == 0
    words = ["-p", str(tmp_path), "-c", str(conf)]
    checked = program(nginx, "-t", *words)
    assert checked.returncode == 0, checked.stderr
    with subprocess.Popen([nginx, *words]) as process:
        try:
            body = json.dumps({"attributes": PERSON, "top_n": 2})
            url = f"https://127.0.0.1:{port}/api/recommend"
            until = ["--retry", "20", "--retry-connrefused", "--retry-delay", "1", "--silent", "--insecure"]
            result = program("curl", *until, "--json", body, url)
        finally:
            process.terminate()
    assert len(json.loads(result.stdout)["products"]) == 2


def test_the_container_file_says_what_is_so(service):
    """What it installs and begins with is this program's; its check of health passes."""
    [block] = blocks("docs/serving.md", "dockerfile")
    told = dict(line.split(" ", 1) for line in block.text.splitlines())
    assert set(told) == {"FROM", "COPY", "RUN", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT"}
    install, add = (shlex.split(one) for one in told["RUN"].split(" && "))
    assert PROGRAMS["pip"](ROOT, install[1:]).returncode == 0
    assert told["COPY"].split()[0] == install[-1].removeprefix("/tmp/").partition("[")[0]
    assert add[:2] == ["useradd", "--create-home"]
    assert add[2] == told["USER"]
    program_, *words = json.loads(told["ENTRYPOINT"])
    assert program_ == "recsys-jax"
    parse(*cli.find(words))
    health = told["HEALTHCHECK"].removeprefix("CMD ").replace(ADDRESS, service)
    assert f":{told['EXPOSE']}/health" in told["HEALTHCHECK"]
    assert subprocess.run([sys.executable, *shlex.split(health)[1:]], check=False).returncode == 0
