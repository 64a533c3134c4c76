"""What every command line here shares: reading options, where a run lives, how waiting, stopping and mistakes look.

It is imported before anything heavy, so that Ctrl-C and a missing package are a sentence from the start.
"""

import csv
import io
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, get_type_hints


def _stop(number: int, _: object) -> NoReturn:
    # At once: an ordinary exit would tear Python down under a computation that still runs in XLA's threads.
    # Files are written under another name first, so none is left half-written.
    sys.stdout.flush()
    if sys.stdout.isatty():
        os.write(1, b"\x1b[?25h\n")  # a progress bar hides the cursor
    os.write(2, b"stopped\n")
    os._exit(128 + number)


signal.signal(signal.SIGINT, _stop)
signal.signal(signal.SIGTERM, _stop)

try:
    import tyro
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.segment import Segment

    from recsys_jax.data.dataset import Dataset, load_dataset, read_schema
    from recsys_jax.data.files import cache_folder, require_folder, write_file
    from recsys_jax.data.splits import SPLITS, Split
    from recsys_jax.data.tables import SetAside
    from recsys_jax.errors import InputError
except ModuleNotFoundError as error:
    sys.exit(
        f"error: {error.name} is not installed for {sys.executable}. After `make run`, the Python to use is "
        f".venv/bin/python; elsewhere, pip install 'recsys_jax[all]'"
    )

if TYPE_CHECKING:
    from recsys_jax.config import Config
    from recsys_jax.data.splits import DatasetOfFold
    from recsys_jax.models.trained import TrainedModel

__all__ = [
    "again",
    "command",
    "console",
    "errors",
    "following",
    "held_out",
    "keep_what_is_compiled",
    "made_customers",
    "open_dataset",
    "progress",
    "run_folder",
    "share_processors",
    "write_model",
    "write_set_aside",
]

# What evaluate.py, and train.py --seeds, write about a model: it does not outlive it.
EVALUATION = (
    "embedding_space.png",
    "seeds.json",
    *(
        f"{protocol}/{name}"
        for protocol in ("in-sample", *SPLITS)
        for name in ("results.csv", "metrics.json", "results_by_persona.png")
    ),
)


class _Console(Console):
    """A console on which a shop's texts change nothing: a character that a terminal obeys (ESC, BEL) is shown as �."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield segment._replace(text=_OBEYED.sub("�", segment.text))


_OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

# A shop's texts are shown as they are, square brackets too: no markup.
console = _Console(highlight=False, soft_wrap=True, markup=False)
errors = _Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def command(main: Callable[..., str | None], name: str, arguments: Sequence[str]) -> None:
    """Runs `main` with its `options` from the arguments, and says what to run next: the command that it returns.

    A mistake in the input is one sentence and exit status 2.
    """
    keep_what_is_compiled()
    options = get_type_hints(main)["options"]
    try:
        then = main(tyro.cli(options, prog=f"recsys-jax {name}", args=arguments, config=(tyro.conf.OmitArgPrefixes,)))
    except (InputError, OSError) as error:  # a full disk or a folder that may not be written is told likewise
        errors.print(f"error: {error}")
        sys.exit(2)
    if then:
        console.print(f"Next: {_python()} {then}")


def keep_what_is_compiled() -> None:
    """Lets JAX keep compiled programs for the next process, where the user's cache folder can be written."""
    if "jax" not in sys.modules:
        return
    import jax

    folder = cache_folder() / "compiled"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if os.access(folder, os.W_OK) and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(folder))  # type: ignore[no-untyped-call]
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)  # type: ignore[no-untyped-call]


def share_processors(config: "Config", models: int = 1) -> None:
    """Says how JAX may use the processors for training; it reads this when it starts computing.

    Small steps run on one thread: to hand each of a hundred small operations to others takes longer than the work,
    up to a batch of 128 with 64 hidden units. Where many models train, each processor counts as a device.
    """
    from recsys_jax.config import DeepConfig

    if isinstance(config, DeepConfig) and config.batch_size * config.hidden_dim <= 2**14:
        os.environ.setdefault("NPROC", "1")
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    flags, devices = os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count"
    if min(models, processors) > 1 and devices not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {devices}={min(models, processors)}".strip()


