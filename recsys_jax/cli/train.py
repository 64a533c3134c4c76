"""Trains a recipe on a dataset.

Examples: recsys-jax train data/amoremall
          recsys-jax train data/amoremall wide --own-l2 30
          recsys-jax train data/amoremall deep --loss infonce --seeds 32 --ensemble
"""

import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_type_hints

import numpy as np
import tyro
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from recsys_jax import Dataset, DeepConfig, InputError, TrainedModel, WideConfig, fit
from recsys_jax.config import FORMER_RECIPES, RECIPES, Config, describe
from recsys_jax.console.places import (
    MALL,
    again,
    following,
    open_dataset,
    run_folder,
    write_model,
    write_set_aside,
)
from recsys_jax.console.recipes import FORMER_OPTIONS, seeds_from, standard
from recsys_jax.console.recommendations import example
from recsys_jax.console.terminal import console, note, progress, share_processors
from recsys_jax.data.files import write_file
from recsys_jax.evaluation.engine import KS, Evaluation, in_sample
from recsys_jax.storage.checkpoints import Checkpoints, Stopped
from recsys_jax.training.fit import fit_seeds


@dataclass(frozen=True)
class Standard:
    """The dataset's own recipe: what [training] in its dataset.toml says; without it, wide."""


Recipe = (
    Annotated[WideConfig, tyro.conf.subcommand("wide")]
    | Annotated[DeepConfig, tyro.conf.subcommand("deep")]
    | Annotated[Standard, tyro.conf.subcommand("standard")]
)


def translate(arguments: Sequence[str]) -> list[str]:
    """The arguments with former names replaced, each told in a line.

    >>> translate(["mall", "--run", "out"])
    ['mall', '--run', 'out']
    """
    out: list[str] = []
    recipe, before = "", ""
    named = False
    words = iter(arguments)
    for word in words:
        option, equals, value = word.partition("=")  # an option's value may be the next word, or follow a sign
        name = option.removeprefix("--").replace("_", "-")
        if option == "--recipe" and (value := value if equals else next(words, "")) in (*FORMER_RECIPES, *RECIPES):
            recipe = FORMER_RECIPES.get(value, value)
            note(f"--recipe {value} is now the word {recipe}")
        elif option == "--recipe":
            raise InputError(f"recipe: found {value!r}; allowed: the word wide or deep")
        elif option.startswith("--") and name in FORMER_OPTIONS:
            word = f"--{FORMER_OPTIONS[name]}{equals}{value}"
            out.append(word)
            note(f"{option} is now called --{FORMER_OPTIONS[name]}, an option of wide")
            recipe = recipe or "wide"  # the recipe of who named none
        else:
            out.append(word)
            named = named or (word in RECIPES and not _takes_a_value(before))
        before = word
    return [recipe, *out] if recipe and not named else out


def _takes_a_value(word: str) -> bool:
    """Whether the word after this one is an option's value."""
    name = word.removeprefix("--").removeprefix("no-").replace("-", "_")
    flags = {
        name for kind in (Options, *RECIPES.values()) for name, hint in get_type_hints(kind).items() if hint is bool
    }
    return word.startswith("--") and "=" not in word and name not in flags


@dataclass(frozen=True)
class Options:
    """Trains a recipe on a dataset."""

    dataset: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATASET")]] = MALL
    """The folder with dataset.toml."""
    config: Recipe = Standard()
    """The recipe; its options follow it."""
    run: Path | None = None
    """The folder that the model is written to; by default runs/NAME with the dataset's name."""
    customers: Path | None = None
    """Another customer file than the dataset's, or than the one that `recsys-jax personas` made."""
    seeds: int = 1
    """Models to train, with this seed and the next ones: the first is written, all are measured (deep; seeds.json)."""
    resume: bool = False
    """Go on from the checkpoint of a training that was killed, to the same bytes as if it had not been."""
    checkpoint_every: int = 100
    """Epochs from one checkpoint in the run folder to the next; 0: none but when stopped (deep)."""
    ensemble: bool = False
    """Measure the mean of all these models' scores, too."""

    translate = staticmethod(translate)


