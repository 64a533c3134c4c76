"""What is printed and written for people: on any console, for any reader, in any spreadsheet."""

import io
import json
import os
import shutil
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import run

from recsys_jax import cli, save_model
from recsys_jax.console import recommendations, terminal
from recsys_jax.console.places import write_set_aside
from recsys_jax.console.tables import Grid, say, write_page
from recsys_jax.data.files import cache_folder, sheet_text
from recsys_jax.data.tables import SetAside

pytestmark = pytest.mark.wild

KNOWN = ("age=32", "gender=F", "skin_type=dry", "skin_concern=moisture", "--top-n", "8")
NAME = "어성초 – é \u202e\x9b\x7f"  # Korean, an en dash, an accent, and three signs that a terminal obeys
ENCODINGS = ("cp949", "cp932", "cp1252", "ascii", "utf-8", "latin-1")


@pytest.fixture(scope="module")
def named(mall_model, tmp_path_factory):
    """The run of a mall whose products have such names, and a price that is no number."""
    count = len(mall_model.product_ids)
    rows = {**mall_model.product_rows, "product_name": [NAME] * count, "price": [float("inf")] * count}
    folder = tmp_path_factory.mktemp("named")
    save_model(replace(mall_model, product_rows=rows), folder)
    return folder


def bytes_of(encoding: str, *words: object) -> bytes:
    """What a command prints to a console of that encoding."""
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding=encoding) as console, redirect_stdout(console):
        cli.main([str(word) for word in words])
        console.flush()
        return raw.getvalue()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_recommendations_on_any_console(named, encoding):
    plain = bytes_of(encoding, "recommend", named, *KNOWN).decode(encoding)
    assert plain.count("p1") == 1
    assert ("어성초" in plain) == (encoding in ("cp949", "utf-8"))
    found = json.loads(bytes_of(encoding, "recommend", named, *KNOWN, "--json").decode(encoding))
    assert [(one["name"], one["price"]) for one in found] == [(NAME, None)] * 8


def test_a_report_shows_what_the_terminal_shows(tmp_path):
    write_page(tmp_path / "report.md", [f"a {NAME}", Grid(("", "MRR"), [[NAME, "0.1"]])])
    text = (tmp_path / "report.md").read_text("utf-8")
    assert text.count("어성초 – é ���") == 2


def test_json_is_readable_and_moves_no_cursor(named):
    said = bytes_of("utf-8", "recommend", named, *KNOWN, "--json").decode()
    assert '"어성초 – é \\u202e\\u009b\\u007f"' in said
    assert all(one.isprintable() for one in said.replace("\n", ""))


@pytest.mark.parametrize("encoding", ["cp949", "ascii"])
def test_an_evaluation_on_any_console(mall, mall_run, tmp_path, encoding):
    shutil.copytree(mall_run, tmp_path / "run")
    words = ("evaluate", mall, "--run", tmp_path / "run", "--protocol", "in-sample", "--full")
    said = bytes_of(encoding, *words).decode(encoding)
    assert "In-sample, for the purchases that it was trained on" in said
    assert (tmp_path / "run" / "in-sample" / "metrics.json").is_file()


def test_an_evaluation_is_written_before_it_is_told(mall, mall_run, tmp_path, monkeypatch):
    """Where the disk that takes what is printed is full."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(terminal.console, "print", full)
    shutil.copytree(mall_run, tmp_path / "run")
    result = run("evaluate", mall, "--run", tmp_path / "run", "--protocol", "in-sample")
    assert (result.returncode, result.stderr) == (2, "error: [Errno 28] No space left on device\n")
    assert (tmp_path / "run" / "embedding_space.png").is_file()
    for name in ("metrics.json", "report.md", "results.csv", "results_by_segment.png"):
        assert (tmp_path / "run" / "in-sample" / name).is_file()


def test_a_reader_that_goes_away_stops_nothing(monkeypatch):
    """As in `recsys-jax train shop | head -1`."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        os.close(reading)
        for _ in range(3):
            terminal.console.print("Epoch 100/500")
        monkeypatch.undo()


def test_closed_streams_lead_nowhere(monkeypatch):
    """As of `recsys-jax ... >&-`: the next file that is opened must not take the number of one of them."""
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    cli.main(["--version"])
    with sys.stdin as stdin, sys.stdout as stdout, sys.stderr as stderr:
        assert [stream.name for stream in (stdin, stdout, stderr)] == [os.devnull] * 3
    monkeypatch.undo()


