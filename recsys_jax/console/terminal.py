"""What every command shares: Ctrl-C, progress, JSON, and how mistakes and the next command are told."""

import glob
import json
import os
import re
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from recsys_jax import stopping

stopping.listen()  # before what takes long to import


# The extra of recsys_jax that brings a package; what is not here comes with recsys_jax itself.
EXTRAS = {
    "faiss": "benchmark",
    "optuna": "tuning",
    "pandas": "benchmark",
    "pyarrow": "parquet",
    "sentence_transformers": "sentence-transformers",
    "torch": "torch",
    "uvicorn": "serve",
}


def not_installed(error: ModuleNotFoundError) -> str:
    """A sentence on a package that is missing."""
    package = (error.name or "").partition(".")[0]
    if package in EXTRAS:
        from recsys_jax.errors import installing

        return f"error: {package} is not installed; {installing(EXTRAS[package])}"
    return (
        f"error: {package} is not installed for {sys.executable}. After `make run`, the Python to use is "
        f".venv/bin/python; elsewhere, pip install recsys_jax"
    )


try:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.segment import Segment

    from recsys_jax.console.options import FILE, parse
    from recsys_jax.data.files import cache_folder
    from recsys_jax.errors import InputError
    from recsys_jax.storage.runs import MANIFEST
except ModuleNotFoundError as error:
    print(not_installed(error), file=sys.stderr)
    sys.exit(2)

if TYPE_CHECKING:
    from recsys_jax.config import Config


class _Console(Console):
    """A console on which a shop's texts change nothing: a character that a terminal obeys (ESC, BEL) is shown as �.

    Nor do square brackets and colons, which rich reads as styles and emoji. Whoever reads what is printed may stop, as
    `head` does: the command goes on.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, soft_wrap=True, markup=False, emoji=False, **options)

    def on_broken_pipe(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield segment._replace(text=harmless(segment.text))


# Control characters, halves of characters, and what turns the direction of writing round.
_OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """The text with � for each character that a terminal, or who reads it, would obey."""
    return _OBEYED.sub("�", text)


console = _Console()
errors = _Console(stderr=True)


answer: dict[str, object] = {}
"""What a command found, by name: --json prints it."""
said: list[str] = []
"""Its notes, which --json prints, too."""


def note(sentence: str) -> None:
    """A line beside what is printed, such as on a former name."""
    said.append(sentence)
    errors.print(f"note: {sentence}")


def remark(sentence: str) -> None:
    """A line within what is printed, such as on the data."""
    said.append(sentence)
    console.print(f"note: {sentence}")


def replaced() -> list[str]:
    """The files that took the place of others, without the cache and those in which each command notes what it did.

    First those that people write.
    """
    there = [path for path, before in stopping.written.items() if before and path.exists()]
    there.sort(key=lambda path: path.suffix != ".toml")
    kept = cache_folder()
    return [str(path) for path in there if path.name not in (MANIFEST, FILE) and kept not in path.absolute().parents]


at_end: dict[str, Callable[[], str]] = {}
"""What a command notes after all else, by what it is on: a sentence, made then."""


def note_at_end() -> None:
    """Says what was kept for the end."""
    while at_end:
        note(at_end.popitem()[1]())


def json_text(document: object, *, ascii_only: bool = False) -> str:
    """A document as JSON, in which NaN and the infinities, which it lacks, are null."""
    plain = json.loads(json.dumps(document), parse_constant=lambda _: None)
    return json.dumps(plain, ensure_ascii=ascii_only, indent=1)


def print_json(document: object) -> None:
    """Prints JSON that any terminal takes: all that is not printed as itself is escaped."""
    text = json_text(document, ascii_only=not console.encoding.startswith("utf"))
    text = text.replace("\x7f", "\\u007f")  # which json leaves as it is
    quiet, console.quiet = console.quiet, False
    console.print("".join(one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text))
    console.quiet = quiet


def renamed(word: str, former: Mapping[str, str]) -> str:
    """A word of a command line, or what stands in it before a sign, by its new name, which is told in a line."""
    name = word if word in former else word.partition("=")[0]
    now = former.get(name.replace("_", "-"))
    if now is None:
        return word
    note(f"{name} is now called {now}")
    return now + word.removeprefix(name)


def command(main: Callable[..., str | None], name: str, arguments: Sequence[str]) -> None:
    """Runs a command's `main` with its options, and says what to run next: the command that it returns.

    With --json, one document is all that is printed. A mistake in the input is one sentence and exit status 2.
    """
    keep_what_is_compiled()
    for kept in (at_end, answer, said, stopping.written):
        kept.clear()
    console.quiet = False
    try:
        options = parse(main, name, arguments, note)
        console.quiet = options.json
        then = main(options)
    except BrokenPipeError:  # whoever read what is printed, as `head` does, stopped
        console.on_broken_pipe()
        sys.exit(0)
    except (InputError, OSError, MemoryError) as error:  # a full disk, and what is too large, are told likewise
        text = str(error).removeprefix(f"{name}(), ").removeprefix(f"{name}(): ")  # the call is named in Python alone
        errors.print(f"error: {text}")
        sys.exit(2)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("recsys_jax"):
            raise
        errors.print(not_installed(error))
        sys.exit(2)
    note_at_end()
    next_, gone = f"{program()} {then}" if then else None, replaced()
    if options.json and not options.lists:
        there = [str(path) for path in stopping.written if path.exists()]
        print_json({"command": name, **answer, "notes": said, "written": there, "replaced": gone, "next": next_})
        return
    if gone:
        more = f" and {len(gone) - NAMED} more" if len(gone) > NAMED else ""
        (note if options.json else console.print)(f"In place of what was there: {', '.join(gone[:NAMED])}{more}")
    if next_:
        console.print(f"Next: {next_}")


def keep_what_is_compiled() -> None:
    """Lets JAX keep compiled programs for the next process, where the user's cache folder can be written.

    They are machine code: a folder that another user could put some into is not used.
    """
    if "jax" not in sys.modules or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    import jax

    folder = cache_folder() / "compiled"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if hasattr(os, "getuid") and {folder.stat().st_uid, folder.parent.stat().st_uid} != {os.getuid()}:
            note(f"{folder}: found a folder of another user; allowed: your own, so compiled programs are not kept")
            return
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)
        if not os.access(folder, os.W_OK):
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))  # type: ignore[no-untyped-call]
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)  # type: ignore[no-untyped-call]
        warnings.showwarning = partial(_replace_damaged, folder, warnings.showwarning)


def _replace_damaged(folder: Path, show: Callable[..., None], message: Warning | str, *where: Any) -> None:
    """Removes programs that JAX warns it can't read: it would never replace them. Shows all other warnings."""
    found = re.match("Error reading persistent compilation cache entry for '([^']+)'", str(message))
    if found is None:
        show(message, *where)
        return
    for path in folder.glob(f"{glob.escape(found[1])}-*"):
        path.unlink(missing_ok=True)


