"""Ctrl-C, SIGTERM and SIGHUP end a command within two seconds, whatever it computes; it says what is saved.

A program that imports the library keeps its own signals: only commands `listen`.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

GRACE = 1.5
"""The seconds that a job has to save how far it is and to end by itself."""
# The last: the terminal was closed.
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

written: dict[Path, bool] = {}
"""The files that this process wrote, in that order, and whether another one was there before."""
unfinished: set[Path] = set()
"""The files that go when the process ends: those that are being written under another name, and locks."""

_children: set[subprocess.Popen[Any]] = set()
_jobs: list[tuple[Callable[[], str], float]] = []
_asked: list[int] = []
_ending = threading.Lock()


def listen() -> None:
    """Answers these signals from now on; to be called by the main thread.

    Python runs a handler between two steps of the main thread, which may be in XLA for minutes. The bytes that its C
    code writes into a pipe wake a thread all the same.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as of a command that a script runs in the background
            signal.signal(number, _heard)
    _open()
    if hasattr(os, "register_at_fork"):  # a fork would write into its parent's pipe
        os.register_at_fork(after_in_child=_open)
        os.register_at_fork(after_in_child=_children.clear)  # they are its parent's


def _open() -> None:
    inbox, outbox = os.pipe()
    os.set_blocking(outbox, False)
    signal.set_wakeup_fd(outbox, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=[inbox], daemon=True).start()


def asked() -> bool:
    """Whether a job that saves is to end."""
    return bool(_asked)


@contextmanager
def saying(kept: Callable[[], str], *, saves: bool = False, grace: float = GRACE) -> Iterator[None]:
    """While this job runs, `kept` says what is kept of it; where that is empty, the files that were written are named.

    A job that `saves` looks whether it was `asked` and calls `end` when it has saved, within the seconds of `grace`;
    any other is ended at once.
    """
    _jobs.append((kept, grace if saves else 0.0))
    try:
        yield
    finally:
        _jobs.pop()


@contextmanager
def child(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process, as `subprocess.Popen` starts it, that with all it starts ends when this one is stopped.

    It also ends where what is done with it raises.
    """
    with subprocess.Popen(command, **options, process_group=0 if hasattr(os, "killpg") else None) as process:
        _children.add(process)
        try:
            yield process
        except BaseException:
            _kill(process)
            raise
        finally:
            _children.discard(process)


def _kill(process: "subprocess.Popen[Any]") -> None:
    """Also what it started, such as an installation."""
    if not hasattr(os, "killpg"):
        process.kill()
    elif process.poll() is None:  # a number that is free again may be another's
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def end() -> NoReturn:
    """Says what is saved and ends the command; for the main thread, between two computations."""
    _ending.acquire()  # for good: nobody else says it again
    _say()
    sys.exit(128 + _asked[0])


def _heard(number: int, _: object) -> None:
    first = not _asked
    _asked.append(number)
    if not (first and any(grace for _, grace in _jobs)):
        _end_at_once(number)


def _watch(inbox: int) -> None:
    numbers = (number for number in iter(lambda: os.read(inbox, 1)[0], None) if number in _SIGNALS)
    first = next(numbers)
    later = threading.Timer(max([GRACE, *(grace for _, grace in _jobs)]), _end_at_once, [first])
    later.daemon = True
    later.start()
    next(numbers)
    _end_at_once(first)


def _end_at_once(number: int) -> NoReturn:
    # An ordinary exit would tear Python down under a computation that still runs in XLA's threads. Files are written
    # under another name first, so none is left half-written.
    try:
        if _ending.acquire(timeout=0.5):  # else it is being said, or was: who said it may be waiting for XLA
            with suppress(OSError, ValueError, RuntimeError):  # who read it may be gone, or a print be interrupted
                sys.stdout.flush()
            if sys.stdout.isatty():
                os.write(1, b"\x1b[?25h\n")  # a progress bar hides the cursor
            _say()
            for path in list(unfinished):
                path.unlink(missing_ok=True)
    finally:
        for process in list(_children):
            _kill(process)
        os._exit(128 + number)


def _say() -> None:
    kept = next(filter(None, (kept() for kept, _ in reversed(_jobs))), "") or _files()
    with suppress(OSError):
        os.write(2, f"Stopped: {kept}\n".encode(errors="backslashreplace"))


def _files() -> str:
    """The files that were written and are still there, at most the last five of each folder by name."""
    folders: dict[Path, list[str]] = {}
    for path in list(written):
        if path.exists():
            folders.setdefault(path.parent, []).append(path.name)
    if not folders:
        return "nothing was written"
    told = []
    for folder, names in folders.items():
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        told.append(f"{', '.join(names[-5:])}{more} in {folder}")
    return f"written before that: {'; '.join(told)}"
