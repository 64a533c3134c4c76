"""Trains a recipe on a dataset, such as `recsys-jax train data/amoremall deep --loss infonce --seeds 32 --ensemble`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from recsys_jax import Dataset, DeepConfig, InputError, TrainedModel, WideConfig, fit, stopping
from recsys_jax.config import FORMER_FIELDS, FORMER_RECIPES, RECIPES, Config, describe, to_table, words
from recsys_jax.console import places
from recsys_jax.console.options import Common, remember
from recsys_jax.console.recommendations import example
from recsys_jax.console.reports import write_json
from recsys_jax.console.tables import Grid, figure, show
from recsys_jax.console.terminal import answer, console, note, program, progress, renamed, share_processors
from recsys_jax.errors import require
from recsys_jax.evaluation.engine import ENSEMBLE, KS, in_sample
from recsys_jax.storage.checkpoints import Checkpoints, Stopped
from recsys_jax.training.fit import fit_seeds

# The options of the wide recipe by those that they had before.
FORMER_OPTIONS = {f"--{old}".replace("_", "-"): f"--{new}".replace("_", "-") for old, new in FORMER_FIELDS.items()}


@dataclass(frozen=True)
class Standard:
    """The dataset's own recipe: what [training] in its dataset.toml says; without it, wide."""


Recipe = (
    Annotated[WideConfig, tyro.conf.subcommand("wide")]
    | Annotated[DeepConfig, tyro.conf.subcommand("deep")]
    | Annotated[Standard, tyro.conf.subcommand("standard")]
)


@dataclass(frozen=True)
class Options(Common):
    """Trains a recipe on a dataset."""

    dataset: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATASET")]] = places.MALL
    """The folder with dataset.toml."""
    recipe: Recipe = Standard()
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
    force: bool = False
    """Take over a run folder that has the files of others, or another dataset's run."""
    config: Path | None = field(default=None, kw_only=True)
    """A TOML file with these options, as a run's run.toml, or with one recipe's table, as tuned.toml; the command line
    wins."""
    examples = (
        "data/amoremall",
        "shop wide --own-l2 30",
        "shop deep --loss infonce --log-q --epochs 50 --run runs/shop-infonce",
        "shop deep --seeds 8 --ensemble",
        "--config runs/shop/run.toml --run runs/again",
    )

    @staticmethod
    def translate(arguments: Sequence[str]) -> list[str]:
        """The arguments with former names replaced, each told in a line.

        >>> Options.translate(["mall", "--run", "out"])
        ['mall', '--run', 'out']
        """
        out: list[str] = []
        recipe = ""
        left = iter(arguments)
        for word in left:
            option, equals, value = word.partition("=")  # an option's value may be the next word, or follow a sign
            if option == "--recipe":
                value = value if equals else next(left, "")
                recipe = FORMER_RECIPES.get(value, value)
                if recipe not in RECIPES:
                    raise InputError(f"recipe: found {value!r}; allowed: the word wide or deep")
                note(f"--recipe {value} is now the word {recipe}")
            else:
                out.append(renamed(word, FORMER_OPTIONS))
                if out[-1] != word:
                    recipe = recipe or "wide"  # the recipe of who named none
        named = any(
            word in RECIPES and before not in ("--run", "--customers", "--config")
            for before, word in pairwise(["", *out])
        )
        return [recipe, *out] if recipe and not named else out