WORDS = "nothing:x:here [red]brand[/red] [/] :smile: [link=file:///etc/passwd]a[/link]"


def test_names_are_no_markup_and_no_emoji(capsys):
    terminal.console.print(WORDS)
    terminal.note(WORDS)
    say(WORDS)
    recommendations.show([], WORDS)
    said = capsys.readouterr()
    assert said.out.count("nothing:x:here [red]brand[/red] [/] :smile:") == 3
    assert WORDS in said.err


@pytest.mark.parametrize(
    ("more", "but", "words"),
    [
        ({}, "", "Highest score + popularity first. × avg: how many times as likely to be bought next as the average"),
        ({"boost": 0.2}, ", so", "Highest score + popularity + boost first, so. × avg: how many times as likely to be"),
        (
            {"times_average": None, "popularity": 0.0},
            "",
            "Highest score first. percentile: how many of 100 products stand",
        ),
    ],
)
def test_a_list_says_what_orders_it(more, but, words, monkeypatch):
    """And where there is room, no name of a product is cut."""
    screen = io.StringIO()
    monkeypatch.setattr(recommendations, "console", terminal._Console(file=screen, width=80))
    names = "Bekleidung Nr. 00080", "Schläuche Nr. 00094"
    one = {"brand": "Alpencross", "category": "Bekleidung", "price": 45.87, "score": 0.5, "popularity": 0.1}
    one |= {"boost": 0.0, "times_average": 2.0, "percentile": 97.5, **more}
    recommendations.show([{**one, "name": name, "product_id": name[-5:]} for name in names], "for", but)
    assert words in screen.getvalue()
    assert max(map(len, screen.getvalue().splitlines()[:-1])) <= 80
    for name in names:
        assert name in screen.getvalue()
    assert ("the shop's rules apart" in screen.getvalue()) == ("boost" in more)


def test_names_in_a_progress_bar_are_no_markup(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(terminal, "console", terminal._Console(file=screen, force_terminal=True, width=200))
    with terminal.progress("embedding with [/b] :x:") as bar:
        bar(1, 2, "[/red] :smile:")
    assert "embedding with [/b] :x:" in screen.getvalue()
    assert "[/red] :smile:" in screen.getvalue()


def test_a_name_turns_no_line_round(capsys):
    terminal.console.print("a\u202eb\u2066c\u2069d\x9be")
    assert capsys.readouterr().out == "a�b�c�d�e\n"


@pytest.mark.parametrize(
    "value", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "＝1", "=cmd|'/C calc'!A0"]
)
def test_a_spreadsheet_is_given_no_formula(value, tmp_path):
    assert sheet_text([[value]]).strip('"\n').startswith("'")
    write_set_aside([SetAside(value, 3, "age: found -3", value)], tmp_path, quiet=True)
    _, row = (tmp_path / "set_aside.csv").read_text("utf-8").splitlines()
    assert row == sheet_text([[f"'{value}", 3, f"'{value}", "age: found -3"]]).rstrip("\n")


@pytest.mark.parametrize("value", [-0.5, "-0.500000", "+3", "a=b", "", "–", "p1"])
def test_what_is_no_formula_stays(value):
    assert sheet_text([[value]]).rstrip("\n").strip('"') == str(value)


def test_no_home_folder_costs_time_alone(monkeypatch):
    """A user whom the system does not know, as in many a container."""
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    assert cache_folder().parent == Path(os.devnull)
    terminal.keep_what_is_compiled()


@pytest.mark.parametrize("popularity", [0.0, 0.004, -0.21])
@pytest.mark.parametrize("boost", [0.0, 0.004, 0.12])
def test_what_popularity_adds_is_no_boost_of_the_shop(capsys, popularity, boost):
    """Each has a column of its own; what would be shown as nothing has none."""
    one = {"product_id": "p1", "name": "n", "brand": None, "category": None, "price": None, "score": 0.5}
    recommendations.show([{**one, "popularity": popularity, "boost": boost, "boosts": {}}], "title")
    out = capsys.readouterr().out
    for name, added in (("popularity", popularity), ("boost", boost)):
        assert (name in out, f"{added:+.2f}" in out) == (abs(added) > 0.1,) * 2