def _python() -> str:
    """The running Python as a person would type it from here."""
    here = os.path.relpath(sys.executable)
    return "python" if here.startswith("..") else here


def run_folder(dataset: Path, run: Path | None) -> Path:
    """The folder of a run: the one asked for, or runs/NAME with the dataset's name.

    Raises `InputError` where nothing can be written into it: it is told now, not after all the work.
    """
    run = run or _standard_run(dataset)
    require_folder(run)
    return run


def _standard_run(dataset: Path) -> Path:
    return Path("runs") / read_schema(dataset).name


def following(script: str, *arguments: object) -> str:
    """A command to run next, in a shell's words: what `main` returns."""
    return shlex.join([f"scripts/{script}", *map(str, arguments)])


def again(dataset: Path, run: Path, customers: Path | None = None) -> list[object]:
    """The arguments by which the next script finds the same dataset, run and customers."""
    words: list[object] = [dataset]
    words += ["--run", run] if run != _standard_run(dataset) else []
    words += ["--customers", customers] if customers is not None else []
    return words


def made_customers(dataset: Path, run: Path | None = None) -> Path | None:
    """The customers that cluster_personas.py made of this dataset's reviews, for this run or for the default one."""
    if read_schema(dataset).customers.file is not None:
        return None
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
) -> "tuple[Split, DatasetOfFold | None]":
    """The split of a protocol and, where the customers were `made` of reviews, what makes them anew in each fold."""
    if made is None:
        return SPLITS[protocol](dataset, folds, seed), None
    from recsys_jax.personas.clustering import load_personas
    from recsys_jax.personas.folds import personas_of_fold

    if protocol == "new-combinations":
        raise InputError(
            f"protocol: found new-combinations; allowed for customers made of reviews ({made}): cross-validation, "
            f"hold-out, new-products; each fold makes personas anew, so no combination stays the same"
        )
    split = SPLITS[protocol](dataset, folds, seed)
    return split, personas_of_fold(folder, dataset, load_personas(made.parent / "personas"))


def write_set_aside(rows: Sequence[SetAside], run: Path, name: str = "set_aside.csv") -> None:
    """Writes which rows are not used and why, and says so; an older list goes away where all are used."""
    path = run / name
    if not rows:
        path.unlink(missing_ok=True)
        return
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["file", "row", "id", "reason"])
    writer.writerows([one.source, one.row, one.id, one.reason] for one in rows)
    write_file(path, stream.getvalue().encode("utf-8", "backslashreplace"))
    console.print(f"{len(rows):,} {'row is' if len(rows) == 1 else 'rows are'} not used; why stands in {path}")


def write_model(model: "TrainedModel", run: Path) -> None:
    """Writes the model and its losses into the run folder; what was said of the model that it replaces goes away."""
    from recsys_jax.config import DeepConfig
    from recsys_jax.storage.artifacts import save_model

    written = [path.name for path in save_model(model, run)]
    old = [run / name for name in (*EVALUATION, "loss.csv") if (run / name).exists()]
    if len(model.losses):
        lines = [f"{number},{loss:.6f}" for number, loss in enumerate(model.losses, 1)]
        header = "epoch,loss" if isinstance(model.config, DeepConfig) else "step,loss"
        write_file(run / "loss.csv", "\n".join([header, *lines]) + "\n")
        written.append("loss.csv")
    console.print(f"Written to {run}: {', '.join(written)}")
    old = [path for path in old if path.name not in written]
    for path in old:
        path.unlink()
    if old:
        console.print("Removed the evaluation of the model that was here before")


@contextmanager
def progress(title: str) -> Iterator[Callable[..., None]]:
    """A bar; what it gives is called with how much is done, of how much, and with a word on the state."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[word]}"), console=console, transient=True) as bar:
        task = bar.add_task(title, total=None, word="")

        def update(done: int, total: int, word: str = "") -> None:
            bar.update(task, completed=done, total=total, word=word)

        yield update