def main(options: Options) -> str:
    """Trains and writes the model; of several seeds, measures them all."""
    own = places.standard(options.dataset)
    config = own if isinstance(options.recipe, Standard) else options.recipe
    run = places.run_folder(options.dataset, options.run, force=options.force)
    require(options.checkpoint_every >= 0, "checkpoint_every", options.checkpoint_every, "0 or more")
    seeds = places.seeds_from(config, options.seeds, options.ensemble)
    share_processors(config, len(seeds) - 1)
    dataset = places.open_dataset(options.dataset, run, options.customers)
    console.print(f"Training {describe(config)}, seed {config.seed}")
    checkpoints = Checkpoints(run, options.resume, options.checkpoint_every, stopping.asked, console.print)
    several = ("--seeds", options.seeds, *["--ensemble"] * options.ensemble) if len(seeds) > 1 else ()
    found = places.again(options.dataset, run, options.customers)
    every = ("--checkpoint-every", checkpoints.every) if checkpoints.every != Options.checkpoint_every else ()
    onward = places.following("train", *found, "--resume", *several, *every, *words(config))
    with places.alone(run):
        with stopping.saying(lambda: _saved(checkpoints, onward), saves=True):
            try:
                model = _fit(dataset, config, checkpoints)
            except Stopped:
                stopping.end()
        places.write_model(model, run, options.dataset)
        remember("train", replace(options, recipe=config, run=run), run)
        checkpoints.remove()
        places.write_set_aside(dataset.set_aside, run)
        if len(seeds) > 1:
            _measure(model, dataset, seeds, run, options.ensemble)
    customers = len(dataset.customer_ids)
    if customers < 2:  # of one, nothing can be held out
        return example(run, dataset)
    folds = ("--folds", customers) if customers < 5 else ()
    return places.following("evaluate", *found, *folds, *several)


def _saved(checkpoints: Checkpoints, onward: str) -> str:
    """What a stopped training says, also within `run`, with the command that goes on; empty where nothing is saved."""
    where = f"in {checkpoints.folder}; this goes on: {program()} {onward}"
    return f"saved after {checkpoints.saved} {where}" if checkpoints.saved else ""


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
    losses = [float(loss) for loss in model.losses]
    answer["training"] = {"recipe": to_table(config), "chosen": dict(model.chosen), "losses": losses}
    if model.chosen:
        chosen = ", ".join(f"{name} {value:g}" for name, value in model.chosen.items())
        console.print(f"Fitted in {len(model.losses)} steps; {chosen}")
    return model


def _measure(model: TrainedModel, dataset: Dataset, seeds: Sequence[int], run: Path, ensemble: bool) -> None:
    """Trains the other seeds, and shows and writes what all of them reach in-sample."""
    # The first was trained alone: trained with the others it would round differently, and be another file.
    others = seeds[1:]
    console.print(f"Training seeds {others[0]} to {others[-1]}" if len(others) > 1 else f"Training seed {others[0]}")
    with progress("training all (compiling first)") as bar:
        models = [model, *fit_seeds(dataset, model.config, others, progress=bar)]
    result = in_sample(models, dataset, KS, ensemble=ensemble)
    figures = {"loss": np.array([one.losses[-1] for one in models], np.float64)}
    figures |= {metric: result.each(metric) for metric in result.metrics}
    means = {metric: result.mean(ENSEMBLE, metric) for metric in result.metrics} if ensemble else {}
    rows = []
    for name, values in figures.items():
        shown = [values.mean(), values.std(ddof=1), values.min(), values.max()]
        shown += [means[name]] if name in means else []
        rows.append([name, *(figure(one, 3) for one in shown)])
    headers = ("", "mean", "standard\ndeviation", "least", "most", *["ensemble"] * ensemble)
    document: dict[str, object] = {
        "protocol": result.protocol,
        "seeds": {
            str(seed): {name: float(values[i]) for name, values in figures.items()}
            for i, seed in enumerate(result.seeds)
        },
        "mean": {name: float(values.mean()) for name, values in figures.items()},
        "standard deviation": {name: float(values.std(ddof=1)) for name, values in figures.items()},
    }
    if ensemble:
        document["ensemble"] = means
    write_json(run / "seeds.json", document)
    answer["seeds"] = document
    title = f"# {result.protocol}: {len(models)} seeds"
    show([title, Grid(headers, rows), "In-sample: asked for what they were trained on. This is memory, not foresight."])
    console.print(f"Written to {run}: seeds.json")
