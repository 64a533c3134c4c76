"""Progress where nobody watches a bar."""

import re
import time

import pytest

from recsys_jax.console import terminal


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(terminal, "FIRST_LINE", 0.05)


def test_the_first_line_comes_before_anything_is_done(capsys):
    with terminal.progress("reading shop"):
        time.sleep(0.5)
    out, lines = capsys.readouterr()
    assert (out, set(lines.splitlines())) == ("", {"reading shop"})


def test_lines_say_how_much_is_done_and_how_long_it_takes(capsys):
    """A tenth each 0.1 s; the lines come at 0.05, 0.15, 0.35 and 0.75 s: ever more seldom."""
    with terminal.progress("training") as bar:
        for number in range(10):
            bar(number, 10, f"fold {number + 1} of 10")
            time.sleep(0.1)
    first, *_, last = lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 4
    assert first == "training, 0 %, fold 1 of 10"
    assert re.fullmatch(r"training, [3-9]0 %, 0:00:0[01] left, fold \d+ of 10", last)


def test_what_is_over_soon_says_nothing(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "FIRST_LINE", 5.0)
    with terminal.progress("reading shop") as bar:
        bar(1, 2)
    assert capsys.readouterr() == ("", "")
