"""What every command line here shares: how options are read, where a run lives, how waiting and a mistake look."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from recsys_jax.data import Dataset, load_dataset
from recsys_jax.errors import InputError
from recsys_jax.schema import Schema

__all__ = ["again", "command", "console", "made_customers", "open_dataset", "progress", "run_folder"]

console = Console(highlight=False, soft_wrap=True)


def command(main: Callable[..., Any]) -> None:
    """Runs `main` with its `options` from the command line; a mistake is one sentence and exit status 2."""
    kind = get_type_hints(main)["options"]
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        main(tyro.cli(kind, config=(tyro.conf.OmitArgPrefixes,)))
    except InputError as error:
        errors.print(f"error: {error}", markup=False)
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("stopped")
        sys.exit(130)


def run_folder(dataset: Path, run: Path | None) -> Path:
    """The folder of a run: the one asked for, or runs/NAME with the dataset's name."""
    return run or Path("runs") / Schema.read(dataset / "dataset.toml").name


def again(dataset: Path, run: Path) -> str:
    """The arguments by which the next script finds the same dataset and run."""
    return str(dataset) if run == run_folder(dataset, None) else f"{dataset} --run {run}"


def made_customers(dataset: Path, run: Path, customers: Path | None) -> Path | None:
    """The customer file to read: the one asked for, or the one that cluster_personas.py made, or the dataset's own."""
    made = run / "customers.json"
    no_own = Schema.read(dataset / "dataset.toml").customers.file is None
    return made if customers is None and no_own and made.exists() else customers


def open_dataset(dataset: Path, run: Path, customers: Path | None) -> Dataset:
    """The dataset with its customers; says how large it is and what was corrected."""
    opened = load_dataset(dataset, made_customers(dataset, run, customers))
    console.print(
        f"{opened.schema.name}: {len(opened.product_ids):,} products, {len(opened.customer_ids):,} customers, "
        f"{len(opened.purchases):,} purchases"
    )
    for note in opened.notes:
        console.print(f"note: {note}", markup=False)
    return opened


@contextmanager
def progress(title: str) -> Iterator[Callable[..., None]]:
    """A bar; what it gives is called with how much is done, of how much, and with a word on the state."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[word]}"), console=console, transient=True) as bar:
        task = bar.add_task(title, total=None, word="")

        def update(done: int, total: int, word: str = "") -> None:
            bar.update(task, completed=done, total=total, word=word)

        yield update
