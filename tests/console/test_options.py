"""Options in a file, options written down, and what every command takes."""

import tomllib
from pathlib import Path
from typing import get_type_hints

import pytest
from command_line import run, told

from recsys_jax import DeepConfig, InputError, WideConfig
from recsys_jax.cli import COMMANDS, evaluate, find, train
from recsys_jax.cli import run as main_job
from recsys_jax.console.options import FILE, Common, last_language, parse, remember


def options_of(name, *arguments):
    main, command, words = find([*name.split(), *map(str, arguments)])
    return parse(main, command, words)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_a_file_prints_json_and_shows_examples(name, capsys):
    main, command, _ = find(name.split())
    options = get_type_hints(main)["options"]
    assert issubclass(options, Common)
    assert options.examples
    with pytest.raises(SystemExit) as ended:
        parse(main, command, ["--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert "--config" in said
    assert "--json" in said
    assert said.splitlines()[-len(options.examples) - 1] == "examples:"


@pytest.mark.parametrize(
    "options",
    [
        train.Options(Path("my shop"), DeepConfig(loss="infonce", log_q=True, seed=7), seeds=3, ensemble=True),
        train.Options(Path("shop"), WideConfig(own_l2=float("inf"), item_factors=4), Path("runs/x"), Path("c.csv")),
        train.Options(Path("shop")),
    ],
)
def test_what_is_written_down_is_what_is_read(options, tmp_path):
    remember("train", options, tmp_path)
    again = options_of("train", "--config", tmp_path / FILE)
    recipe = options.recipe
    assert again.recipe == recipe
    assert {name: value for name, value in vars(again).items() if name != "config"} == {
        name: value for name, value in vars(options).items() if name != "config"
    }


def test_each_command_has_its_own_table(tmp_path):
    remember("evaluate", evaluate.Options(Path("shop"), k=(1, 5), protocol="time"), tmp_path)
    remember("train", train.Options(Path("shop"), seeds=2), tmp_path)
    remember("evaluate", evaluate.Options(Path("shop"), k=(3,), force=True), tmp_path)
    found = tomllib.loads((tmp_path / FILE).read_text("utf-8"))
    assert [*found] == ["train", "evaluate"]  # the latest last
    assert (found["evaluate"]["k"], found["train"]["seeds"]) == ([3], 2)
    assert "force" not in found["evaluate"]  # it was meant for that once
    read = options_of("evaluate", "--config", tmp_path / FILE)
    assert (read.dataset, read.k, read.protocol, read.force) == (Path("shop"), (3,), "cross-validation", False)


def test_the_language_asked_for_last_is_kept(tmp_path):
    assert last_language(tmp_path) == "en"
    for command, options in (("run", main_job.Options), ("evaluate", evaluate.Options), ("run", main_job.Options)):
        for language in ("ko", "en", "ko"):
            remember(command, options(Path("shop"), language=language), tmp_path)
            remember("train", train.Options(Path("shop")), tmp_path)
            assert last_language(tmp_path) == language
    (tmp_path / FILE).write_text('[run]\nlanguage = "fr"\n[evaluate]\nlanguage = 3\n')
    assert last_language(tmp_path) == "en"


def test_the_command_line_wins(tmp_path):
    (tmp_path / "my.toml").write_text(
        '[train]\ndataset = "shop"\ncheckpoint-every = 7\n[train.recipe]\nrecipe = "deep"\nepochs = 5\nseed = 3\n'
    )
    config = ("--config", tmp_path / "my.toml")
    assert options_of("train", *config).recipe == DeepConfig(epochs=5, seed=3)
    read = options_of("train", "other", "deep", "--epochs", 9, *config)
    assert (read.dataset, read.checkpoint_every) == (Path("other"), 7)
    assert read.recipe == DeepConfig(epochs=9, seed=3)
    assert options_of("train", "wide", *config).recipe == WideConfig()
    assert options_of("train", f"--config={tmp_path / 'my.toml'}", "--checkpoint-every", 8).checkpoint_every == 8


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[evaluate]\nfolds = '5'\n", r"my.toml, \[evaluate\]: folds: found '5'; allowed: a whole number"),
        ("[evaluate]\nfolds = true\n", r"folds: found True; allowed: a whole number"),
        ("[evaluate]\nk = [1, 'a']\n", r"k: found \[1, 'a'\]; allowed: a list of which each is a whole number"),
        ("[evaluate]\nprotocol = 'tmie'\n", r"protocol: found 'tmie'; allowed: 'in-sample', 'cross-validation'"),
        ("[evaluate]\nrun = 3\n", r"run: found 3; allowed: a path"),
        ("[evaluate]\nfull = 1\n", r"full: found 1; allowed: true or false"),
        ("[evaluate]\nfods = 5\n", r"my.toml, \[evaluate\]: found the option 'fods'; allowed: .*'folds'"),
        ("[evaluate]\nconfig = 'a.toml'\n", r"found the option 'config'"),
        ("[train]\nseeds = 5\n", r"my.toml: \[evaluate\]: found nothing; allowed: a table with this command's options"),
        ("evaluate = 5\n", r"my.toml: \[evaluate\]: found 5; allowed: a table"),
        ("[evaluate\n", r"my.toml: not readable as TOML"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_sentence(text, sentence, tmp_path):
    (tmp_path / "my.toml").write_text(text)
    with pytest.raises(InputError, match=sentence):
        options_of("evaluate", "--config", tmp_path / "my.toml")


def test_required_words_may_stand_in_the_file(tmp_path):
    (tmp_path / "my.toml").write_text(
        "[score]\ncustomers = 'c.csv'\nout = 'o.csv'\ndiversity = 1\nat_most = ['brand=1']\n"
    )
    read = options_of("score", "--config", tmp_path / "my.toml")
    assert (read.customers, read.out, read.diversity, read.at_most) == (Path("c.csv"), Path("o.csv"), 1.0, ("brand=1",))
    (tmp_path / "my.toml").write_text("[score]\ncustomers = 'c.csv'\n")
    with pytest.raises(InputError, match="score: found no OUT"):
        options_of("score", "--config", tmp_path / "my.toml")


def test_a_damaged_file_of_a_run_is_written_anew(tmp_path):
    (tmp_path / FILE).write_text("[train")
    remember("train", train.Options(Path("shop")), tmp_path)
    assert [*tomllib.loads((tmp_path / FILE).read_text("utf-8"))] == ["train"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["recommend", "x", "--top-n", "세개"], "recommend: --top-n: found '세개'; allowed: a whole number"),
        (["train", "x", "deep", "--epochs", "1e3"], "train: --epochs: found '1e3'; allowed: a whole number"),
        (["run", "--k=many"], "run: --k: found 'many'; allowed: a whole number or 'auto'"),
        (["recommend", "x", "--top-n"], "recommend: --top-n: found nothing; allowed: a whole number"),
    ],
)
def test_a_value_that_an_option_does_not_take_is_told_in_a_sentence(words, sentence):
    told(run(*words), sentence)
