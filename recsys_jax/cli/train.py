"""Trains the two towers on a dataset.

Examples: python scripts/train.py data/amoremall
          python scripts/train.py data/amoremall --recipe towers
          python scripts/train.py data/amoremall --recipe towers --seeds 32 --ensemble
"""

import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from recsys_jax import Dataset, DeepConfig, InputError, TrainedModel, WideConfig, fit
from recsys_jax.config import Config
from recsys_jax.console.terminal import (
    again,
    console,
    following,
    open_dataset,
    progress,
    run_folder,
    share_processors,
    write_model,
    write_set_aside,
)
from recsys_jax.data.files import write_file
from recsys_jax.evaluation.engine import KS, Evaluation, in_sample_of_seeds
from recsys_jax.storage.checkpoints import Checkpoints, Stopped
from recsys_jax.training.loop import fit_seeds, of_seeds
from recsys_jax.training.wide import fit_linear


@dataclass(frozen=True)
class Options:
    """Trains the two towers on a dataset."""

    dataset: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATASET")]]
    """The folder with dataset.toml."""
    run: Path | None = None
    """The folder that the model is written to; by default runs/NAME with the dataset's name."""
    customers: Path | None = None
    """Another customer file than the dataset's, or than the one that cluster_personas.py made."""
    recipe: Literal["linear", "towers"] = "linear"
    """linear: what recommends best to customers never seen; towers: as published, and its variations."""
    own_l2: float | None = None
    """How much holds back what a product has of its own; chosen on inner folds where it is not given (linear)."""
    attribute_l2: float | None = None
    """The same of the customers' liking of product attributes; inf: leave it out."""
    factor_l2: float | None = None
    """The same of their liking of products that the same customers buy."""
    config: DeepConfig = field(default_factory=DeepConfig)
    """The towers recipe; the seed is that of the linear recipe, too."""
    seeds: int = 1
    """Models to train, with this seed and the next ones: the first is written, all are measured (seeds.json)."""
    resume: bool = False
    """Go on from the checkpoint of a training that was killed, to the same bytes as if it had not been."""
    checkpoint_every: int = 100
    """Epochs from one checkpoint in the run folder to the next; 0: none but when stopped (towers)."""
    ensemble: bool = False
    """Measure the mean of all these models' scores, too."""


def main(options: Options) -> str:
    """Trains and writes the model."""
    run = run_folder(options.dataset, options.run)
    if options.checkpoint_every < 0:
        raise InputError(f"checkpoint_every: found {options.checkpoint_every}; allowed: 0 or more")
    config = _config(options)
    seeds = seeds_from(config, options.seeds, options.ensemble)
    share_processors(config, len(seeds) - 1)
    dataset = open_dataset(options.dataset, run, options.customers)
    console.print(f"Training {recipe(config)}, seed {config.seed}")
    checkpoints = Checkpoints(run, options.resume, options.checkpoint_every, tell=console.print)
    with saved_when_stopped(checkpoints):
        if isinstance(config, WideConfig):
            model = _fit_linear(dataset, config, checkpoints)
        else:
            model = _fit_towers(dataset, config, checkpoints)
    write_model(model, run)
    checkpoints.remove()
    write_set_aside(dataset.set_aside, run)
    then = following("evaluate.py", *again(options.dataset, run, options.customers))
    if len(seeds) == 1:
        return then
    assert isinstance(config, DeepConfig)  # of which alone there are several seeds
    # The first was trained alone: trained with the others it would round differently, and be another file.
    models = [model, *_train_together(dataset, config, seeds[1:])]
    result = in_sample_of_seeds(models, dataset, KS, ensemble=options.ensemble)
    losses = np.array([one.losses[-1] for one in models], np.float64)
    _show(result, losses)
    write_file(run / "seeds.json", json.dumps(_document(result, losses), indent=1) + "\n")
    console.print(f"Written to {run}: seeds.json")
    return f"{following} --seeds {options.seeds}{' --ensemble' * options.ensemble}"


