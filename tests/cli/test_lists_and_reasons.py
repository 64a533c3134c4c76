"""Lists by rules and reasons, as the commands give them: those of Python."""

import csv
import json

import pytest
from command_line import run

from recsys_jax import Recommender

DRY = {"age": "32", "gender": "F", "skin_type": "dry", "skin_concern": "moisture"}
WORDS = [f"{name}={value}" for name, value in DRY.items()]
RULES = {"diversity": 0.4, "at_most": {"brand": 1, "category": 2}, "pinned": ["p6", "p1"]}
OPTIONS = ["--diversity", 0.4, "--at-most", "brand=1", "category=2", "--pinned", "p6", "p1"]


def test_recommend_gives_what_python_gives(served_run, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    expected = Recommender.load(served_run).recommend(**DRY, top_n=4, standing=True, explain=True, **RULES)
    assert len({one["brand"] for one in expected}) == len(expected)
    asked = ["recommend", served_run, *WORDS, "--top-n", 4, *OPTIONS, "--explain"]
    assert json.loads(run(*asked, "--json").stdout) == expected
    printed = run(*asked, "--csv", tmp_path / "list.csv").stdout
    told = " ".join(printed.split())
    for place, one in enumerate(expected, 1):
        assert f" {place} {one['above_average']:+.2f} {one['unit']} above average. {one['because']}" in told
    rows = list(csv.DictReader((tmp_path / "list.csv").read_text("utf-8-sig").splitlines()))
    assert [row["because"] for row in rows] == [one["because"] for one in expected]
    assert "because" not in run(*asked[:-1], "--json").stdout


def test_score_gives_what_python_gives(served_run, tmp_path):
    """And what was scored by other rules is another job."""
    people = [DRY, DRY | {"age": "60", "skin_type": "oily"}]
    source, out = tmp_path / "people.csv", tmp_path / "out.csv"
    source.write_text("\n".join([",".join(DRY), *(",".join(one.values()) for one in people)]), encoding="utf-8")
    rec = Recommender.load(served_run)
    for options, rules in ((OPTIONS, RULES), ([], {})):
        found = run("score", source, out, "--run", served_run, "--top-n", 4, *options)
        assert found.returncode == 0, found.stderr
        lists: dict[str, list[str]] = {}
        for row in csv.DictReader(out.read_text("utf-8-sig").splitlines()):
            lists.setdefault(row["row"], []).append(row["product_id"])
        expected = rec.recommend_batch(people, top_n=4, **rules)
        assert [*lists.values()] == [[one["product_id"] for one in own] for own in expected]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--at-most", "brand"], ["at_most", "brand", "NAME=NUMBER"]),
        (["--at-most", "brand=two"], ["at_most", "brand=two", "NAME=NUMBER"]),
        (["--at-most", "brand=1", "brand=2"], ["at_most", "brand=2", "each column once"]),
        (["--at-most", "colour=1"], ["at_most", "colour", "brand"]),
        (["--diversity", "2"], ["diversity", "2", "from 0 to 1"]),
        (["--pinned", "p77"], ["pinned", "p77"]),
    ],
)
def test_what_is_no_rule_is_a_sentence(served_run, tmp_path, options, words):
    (tmp_path / "people.csv").write_text("\n".join([",".join(DRY), ",".join(DRY.values())]), encoding="utf-8")
    for command in (
        ["recommend", served_run, *WORDS],
        ["score", tmp_path / "people.csv", tmp_path / "out.csv", "--run", served_run],
    ):
        found = run(*command, *options)
        assert found.returncode == 2
        for word in words:
            assert word in found.stderr
    assert not (tmp_path / "out.csv").exists()
