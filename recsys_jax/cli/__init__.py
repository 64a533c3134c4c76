"""`recsys-jax COMMAND`: each command is a module here; `python -m recsys_jax` and scripts/*.py lead here, too."""

import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import NoReturn

COMMANDS = {
    "init": ("recsys_jax.cli.init:main", "guess a dataset.toml from any tables"),
    "run": ("recsys_jax.cli.run:main", "the main job, from reviews to recommendations"),
    "personas": ("recsys_jax.cli.personas:main", "cluster reviews into personas, and make customers of them"),
    "train": ("recsys_jax.cli.train:main", "train a model on a dataset"),
    "evaluate": ("recsys_jax.cli.evaluate:main", "measure a model or its recipe, in-sample or held out"),
    "compare": ("recsys_jax.cli.compare:main", "rank recipes and baselines on the same queries"),
    "runs": ("recsys_jax.cli.runs:main", "list runs with their key figures"),
    "recommend": ("recsys_jax.cli.serving.recommend:main", "recommend products to one customer"),
    "score": ("recsys_jax.cli.serving.score:main", "recommend products to every customer in a table"),
    "serve": ("recsys_jax.cli.serving.serve:main", "serve a run over HTTP, and each new model of it"),
    "torch import": ("recsys_jax.cli.convert:import_torch", "make a run of a PyTorch checkpoint"),
    "torch export": ("recsys_jax.cli.convert:export_torch", "write a run's model as a PyTorch checkpoint"),
    "torch train": ("recsys_jax_benchmark.pytorch.train:main", "train the PyTorch reference"),
    "dataset synthetic": ("recsys_jax.cli.convert:synthetic", "write a mall with reviews, or tables of any size"),
    "dataset movielens": ("recsys_jax.cli.convert:movielens", "make a dataset of the files of MovieLens-100k"),
    "benchmark": ("recsys_jax_benchmark.main:main", "measure speed and memory against PyTorch, NumPy and Faiss"),
}
"""By its words: where its `main(options)` is, and what it does."""
_MEANT = {
    "report": "evaluate writes the report",
    "fit": "train fits a model",
    "predict": "recommend answers for one customer, score for a table",
}
"""What people look for under another word than ours, of which no command's name is a misspelling."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command that the first words name, with the others as its options."""
    _keep_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return
    if words[0] == "--version":
        print(f"recsys-jax {version('recsys_jax')}")
        return
    from recsys_jax.console import terminal  # before all else: it answers Ctrl-C, and a missing package, from the start

    with terminal.progress("starting", lines=False):
        found = find(words)
    terminal.command(*found)


def _keep_streams() -> None:
    """Standard streams that are there and take any text, so that no print ends a command.

    A stream that was closed (`>&-`) leads nowhere: else the next file to be opened would take its number, and libraries
    print there. What an encoding such as cp949 lacks is printed as an escape.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (open to the end)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors="backslashreplace")


def door(name: str) -> None:
    """Runs a command with the arguments of the script that stands for it."""
    main([*name.split(), *sys.argv[1:]])


def find(words: Sequence[str]) -> tuple[Callable[..., str | None], str, Sequence[str]]:
    """The `main` of the command that the first words name, its name, and its arguments.

    Ends with a sentence where there is no such command, or where it is not installed.
    """
    name = next((name for name in (words[0], " ".join(words[:2])) if name in COMMANDS), None)
    if name is None:
        _unknown(words)
    module, _, function = COMMANDS[name][0].partition(":")
    try:
        imported = import_module(module)
    except ModuleNotFoundError as error:
        if error.name == "recsys_jax_benchmark":
            _stop(f"error: {name} is not installed: it is scripts/benchmark in the repository of recsys_jax")
        from recsys_jax.console.terminal import not_installed

        _stop(not_installed(error))
    return getattr(imported, function), name, words[len(name.split()) :]


def _help(group: str = "") -> str:
    shown = {name: said for name, (_, said) in COMMANDS.items() if name.startswith(group)}
    lines = [f"  {name:<{max(map(len, shown))}}  {said}" for name, said in shown.items()]
    usage = f"usage: recsys-jax {group or 'COMMAND '}..."
    return "\n".join([usage, "", *lines, "", "recsys-jax COMMAND --help lists its options; recsys-jax --version"])


def _unknown(words: Sequence[str]) -> NoReturn:
    """Ends with a sentence, or with what there is of `torch` and `dataset`."""
    said, allowed = " ".join(words[:2]), [name for name in COMMANDS if name.startswith(f"{words[0]} ")]
    if allowed and (len(words) == 1 or words[1] in ("-h", "--help")):
        print(_help(f"{words[0]} "))
        sys.exit(0)
    if not allowed:
        said, allowed = words[0], list(COMMANDS)
    from recsys_jax.errors import did_you_mean

    hint = f"; {_MEANT[said]}" if said in _MEANT else did_you_mean(said, allowed)
    _stop(f"error: command: found {said!r}; allowed: {', '.join(allowed)}{hint}")


def _stop(sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr)
    sys.exit(2)