def _config(options: Options) -> Config:
    """The config of the recipe. Raises `InputError` where an option is given that the recipe does not have."""
    towers = options.config
    penalties = {name: getattr(options, name) for name in ("own_l2", "attribute_l2", "factor_l2")}
    linear = WideConfig(**penalties, seed=towers.seed)
    plain: Config = DeepConfig(seed=towers.seed) if options.recipe == "linear" else WideConfig(seed=towers.seed)
    refused = asdict(towers if options.recipe == "linear" else linear)
    for name, value in asdict(plain).items():
        if refused[name] != value:
            other = "towers" if options.recipe == "linear" else "linear"
            raise InputError(f"{name}: found {refused[name]}; allowed: with --recipe {other} alone")
    return linear if options.recipe == "linear" else towers


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


def _fit_linear(dataset: Dataset, config: WideConfig, checkpoints: Checkpoints) -> TrainedModel:
    with progress("choosing penalties (compiling first)") as bar:
        model = fit_linear(dataset, config, progress=bar, checkpoints=checkpoints)
    own, attribute, taste = model.variables["penalties"]["chosen"]
    console.print(
        f"Fitted in {len(model.losses)} steps; penalties: own {own:g}, attributes {attribute:g}, tastes {taste:g}"
    )
    return model


def _fit_towers(dataset: Dataset, config: DeepConfig, checkpoints: Checkpoints) -> TrainedModel:
    with progress("training (compiling first)") as bar:

        def update(done: int, losses: np.ndarray) -> None:
            bar(done, config.epochs, f"loss {losses[-1]:.4f}")
            for epoch, loss in enumerate(losses, done - len(losses) + 1):
                if epoch % 100 == 0 or epoch == config.epochs:
                    console.print(f"Epoch {epoch}/{config.epochs} | Loss: {loss:.4f}")

        return fit(dataset, config, progress=update, checkpoints=checkpoints)


def seeds_from(config: Config, count: int, ensemble: bool) -> range:
    """The config's seed and those after it. Raises `InputError` where there is none, or nothing to average."""
    if count < 1:
        raise InputError(f"seeds: found {count}; allowed: 1 or more")
    if ensemble and count == 1:
        raise InputError("ensemble: found one seed; allowed: with 2 seeds or more, as in --seeds 8")
    seeds = range(config.seed, config.seed + count)
    if isinstance(config, WideConfig):
        if count > 1:
            raise InputError(f"seeds: found {count}; allowed: with --recipe towers; the linear recipe has one best fit")
        return seeds
    of_seeds(config, seeds[-1:])  # the greatest
    return seeds


def _train_together(dataset: Dataset, config: DeepConfig, seeds: Sequence[int]) -> list[TrainedModel]:
    console.print(f"Training seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"Training seed {seeds[0]}")
    with progress("training all (compiling first)") as bar:

        def update(done: int, losses: np.ndarray) -> None:
            bar(done, config.epochs * len(seeds), f"mean loss {losses[-1]:.4f}")

        return fit_seeds(dataset, config, seeds, progress=update)


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


def recipe(config: Config) -> str:
    """The recipe in words."""
    if isinstance(config, WideConfig):
        given = {"own": config.own_l2, "attribute": config.attribute_l2, "taste": config.factor_l2}
        words = ", ".join(f"{name} penalty {value:g}" for name, value in given.items() if value is not None)
        open_ = f"penalties chosen on {config.inner_folds} inner folds" if None in given.values() else ""
        return ", ".join(["linear towers with the full softmax", *filter(None, (words, open_))])
    words = {
        "triplet": f"with the triplet loss (margin {config.margin:g}, {config.negatives} negatives)",
        "infonce": f"with InfoNCE (in-batch negatives, temperature {config.temperature:g})",
        "softmax": f"with the full softmax (temperature {config.temperature:g})",
    }[config.loss]
    extras = {
        "log-Q correction": config.log_q,
        "popularity bias": config.popularity_bias,
        "product id embedding": config.id_embedding,
        f"attribute dropout {config.attribute_dropout:g}": config.attribute_dropout,
        f"number jitter {config.number_jitter:g}": config.number_jitter,
        f"{config.extra_customers:,} extra customers": config.extra_customers,
    }
    used = [name for name, used in extras.items() if used]
    return ", ".join([f"towers {words}", *used, f"{config.epochs:,} epochs"])
