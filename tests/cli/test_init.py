"""`recsys-jax init`: what it writes and leaves alone, what it asks, and what follows it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from contextlib import suppress
from pathlib import Path

import pytest
from command_line import done, run, told
from manual import files

from recsys_jax.cli import init
from recsys_jax.console import terminal

ROOT = Path(__file__).parents[2]
MANUAL = files("docs/datasets.md")
BLOCKS = {name: text for name, text in MANUAL.items() if name.endswith(".csv")}


@pytest.fixture
def shop(tmp_path) -> Path:
    """The tables of the tea shop of the manual."""
    folder = tmp_path / "tea shop"
    folder.mkdir()
    for name, content in BLOCKS.items():
        (folder / name).write_text(content, "utf-8")
    return folder


def tables(shop: Path) -> list[Path]:
    return [shop / name for name in ("purchases.csv", "products.csv", "customers.csv")]


def test_what_follows_is_run_to_the_end(shop):
    """From the tables to a recommendation, by what each command prints."""
    names, command = [], ["init", *tables(shop)]
    while command:
        result = done(*command, cwd=shop.parent)
        names.append(command[0])
        command = result.next() if "Next: " in result.stdout else []
    assert names == ["init", "run", "recommend"]


def test_each_guess_stands_beside_what_it_saw(shop):
    out = done("init", shop).stdout
    text = (shop / "dataset.toml").read_text("utf-8")
    found = tomllib.loads(text)
    by_hand = tomllib.loads(MANUAL["dataset.toml"])
    for part in ("products", "customers"):
        for key in ("kind", "separator"):
            one, other = ({one["name"]: one.get(key) for one in made[part]["features"]} for made in (found, by_hand))
            assert one == other
    assert {**found["products"], "features": 0} == {**by_hand["products"], "features": 0}
    customers = {**by_hand["customers"], "features": 0}
    del customers["segment"]  # by what results are broken down only a person knows
    assert {**found["customers"], "features": 0} == customers
    assert {key: found["interactions"][key] for key in by_hand["interactions"]} == by_hand["interactions"]
    for seen in (
        "3 values in 8 rows: green (3), herbal (3), black (2)",
        "9 numbers from 23 to 62; 1 of 10 rows without",
    ):
        assert f"# {seen}" in text
        assert seen in out


def test_nothing_is_replaced_unasked(shop):
    (shop / "dataset.toml").write_text("mine")
    told(run("init", shop), "dataset.toml: found a file; allowed: none yet, or --force, which replaces it")
    assert (shop / "dataset.toml").read_text() == "mine"
    done("init", shop, "--force")
    assert tomllib.loads((shop / "dataset.toml").read_text("utf-8"))["name"] == "tea shop"


def test_a_folder_of_its_own(shop, tmp_path):
    """Tables that lie elsewhere are copied into it; one of another content is not replaced unasked."""
    out = tmp_path / "out" / "tea"
    result = done("init", *tables(shop), "--out", out)
    assert result.next() == ["run", str(out)]
    assert {path.name: path.read_text("utf-8") for path in out.glob("*.csv")} == BLOCKS
    assert not (shop / "dataset.toml").exists()
    (out / "products.csv").write_text("sku,x\n1,2\n")
    (out / "dataset.toml").unlink()
    told(run("init", *tables(shop), "--out", out), "products.csv: found a file; allowed: none yet, or --force")


def test_tables_in_folders_below(shop):
    (shop / "sales").mkdir()
    (shop / "purchases.csv").rename(shop / "sales" / "purchases.csv")
    done("init", shop / "sales" / "purchases.csv", shop / "products.csv", shop / "customers.csv")
    found = tomllib.loads((shop / "dataset.toml").read_text("utf-8"))
    assert found["interactions"]["file"] == "sales/purchases.csv"


def test_a_table_that_is_not_used_is_told(shop):
    (shop / "weather.csv").write_text("day,rain\nMon,wet\nTue,dry\n")
    assert f"{shop / 'weather.csv'} is not used" in done("init", shop).stdout


def answering(monkeypatch, answers: list[str]) -> None:
    """At a terminal people say these, one after the other, and then end it."""
    left = iter(answers)

    def answer() -> str:
        with suppress(StopIteration):
            return next(left)
        raise EOFError

    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr(init, "_asks", lambda options: not options.yes)


def numbered(folder: Path) -> Path:
    """Tables that do not say which is which: things and people have the same ids, and no name that helps."""
    folder.mkdir()
    for name, other, values in (("a", "colour", ["red", "blue", "grey"]), ("b", "shape", ["round", "flat", "long"])):
        rows = [f"{n},n{n},{values[n % 3]}" for n in range(1, 31)]
        (folder / f"{name}.csv").write_text("\n".join([f"key,word,{other}", *rows]))
    pairs = [f"{1 + n % 30},{1 + (n * n + n // 30) % 30},n{1 + (n * 7 + n // 30) % 30}" for n in range(90)]
    (folder / "c.csv").write_text("\n".join(["x,y,z", *pairs]))
    return folder


@pytest.mark.parametrize(
    ("answers", "parts"),
    [
        (["c.csv", "A", "b", "key", "x", "key"], ("a.csv", "key", "x", "b.csv", "key", "y")),
        (["c", "b.csv", "a.csv", "key", "y", "word"], ("b.csv", "key", "y", "a.csv", "word", "z")),
        (["c", "b.csv", "a.csv", "word", "x"], ("b.csv", "word", "z", "a.csv", "key", "x")),
    ],
)
def test_it_asks_which_is_which(tmp_path, monkeypatch, capsys, answers, parts):
    folder = numbered(tmp_path / "shop")
    answering(monkeypatch, answers)
    init.main(init.Options((folder,)))
    found = tomllib.loads((folder / "dataset.toml").read_text("utf-8"))
    products, customers, bought = found["products"], found["customers"], found["interactions"]
    assert parts == (
        products["file"], products["id"], bought["product"], customers["file"], customers["id"], bought["customer"]
    )  # fmt: skip
    asked = re.findall(r"(Which .*?)\? \(", capsys.readouterr().out)
    assert asked[:4] == [
        *(f"Which table has the {part}" for part in ("purchases or reviews", "products", "customers")),
        f"Which column of {products['file']} has the id in each row",
    ]
    assert len(asked) == len(answers)  # none with one possible answer


def test_a_wrong_answer_is_asked_for_again(tmp_path, monkeypatch, capsys):
    folder = numbered(tmp_path / "shop")
    (folder / "c.csv").rename(folder / "bought.csv")
    answering(monkeypatch, ["weather.csv", "b", "Bought.csv"])
    init.main(init.Options((folder,)))
    out = capsys.readouterr().out
    assert "found 'weather.csv'; allowed: " in out
    assert "found 'b'; allowed: " in out
    assert out.count("Which table has the purchases or reviews? (") == 3
    assert tomllib.loads((folder / "dataset.toml").read_text("utf-8"))["interactions"]["file"] == "bought.csv"


@pytest.mark.parametrize(("said", "file", "id"), [("", "sales-customers.csv", "row"), ("wer", "sales.csv", "wer")])
def test_it_asks_who_bought_in_a_table_of_everything(tmp_path, monkeypatch, capsys, said, file, id):
    """No name says who: by the guess each row is a customer, and any column of ids may be the answer."""
    sales = [
        f"p{n % 10},{['red', 'blue'][n % 10 % 2]},w{n * n % 17},{['city', 'shore', 'hill'][n * n % 17 % 3]}"
        for n in range(90)
    ]
    (tmp_path / "sales.csv").write_text("\n".join(["item id,colour,wer,wo", *sales]))
    answering(monkeypatch, ["item id", said])
    init.main(init.Options((tmp_path,)))
    assert "Which column of sales.csv has the ids of customers? (none, " in capsys.readouterr().out
    customers = tomllib.loads((tmp_path / "dataset.toml").read_text("utf-8"))["customers"]
    assert (customers["file"], customers["id"]) == (file, id)


def test_it_asks_for_the_id_of_products_with_reviews(tmp_path, monkeypatch, capsys):
    """A table alone; the guess is the column that is called an id."""
    rows = [{"title": f"Tea {n}", "sku": f"T{n}", "reviews": [{"content": "Fine."}], "kind": n % 3} for n in range(30)]
    (tmp_path / "teas.json").write_text(json.dumps(rows))
    answering(monkeypatch, ["T"])
    init.main(init.Options((tmp_path,)))
    assert "Which column of teas.json has the id in each row? (sku, title) [sku]" in capsys.readouterr().out
    assert tomllib.loads((tmp_path / "dataset.toml").read_text("utf-8"))["products"]["id"] == "title"


@pytest.mark.parametrize(("said", "kind"), [("", None), ("n", "categorical"), ("what\nyes", None), (None, None)])
def test_it_asks_what_is_doubtful(shop, monkeypatch, capsys, said, kind):
    """A name that speaks of purchases; nothing said, and the end of what is said, are the guess."""
    path = shop / "customers.csv"
    path.write_text(path.read_text("utf-8").replace("newsletter", "bought newsletter"), "utf-8")
    answering(monkeypatch, [] if said is None else ["", "", *said.split("\n")])  # the first two: which table is which
    init.main(init.Options((shop,)))
    found = tomllib.loads((shop / "dataset.toml").read_text("utf-8"))
    features = {one.get("column", one["name"]): one["kind"] for one in found["customers"]["features"]}
    assert features.get("bought newsletter") == kind
    question = "bought newsletter: 2 values in 10 rows"
    assert capsys.readouterr().out.count(f"{question}: no (5), yes (4); 1 of 10 rows without. Is it") == 1 + (
        said is not None and "\n" in said
    )
    monkeypatch.setattr("builtins.input", lambda: pytest.fail("asked all the same"))
    init.main(init.Options((shop,), yes=True, force=True))


@pytest.mark.parametrize(("said", "kept"), [("", True), ("no", False)])
def test_it_asks_whether_what_goes_with_the_product_is_a_preference(tmp_path, monkeypatch, capsys, said, kept):
    goods = [f"P{n:02},Thing {n},{3 + n % 9}" for n in range(30)]
    rows = [f"P{n % 30:02},{'dog' if (n % 30 % 2) != (n % 23 == 1) else 'cat'},{n % 7 % 2},this is review {n} and "
            f"it says something of its own at some length" for n in range(400)]  # fmt: skip
    (tmp_path / "goods.csv").write_text("\n".join(["sku,title,cost", *goods]))
    (tmp_path / "reviews.csv").write_text("\n".join(["sku,companion,gender,text", *rows]))
    monkeypatch.setattr("builtins.input", lambda: said if "(yes, no) [yes]" in last(capsys) else "")
    monkeypatch.setattr(init, "_asks", lambda options: not options.yes)
    init.main(init.Options((tmp_path,)))
    text = (tmp_path / "dataset.toml").read_text("utf-8")
    assert ('name = "companion"' in text) == kept
    assert ("left out: companion: it goes with the product (sku), but differs within" in text) != kept


def last(capsys) -> str:
    """The question, which is the end of what was printed; only that on the companion is told."""
    said = capsys.readouterr().out.rpartition("\n")[2]
    return said if said.startswith("companion: ") else ""


def test_it_asks_at_a_terminal_alone(monkeypatch):
    assert not init._asks(init.Options())  # the tests' output is read by pytest
    monkeypatch.setattr(terminal.console, "_force_terminal", True)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert init._asks(init.Options())
    assert not init._asks(init.Options(yes=True))


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals here")
def test_stopped_while_it_asks_it_leaves_nothing(shop):
    path = shop / "customers.csv"
    path.write_text(path.read_text("utf-8").replace("newsletter", "bought newsletter"), "utf-8")
    before = sorted(shop.iterdir())
    main, terminal_end = os.openpty()
    command = [sys.executable, "-m", "recsys_jax", "init", str(shop)]
    with subprocess.Popen(command, stdin=terminal_end, stdout=terminal_end, stderr=terminal_end, cwd=ROOT) as process:
        os.close(terminal_end)
        seen = b""
        until = time.monotonic() + 120
        while b"[products.csv]" not in seen and time.monotonic() < until:
            seen += os.read(main, 1000)
        process.send_signal(signal.SIGINT)
        with suppress(OSError):  # Linux says so when the other end is closed
            while more := os.read(main, 1000):
                seen += more
        assert process.wait(60) == 130
    os.close(main)
    assert b"nothing was written" in seen
    assert sorted(shop.iterdir()) == before


def test_the_data_of_the_next_month_take_the_place_of_copies(shop, tmp_path):
    """With --force alone, and what was replaced is said, first what people write."""
    out = tmp_path / "out"
    done("init", *tables(shop), "--out", out)
    (shop / "purchases.csv").write_text((shop / "purchases.csv").read_text("utf-8") + "c1,T03\n", "utf-8")
    told(run("init", *tables(shop), "--out", out), "dataset.toml: found a file; allowed: none yet, or --force")
    said = done("init", *tables(shop), "--out", out, "--force").stdout
    assert f"In place of what was there: {out / 'dataset.toml'}, {out / 'purchases.csv'}" in said
    assert (out / "purchases.csv").read_bytes() == (shop / "purchases.csv").read_bytes()


@pytest.mark.parametrize(
    ("said", "answer"), [("예", "yes"), ("네", "yes"), ("아니요", "no"), ("아니오", "no"), ("", "no")]
)
def test_yes_and_no_in_other_languages(monkeypatch, said, answer):
    answering(monkeypatch, [said])
    assert init._ask("?", ("yes", "no"), "no") == answer


def test_a_table_of_products_alone_is_not_enough(shop):
    told(run("init", shop / "products.csv", "--out", shop / "new"), "beside it the table of purchases or of reviews")


def test_reviews_by_somebody_else_each_have_no_customers(tmp_path, monkeypatch, capsys):
    """The number of a review is none of a customer, unless somebody says so."""
    goods = [f"P{n},크림 {n},b{n % 2}" for n in range(10)]
    rows = [f"R{n},P{n % 10},겨울에 촉촉해서 정말 좋아요 {n},{'여남'[n % 2]}성" for n in range(60)]
    (tmp_path / "상품.csv").write_text("\n".join(["상품코드,상품명,브랜드", *goods]), "utf-8")
    (tmp_path / "리뷰.csv").write_text("\n".join(["번호,상품코드,내용,성별", *rows]), "utf-8")
    answering(monkeypatch, [])
    init.main(init.Options((tmp_path,)))
    out = capsys.readouterr().out
    assert "Which column of 리뷰.csv has the ids of customers? (none, 번호" in out
    assert "file" not in tomllib.loads((tmp_path / "dataset.toml").read_text("utf-8"))["customers"]
