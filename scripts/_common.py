"""What every command line here shares: how options are read and how a mistake is told."""

import sys
from collections.abc import Callable
from typing import Any

import tyro
from rich.console import Console

from recsys_jax.errors import InputError

__all__ = ["command", "console"]

console = Console(highlight=False)


def command(main: Callable[..., Any]) -> None:
    """Runs `main` with its options from the command line; a mistake in the input is one sentence and exit status 2."""
    try:
        tyro.cli(main, config=(tyro.conf.OmitArgPrefixes,))
    except InputError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {error}", markup=False)
        sys.exit(2)
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped")
        sys.exit(130)
