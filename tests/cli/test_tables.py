"""What is printed fits into its lines."""

import re
from pathlib import Path

import pytest

from recsys_jax.console.tables import beside, say, say_notes
from recsys_jax.console.terminal import console
from recsys_jax.evaluation.bootstrap import Interval

LONG = "shop/customers.csv: 3 of 60 rows set aside and not used; the first, row 3, age: found -3; allowed: a number"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_note_is_told_whole(terminal, capsys, monkeypatch):
    monkeypatch.setattr(console, "_force_terminal", terminal)
    for notes in ([LONG], [LONG, "another"], ["short", "another"], []):
        say_notes(notes, Path("shop"))
        lines = capsys.readouterr().out.splitlines()
        more = " (and 1 more in report.md)" * (len(notes) > 1)
        assert " ".join(lines) == "".join(f"note: {one}{more}" for one in notes[:1]).replace("shop/", "")
        assert all(len(line) < 80 for line in lines) if terminal else len(lines) == bool(notes)


def test_a_sentence_is_told_whole(capsys):
    say("word " * 100)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) < 80
    assert " ".join(lines).split() == ["word"] * 100


@pytest.mark.parametrize("ours", ["model", "a recipe whose name fills a line, or nearly so, by itself"])
@pytest.mark.parametrize("baseline", ["naive Bayes", "logistic regression", "popularity per skin type and concern"])
def test_methods_with_long_names_fit_beside_each_other(ours, baseline, capsys):
    mrr = dict.fromkeys([ours, baseline, "random"], Interval(0.125, 0.1, 0.15, 50))
    beside(ours, baseline, mrr, lambda method, other: Interval(-0.01, -0.02, 0.01, 50))
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith(f"  {ours[:20]}")
    assert re.match(rf"  {baseline[:20]}.* \(best\) +MRR 0.1250 \(0.1000 to 0.1500\)  inside the noise$", second)
    assert third.startswith("  chance  ")
    assert max(map(len, (first, second, third))) <= 80
    beside(ours, baseline, mrr, lambda method, other: Interval(0.02, 0.01, 0.03, 50))
    first, *others = capsys.readouterr().out.splitlines()
    assert all(line.endswith("better than model" if ours == "model" else "better than it") for line in others)
    assert max(map(len, (first, *others))) <= 80
