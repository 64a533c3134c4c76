"""What a command works on: the dataset, its recipe, the run and its customers; and how the next one finds them."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from recsys_jax.config import Config, WideConfig
from recsys_jax.console.terminal import console
from recsys_jax.data.dataset import Dataset, load_dataset, read_schema
from recsys_jax.data.files import require_folder, sheet_text, write_file
from recsys_jax.data.splits import SPLITS, DatasetOfFold, Split
from recsys_jax.data.tables import SetAside
from recsys_jax.errors import InputError, require

if TYPE_CHECKING:
    from recsys_jax.models.trained import TrainedModel

MALL = Path("data") / "amoremall"  # the dataset of a command that names none, where it is there


def make_mall(folder: Path, seed: int = 0) -> list[Path]:
    """Writes the small synthetic mall and, where there are none, its personas and boost rules; returns the paths."""
    from recsys_jax.synthetic.malls import mall, write_mall

    paths = write_mall(mall(seed), folder)
    for path in (folder / "personas.toml", folder / "boosts.toml"):
        if not path.exists():
            write_file(path, files("recsys_jax.data").joinpath(path.name).read_bytes())
            paths.append(path)
    return paths


def require_dataset(dataset: Path) -> None:
    """Raises `InputError` where nobody named a dataset and the mall is not here."""
    if dataset == MALL and not MALL.exists():
        raise InputError(
            f"dataset: found none, and no {MALL} here; allowed: a folder with dataset.toml; "
            f"recsys-jax dataset synthetic writes {MALL}"
        )


def standard(dataset: Path) -> Config:
    """The dataset's own recipe. Raises `InputError` where there is no such dataset."""
    require_dataset(dataset)
    return read_schema(dataset).training or WideConfig()


def seeds_from(config: Config, count: int, ensemble: bool) -> range:
    """The config's seed and those after it. Raises `InputError` where there is none, or nothing to average."""
    require(count >= 1, "seeds", count, "1 or more")
    if ensemble and count == 1:
        raise InputError("ensemble: found one seed; allowed: with 2 seeds or more, as in --seeds 8")
    only = f"one with the recipe {config.recipe}, which has one best fit"
    require(count == 1 or config.seeded, "seeds", count, only)
    seeds = range(config.seed, config.seed + count)
    replace(config, seed=seeds[-1])  # refuses one that is too great
    return seeds


def run_folder(dataset: Path, run: Path | None) -> Path:
    """The folder of a run: the one asked for, or runs/NAME with the dataset's name.

    Raises `InputError` where nothing can be written into it: it is told now, not after all the work.
    """
    run = run or _standard_run(dataset)
    require_folder(run)
    return run


def _standard_run(dataset: Path) -> Path:
    return Path("runs") / read_schema(dataset).name


def following(command: str, *words: object) -> str:
    """A command to run next, in a shell's words: what `main` returns.

    >>> following("train", Path("my mall"), "--seeds", 2)
    "train 'my mall' --seeds 2"
    """
    return shlex.join([*command.split(), *map(str, words)])


def again(dataset: Path, run: Path, customers: Path | None = None) -> list[object]:
    """The words by which the next command finds the same dataset, run and customers."""
    words: list[object] = [dataset]
    words += ["--run", run] if run != _standard_run(dataset) else []
    words += ["--customers", customers] if customers is not None else []
    return words


def made_customers(dataset: Path, run: Path | None = None, customers: Path | None = None) -> Path | None:
    """The customers that `personas` made of this dataset's reviews, for this run or for the default one.

    Where other `customers` are asked for, it is these, if `personas` made them.
    """
    if read_schema(dataset).customers.file is not None:
        return None
    if customers is not None:
        made = customers.name == "customers.json" and (customers.parent / "personas" / "model.json").exists()
        return customers if made else None
    standard = _standard_run(dataset)
    found = (folder / "customers.json" for folder in (run or standard, standard))
    return next((path for path in found if path.exists()), None)


def open_dataset(dataset: Path, run: Path | None, customers: Path | None) -> Dataset:
    """The dataset with the customers asked for, its own, or those made of reviews; says what was corrected."""
    opened = load_dataset(dataset, customers or made_customers(dataset, run))
    console.print(
        f"{opened.schema.name}: {len(opened.product_ids):,} products, {len(opened.customer_ids):,} customers, "
        f"{len(opened.purchases):,} purchases"
    )
    for note in opened.notes:
        console.print(f"note: {note}")
    return opened


def held_out(
    folder: Path, dataset: Dataset, made: Path | None, protocol: str, folds: int, seed: int
) -> tuple[Split, DatasetOfFold | None]:
    """The split of a protocol and, where the customers were `made` of reviews, what makes them anew in each fold."""
    if made is not None and protocol == "new-combinations":
        raise InputError(
            f"protocol: found new-combinations; allowed for customers made of reviews ({made}): cross-validation, "
            f"hold-out, new-products; each fold makes personas anew, so no combination stays the same"
        )
    split = SPLITS[protocol](dataset, folds, seed)
    if made is None:
        return split, None
    from recsys_jax.personas.clustering import load_personas
    from recsys_jax.personas.folds import personas_of_fold

    return split, personas_of_fold(folder, dataset, load_personas(made.parent / "personas"))


def write_set_aside(rows: Sequence[SetAside], run: Path, name: str = "set_aside.csv", *, quiet: bool = False) -> None:
    """Writes which rows are not used and why, and says so; an older list goes away where all are used."""
    path = run / name
    if not rows:
        path.unlink(missing_ok=True)
        return
    lines = [("file", "row", "id", "reason"), *((one.source, one.row, one.id, one.reason) for one in rows)]
    write_file(path, sheet_text(lines).encode("utf-8", "backslashreplace"))
    if not quiet:
        console.print(f"{len(rows):,} {'row is' if len(rows) == 1 else 'rows are'} not used; why stands in {path}")


def write_model(model: "TrainedModel", run: Path) -> None:
    """Writes the model and its losses into the run folder; what was said of the model that it replaces goes away."""
    from recsys_jax.storage.artifacts import save_model

    written = [path.name for path in save_model(model, run)]
    if len(model.losses):
        lines = [f"{number},{loss:.6f}" for number, loss in enumerate(model.losses, 1)]
        header = "epoch,loss" if model.config.seeded else "step,loss"
        write_file(run / "loss.csv", "\n".join([header, *lines]) + "\n")
        written.append("loss.csv")
    console.print(f"Written to {run}: {', '.join(written)}")
    # What `evaluate`, and `train --seeds`, write about a model does not outlive it.
    told = {"embedding_space.png", "loss.csv", "report.md", "seeds.json"} - set(written)
    for name in ("report.md", "results.csv", "metrics.json", "results_by_persona.png"):
        told |= {f"{protocol}/{name}" for protocol in ("in-sample", *SPLITS)}
    old = [run / name for name in told if (run / name).exists()]
    for path in old:
        path.unlink()
    if old:
        console.print("Removed the evaluation of the model that was here before")