def main(options: Options) -> str:
    """Trains and writes the model."""
    own = standard(options.dataset)
    config = own if isinstance(options.config, Standard) else options.config
    run = run_folder(options.dataset, options.run)
    if options.checkpoint_every < 0:
        raise InputError(f"checkpoint_every: found {options.checkpoint_every}; allowed: 0 or more")
    seeds = seeds_from(config, options.seeds, options.ensemble)
    share_processors(config, len(seeds) - 1)
    dataset = open_dataset(options.dataset, run, options.customers)
    console.print(f"Training {describe(config)}, seed {config.seed}")
    checkpoints = Checkpoints(run, options.resume, options.checkpoint_every, tell=console.print)
    with saved_when_stopped(checkpoints):
        model = _fit(dataset, config, checkpoints)
    write_model(model, run)
    checkpoints.remove()
    write_set_aside(dataset.set_aside, run)
    then = _then(dataset, run, again(options.dataset, run, options.customers))
    if len(seeds) == 1:
        return then
    # The first was trained alone: trained with the others it would round differently, and be another file.
    models = [model, *_train_together(dataset, config, seeds[1:])]
    result = in_sample(models, dataset, KS, ensemble=options.ensemble)
    losses = np.array([one.losses[-1] for one in models], np.float64)
    _show(result, losses)
    write_file(run / "seeds.json", json.dumps(_document(result, losses), indent=1) + "\n")
    console.print(f"Written to {run}: seeds.json")
    several = ("--seeds", options.seeds, *["--ensemble"] * options.ensemble)
    return then if then.startswith("recommend") else f"{then} {following('', *several)}"


def _then(dataset: Dataset, run: Path, words: Sequence[object]) -> str:
    """How to evaluate: in fewer folds than five where customers are fewer; of one, nothing can be held out."""
    customers = len(dataset.customer_ids)
    if customers < 2:
        return example(run, dataset)
    return following("evaluate", *words, *(("--folds", customers) if customers < 5 else ()))


@contextmanager
def saved_when_stopped(checkpoints: Checkpoints) -> Iterator[None]:
    """Ctrl-C and SIGTERM wait for the next checkpoint, then end with a sentence; a second one ends all at once."""
    signals: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, _: object) -> None:
        signals.append(number)
        for one, handler in before.items():
            signal.signal(one, handler)

    checkpoints.stop = lambda: bool(signals)
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    except Stopped as stopped:
        console.print(
            f"Stopped after {stopped} and saved in {checkpoints.folder}: the same command with --resume goes on"
        )
        sys.exit(128 + signals[0])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fit(dataset: Dataset, config: Config, checkpoints: Checkpoints) -> TrainedModel:
    with progress("training (compiling first)") as bar:
        told = 0

        def update(done: int, total: int, word: str) -> None:
            nonlocal told
            bar(done, total, word)
            if config.seeded and (done // 100 > told or done == total):
                told = done // 100
                console.print(f"Epoch {done}/{total} | {word.capitalize().replace(' ', ': ', 1)}")

        model = fit(dataset, config, progress=update, checkpoints=checkpoints)
    if model.chosen:
        chosen = ", ".join(f"{name} {value:g}" for name, value in model.chosen.items())
        console.print(f"Fitted in {len(model.losses)} steps; {chosen}")
    return model


def _train_together(dataset: Dataset, config: Config, seeds: Sequence[int]) -> list[TrainedModel]:
    console.print(f"Training seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"Training seed {seeds[0]}")
    with progress("training all (compiling first)") as bar:
        return fit_seeds(dataset, config, seeds, progress=bar)


def _figures(result: Evaluation, losses: np.ndarray) -> dict[str, np.ndarray]:
    """By name, the figure of each seed's model."""
    return {"loss": losses, **{metric: result.each(metric) for metric in result.metrics}}


def _show(result: Evaluation, losses: np.ndarray) -> None:
    title = Text(result.protocol, "bold").append(f": {len(losses)} seeds", "default not bold")
    table = Table(title=title, title_justify="left", title_style="", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("")
    together = result.values.get("ensemble", {})
    for name in ("mean", "standard\ndeviation", "least", "most", *(["ensemble"] if together else [])):
        table.add_column(name, justify="right", vertical="bottom")
    for name, values in _figures(result, losses).items():
        figures = [values.mean(), values.std(ddof=1), values.min(), values.max()]
        figures += [result.mean("ensemble", name)] if name in together else []
        table.add_row(name, *(f"{figure:.3f}" for figure in figures))
    console.print(table)
    console.print("In-sample: asked for what they were trained on. This is memory, not foresight.")


def _document(result: Evaluation, losses: np.ndarray) -> dict[str, object]:
    """What seeds.json holds."""
    figures = _figures(result, losses)
    document: dict[str, object] = {
        "protocol": result.protocol,
        "seeds": {
            str(seed): {name: float(values[i]) for name, values in figures.items()}
            for i, seed in enumerate(result.seeds)
        },
        "mean": {name: float(values.mean()) for name, values in figures.items()},
        "standard deviation": {name: float(values.std(ddof=1)) for name, values in figures.items()},
    }
    if "ensemble" in result.values:
        document["ensemble"] = {metric: result.mean("ensemble", metric) for metric in result.metrics}
    return document
