"""Runs commands within the tests' process: what they say, return and write."""

import io
import os
import shlex
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import missing

from recsys_jax import cli
from recsys_jax.console import terminal


class Result(NamedTuple):
    """As of a process."""

    returncode: int
    stdout: str
    stderr: str

    def next(self) -> list[str]:
        """The words, after the program's, of the command that it says to run next."""
        last = self.stdout.rstrip().splitlines()[-1]
        assert last.startswith("Next: "), self.stdout + self.stderr
        words = shlex.split(last.removeprefix("Next: "))
        return words[3 if words[1] == "-m" else 1 :]


def run(*words: object, cwd: Path | str = ".") -> Result:
    """`recsys-jax WORDS`, run in a folder."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    before = dict(os.environ)
    terminal.FIRST_LINE = 1e6  # how long a command takes decides nothing here
    with chdir(cwd), redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main([str(word) for word in words])
        except SystemExit as stop:
            if name := missing(stop):
                pytest.skip(f"{name} is not installed here")
            if isinstance(stop.code, str):
                print(stop.code, file=err)
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        finally:
            os.environ.clear()
            os.environ.update(before)
            terminal.console.quiet = False  # as --json leaves it
    return Result(status, out.getvalue(), err.getvalue())


def done(*words: object, cwd: Path | str = ".") -> Result:
    """Holds where the command succeeds."""
    result = run(*words, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result


def told(result: Result, sentence: str) -> None:
    """Holds where it ended with this mistake, as one line."""
    assert result.returncode == 2, result
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert sentence in result.stderr
