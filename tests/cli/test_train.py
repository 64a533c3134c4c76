"""The options of training: the fields of the recipe, in any order, and former names."""

import json
import math
from dataclasses import fields
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
from command_line import done, run, told

from recsys_jax import DeepConfig, InputError, WideConfig
from recsys_jax.cli import find, train
from recsys_jax.config import RECIPES, words
from recsys_jax.console.options import parse
from recsys_jax.console.places import MALL


def options(*arguments):
    return parse(*find(["train", *map(str, arguments)]))


@pytest.mark.parametrize("order", ["mall wide --own-l2 30", "wide mall --own-l2 30", "wide --own-l2 30 mall"])
def test_dataset_and_recipe_come_in_any_order(order):
    found = options(*order.split())
    assert (str(found.dataset), found.recipe) == ("mall", WideConfig(own_l2=30.0))


def test_without_a_dataset_the_mall_is_trained():
    assert options("wide", "--own-l2", 30) == train.Options(MALL, WideConfig(own_l2=30.0))
    assert options() == train.Options(MALL, train.Standard())


def test_options_of_the_command_stand_before_and_after_the_recipe():
    before = options("mall", "--run", "wide", "--seeds", 2, "deep", "--epochs", 3)
    after = options("mall", "deep", "--epochs", 3, "--seeds", 2, "--run", "wide")
    assert before == after
    assert (str(after.run), after.seeds, after.recipe) == ("wide", 2, DeepConfig(epochs=3))


def another(hint, value):
    """A value of the field that is not its default."""
    if get_origin(hint) is Literal:
        return next(choice for choice in get_args(hint) if choice != value)
    return not value if hint is bool else 3 if hint is int else 0.5


# What a field of the deep recipe asks of others.
WITH = {
    "temperature": {"loss": "infonce"},
    "log_q": {"loss": "infonce"},
    "popularity_bias": {"loss": "softmax"},
}


@pytest.mark.parametrize(
    ("recipe", "field"), [(recipe, field.name) for recipe, kind in RECIPES.items() for field in fields(kind)]
)
def test_every_field_is_an_option(recipe, field):
    kind = RECIPES[recipe]
    value = another(get_type_hints(kind)[field], getattr(kind(), field))
    config = kind(**{**WITH.get(field, {}), field: value})
    assert getattr(config, field) == value != getattr(kind(), field)
    assert options("mall", *words(config)).recipe == config


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_field_of_another_recipe_is_an_option(recipe):
    own = {field.name for field in fields(RECIPES[recipe])}
    others = {field.name for kind in RECIPES.values() for field in fields(kind)} - own
    assert others
    for name in others:
        for recipes in ([recipe], []):
            with pytest.raises(InputError, match=f"--{name.replace('_', '-')} belongs to "):
                options("mall", *recipes, f"--{name.replace('_', '-')}", 3)


def test_a_value_that_the_field_does_not_admit(capsys):
    with pytest.raises(SystemExit) as stop:
        options("mall", "wide", "--own-l2", 0)
    assert stop.value.code == 2
    assert "own_l2: found 0.0; allowed: above 0, or inf" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("former", "now", "said"),
    [
        ("mall --recipe towers --epochs 3", "mall deep --epochs 3", ["--recipe towers is now the word deep"]),
        ("--recipe=linear mall", "mall wide", ["--recipe linear is now the word wide"]),
        ("mall --recipe deep", "mall deep", ["--recipe deep is now the word deep"]),
        ("mall --own-penalty 3", "mall wide --own-l2 3", ["--own-penalty is now called --own-l2"]),
        ("mall wide --own_penalty=3", "mall wide --own-l2 3", ["--own_penalty is now called --own-l2"]),
        ("mall --run wide --own-penalty 3", "mall wide --run wide --own-l2 3", ["--own-penalty is now called"]),
        ("mall --resume wide --own-penalty 3", "mall wide --resume --own-l2 3", ["--own-penalty is now called"]),
        ("mall --tastes 4", "mall wide --item-factors 4", ["--tastes is now called --item-factors"]),
        (
            "mall --recipe linear --attribute-penalty inf --taste-penalty=inf",
            "mall wide --attribute-l2 inf --factor-l2 inf",
            ["--recipe linear is", "--attribute-penalty is now", "--taste-penalty is now called --factor-l2"],
        ),
    ],
)
def test_former_names_are_understood_and_told_in_a_line(former, now, said, capsys):
    assert options(*former.split()) == options(*now.split())
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(said)
    for line, sentence in zip(lines, said, strict=True):
        assert line.startswith(f"note: {sentence}")


