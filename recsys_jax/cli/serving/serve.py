"""Serves a run over HTTP, such as `recsys-jax serve runs/amoremall`."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from recsys_jax.console.options import Common
from recsys_jax.console.places import made_customers
from recsys_jax.console.terminal import console, note, print_json
from recsys_jax.data.files import read_file
from recsys_jax.errors import InputError, require
from recsys_jax.service.calls import Limits
from recsys_jax.service.live import Source
from recsys_jax.service.server import Settings, address, bind, configure_log, loopback, serve

TOKEN, LEAST = "RECSYS_JAX_TOKEN", 16
"""The variable of the environment that may hold the token, and its fewest characters."""


@dataclass(frozen=True)
class Options(Common):
    """Serves a run over HTTP, and takes each new model that is trained there."""

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """The folder with the trained model."""
    host: str = "127.0.0.1"
    """The address to listen at; only programs of this machine reach the default one, 0.0.0.0 is all addresses."""
    port: int = 8000
    """The port; 0: any that is free."""
    workers: int = 1
    """How many processes answer. Each holds the model."""
    dataset: Path | None = None
    """The folder of the dataset that knows customers and what they bought."""
    purchases: Path | None = None
    """A file of purchases like the one that the dataset names, which knows what customers bought."""
    boosts: Path | None = None
    """A TOML file with boost rules."""
    token_file: Path | None = None
    """A file with a token that requests must bring, else the one in RECSYS_JAX_TOKEN, if there is one."""
    max_body: int = Limits.body
    """The bytes that a request's JSON may have."""
    max_rows: int = Limits.rows
    """The customers that a batch may have."""
    max_top_n: int = Limits.top_n
    """The products that a list may have."""
    watch: float = Settings.watch
    """The seconds between two looks for a new model."""
    drain: float = Settings.drain
    """The seconds that running requests have to end when the service does."""
    lists = True
    examples = (
        "runs/amoremall",
        "runs/shop --dataset shop --workers 2 --port 8080",
        "runs/shop --host 0.0.0.0 --token-file token",
    )


def main(options: Options) -> None:
    """Serves until it is told to end."""
    require(options.workers >= 1, "workers", options.workers, "1 or more")
    customers = None if options.dataset is None else made_customers(options.dataset, options.run)
    settings = Settings(
        Source(options.run, options.boosts, options.dataset, customers, options.purchases),
        Limits(options.max_body, options.max_rows, options.max_top_n),
        _token(options.token_file),
        options.watch,
        options.drain,
    )
    with bind(options.host, options.port) as listener:
        where = address(listener)
        if settings.token is None and not loopback(listener):
            note(f"whoever reaches {where} can ask; --token-file FILE admits those alone who know its token")
        configure_log()
        ready = partial(print_json, {"serving": str(options.run), "at": where})
        told = partial(console.print, f"Serving {options.run} at {where}")
        serve(settings, listener, options.workers, ready if options.json else told)


def _token(file: Path | None) -> str | None:
    """The token in a file or the environment. Raises `InputError` for one that is no secret."""
    if file is None:
        where, token = TOKEN, os.environ.get(TOKEN)
    else:
        try:
            where, token = str(file), read_file(file, largest=4096).decode("ascii").strip()
        except UnicodeDecodeError:
            raise InputError(f"{file}: found other than ASCII; allowed: a token") from None
    if token is None:
        return None
    fits = len(token) >= LEAST and token.isascii() and token.isprintable() and " " not in token
    if not fits:  # which is not repeated: it may be a secret all the same
        raise InputError(f"{where}: found no token; allowed: {LEAST} or more ASCII characters without spaces")
    return token