def share_processors(config: "Config", models: int = 1) -> None:
    """Says how JAX may use the processors for training; it reads this when it starts computing.

    Small steps run on one thread: to hand each of a hundred small operations to others takes longer than the work,
    up to a batch of 128 with 64 hidden units. Where many models train, each processor counts as a device.
    """
    if config.small_steps:
        os.environ.setdefault("NPROC", "1")
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    flags, devices = os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count"
    if min(models, processors) > 1 and devices not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {devices}={min(models, processors)}".strip()


def program() -> str:
    """`recsys-jax` as it can be typed here: by its name, by its path, or as a module of the Python that runs."""
    python = Path(sys.executable)
    installed = python.with_name(f"recsys-jax{python.suffix}")
    path, module = (installed, "") if installed.exists() else (python, " -m recsys_jax")
    found = shutil.which(path.name)
    if found is not None and Path(found).samefile(path):  # a shell finds it by its name
        return f"{path.name}{module}"
    here = os.path.relpath(path)
    return shlex.quote(str(path) if here.startswith("..") else here) + module


NAMED = 3
"""The files that are named of those that took the place of others."""

FIRST_LINE = 1.0
"""The seconds after which progress is told where nobody watches."""


@contextmanager
def progress(title: str, *, lines: bool = True) -> Iterator[Callable[..., None]]:
    """A progress bar: a function of how much is done, of how much, and a short description of the current state.

    Where nobody watches, there are `lines` on the standard error instead: the first after a second, then more seldom;
    none where a mistake in what was typed may still follow.
    """
    title_column, word_column = (TextColumn(f"{{task.{one}}}", markup=False) for one in ("description", "fields[word]"))
    columns = (title_column, BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), word_column)
    watched, over = console.is_terminal and not console.quiet, Event()
    # A bar would leave an empty line behind. The time left follows from all that was done, as a fit may take minutes.
    bar = Progress(*columns, console=console, transient=True, disable=not watched, speed_estimate_period=86400.0)
    with bar:
        task = bar.add_task(title, total=None, word="")
        if lines and not watched:
            Thread(target=_tell, args=(bar, over), daemon=True).start()

        def update(done: int, total: int, word: str = "") -> None:
            bar.update(task, completed=done, total=total, word=word)

        try:
            yield update
        finally:
            over.set()


def _tell(bar: Progress, over: Event) -> None:
    wait, told = FIRST_LINE, ""
    while not over.wait(wait):
        [task] = bar.tasks
        done = "" if task.total is None else f"{task.percentage:.0f} %"
        left = "" if task.time_remaining is None else f"{timedelta(seconds=task.time_remaining)} left"
        line = ", ".join(filter(None, [task.description, done, left, task.fields["word"]]))
        if line != told:  # else it would tell nothing
            errors.print(line)
            told = line
        wait = min(2.0 * wait, 60.0)
