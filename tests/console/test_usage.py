"""What --help shows, and what is said of what was typed wrong."""

import re
from pathlib import Path

import pytest
from command_line import run, told

from recsys_jax.cli import COMMANDS, find
from recsys_jax.console.options import parse


def options_of(line):
    return parse(*find(line.split()))


@pytest.mark.parametrize("name", [*COMMANDS, "train deep", "train wide"])
def test_help_reads_as_a_person_writes(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    result = run(*name.split(), "--help")
    assert result.returncode == 0
    for raw in ("{None}", "[[", "--no-", "(default: )", "(default: None)", "(default: False)", "STR", "FLOAT"):
        assert raw not in result.stdout
    assert re.search(r"--config PATH +A TOML file with", re.sub(r"[│\s]+", " ", result.stdout))
    assert re.search(r"--json  ", result.stdout)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("evaluate", "--k INT ... The lengths of the recommended lists that are measured. (default: 3 10)"),
        ("evaluate", "--full Print all tables and findings, which report.md has in any case. --force"),
        ("run", "--k INT|auto The number of personas"),
        ("init", "TABLE ... Tables (CSV, JSON, Parquet)"),
        ("recommend", "RUN The folder with the trained model. (required) NAME=VALUE ... What is known"),
        ("score", "Rows that cannot be used go to another beside it, with the reason. (required)"),  # of two lines
        ("compare", "--peers {lightfm,rectools} ... Other recommenders to ask"),
        ("train wide", "--own-l2 NUMBER L2 penalty on the product's own weights. --attribute-l2"),
    ],
)
def test_an_option_is_shown_as_it_is_typed(name, shown, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert shown in re.sub(r"[│╭╰─╮╯\s]+", " ", run(*name.split(), "--help").stdout)


def test_the_negative_of_a_flag_undoes_what_a_file_sets(tmp_path):
    (tmp_path / "my.toml").write_text("[evaluate]\nfull = true\n")
    assert options_of(f"evaluate --config {tmp_path / 'my.toml'}").full
    assert not options_of(f"evaluate --config {tmp_path / 'my.toml'} --no-full").full


SCORE = "recsys-jax score CUSTOMERS OUT"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("score", f"score: found no CUSTOMERS and no OUT; allowed: {SCORE}, such as recsys-jax score customers"),
        ("score a.csv --top-n 3", f"score: found no OUT; allowed: {SCORE}, such as"),
        ("recommend", "recommend: found no RUN; allowed: recsys-jax recommend RUN NAME=VALUE ..., such as"),
        ("serve", "such as recsys-jax serve runs/amoremall; recsys-jax serve --help says what each is"),
        ("score a.csv b.csv c.csv", f"score: found 'c.csv'; allowed: {SCORE}"),
        ("evaluate shop --full yes", "evaluate: found 'yes'; allowed: recsys-jax evaluate DATASET"),
        ("train shop deep wide", "train: found 'wide'; allowed: recsys-jax train DATASET RECIPE"),
        ("train shop deep more", "train: found 'more'; allowed: recsys-jax train DATASET RECIPE"),
        ("evaluate --full=yes", "evaluate: --full: found 'yes'; allowed: the option alone"),
        ("evaluate --k 5 x", "evaluate: --k: found 'x'; allowed: a whole number, and more after spaces"),
        ("evaluate --k=5,10", "evaluate: --k: found '5,10'; allowed: a whole number, and more after spaces"),
        ("evaluate --k", "evaluate: --k: found nothing; allowed: a whole number"),
        (
            "compare --peers lightfm rectols",
            "found 'rectols'; allowed: 'lightfm', 'rectools'; did you mean 'rectools'?",
        ),
        ("evaluate --run", "evaluate: --run: found nothing; allowed: a path"),
        ("evaluate --config", "evaluate: --config: found nothing; allowed: a path"),
        ("recommend r -xrun", "recommend: found the option '-xrun'; allowed: what recommend --help lists"),
    ],
)
def test_what_is_typed_wrong_is_a_sentence(line, sentence):
    told(run(*line.split()), sentence)


def test_words_are_read_wherever_they_stand():
    found = options_of("recommend r age=32 --top-n 5 gender=F")
    assert (found.run, found.attributes, found.top_n) == (Path("r"), ("age=32", "gender=F"), 5)
    found = options_of("score --run=r --categories Tea Coffee in.csv out.csv")  # a list leaves what must be said
    assert (found.categories, found.customers, found.out) == (("Tea", "Coffee"), Path("in.csv"), Path("out.csv"))
    assert options_of("recommend --purchased 1 2 -- r -x=1").attributes == ("-x=1",)
    assert options_of("evaluate --k=5 6 --run=-x").k == (5, 6)
    assert options_of("recommend r --purchased").purchased == ()