def test_mistakes_are_told_before_the_work(mall, tmp_path):
    wide = ("train", mall, "wide")
    told(run(*wide, "--seeds", 2), "seeds: found 2; allowed: one with the recipe wide, which has one best fit")
    told(run("train", mall, "deep", "--seeds", 0), "seeds: found 0; allowed: 1 or more")
    told(run("train", mall, "deep", "--ensemble"), "ensemble: found one seed; allowed: with 2 seeds or more")
    told(run(*wide, "--checkpoint-every", -1), "checkpoint_every: found -1; allowed: 0 or more")
    told(run("train", mall, "--recipe", "tower"), "recipe: found 'tower'; allowed: the word wide or deep")
    for command in ("train", "evaluate", "compare", "personas"):
        told(run(command, cwd=tmp_path), "dataset: found none, and no data/amoremall here; allowed: a folder with")
    assert not (tmp_path / "runs").exists()


def test_the_dataset_says_what_is_trained_where_nobody_does(mall, tmp_path):
    """And a recipe that is named begins with its own defaults."""
    with (mall / "dataset.toml").open("a") as file:
        file.write('\n[training]\nrecipe = "deep"\nepochs = 3\nbatch_size = 4\n')
    said = done("train", mall, cwd=tmp_path).stdout
    assert "Training deep (epochs 3, batch_size 4), seed 0" in said
    assert "Epoch 3/3 | Loss: " in said
    assert options(mall, "deep").recipe == DeepConfig()


def test_a_file_says_what_is_trained(mall, tmp_path):
    """Instead of the recipe of the dataset; a recipe that is named with options differs in these."""
    (tmp_path / "wide").write_text('[training]\nrecipe = "deep"\nepochs = 2\nbatch_size = 4\nseed = 3\n', "utf-8")
    said = done("train", mall, "--config", "wide", cwd=tmp_path).stdout
    assert "Training deep (epochs 2, batch_size 4), seed 3" in said
    said = done("train", mall, "deep", "--epochs", 3, "--config", "wide", cwd=tmp_path).stdout
    assert "Training deep (epochs 3, batch_size 4), seed 3" in said
    told(run("train", mall, "--config", "absent.toml", cwd=tmp_path), "absent.toml: there is no such file")


def test_a_line_for_each_hundred_epochs(mall, tmp_path):
    said = done("train", mall, "deep", "--epochs", 250, "--checkpoint-every", 30, cwd=tmp_path).stdout
    losses = (tmp_path / "runs" / "mall" / "loss.csv").read_text().splitlines()
    expected = [f"Epoch {n}/250 | Loss: {float(losses[n].split(',')[1]):.4f}" for n in (100, 200, 250)]
    assert [line for line in said.splitlines() if line.startswith("Epoch ")] == expected


def test_seeds_are_trained_and_measured_together(mall, tmp_path):
    deep = ("train", mall, "deep", "--epochs", 3, "--batch-size", 4)
    said = done(*deep, "--seeds", 3, "--ensemble", cwd=tmp_path)
    assert said.next() == ["evaluate", str(mall), "--seeds", "3", "--ensemble"]
    document = json.loads((tmp_path / "runs" / "mall" / "seeds.json").read_text())
    assert list(document["seeds"]) == ["0", "1", "2"]
    assert math.isfinite(document["ensemble"]["hit@3"])
