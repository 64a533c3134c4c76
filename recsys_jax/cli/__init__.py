"""The commands, one module each: `recsys-jax COMMAND`, `python -m recsys_jax COMMAND`, `python scripts/COMMAND.py`."""

import sys
from collections.abc import Sequence
from importlib import import_module

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "run": "recsys_jax.cli.run",
    "personas": "recsys_jax.cli.personas",
    "train": "recsys_jax.cli.train",
    "evaluate": "recsys_jax.cli.evaluate",
    "compare": "recsys_jax.cli.compare",
    "recommend": "recsys_jax.cli.recommend",
    "score": "recsys_jax.cli.score",
    "import-torch": "recsys_jax.cli.torch",
    "export-torch": "recsys_jax.cli.export_torch",
    "make-dataset": "recsys_jax.cli.make_dataset",
    "convert-movielens": "recsys_jax.cli.convert_movielens",
    "train-torch": "recsys_jax_benchmark.train_torch",
    "benchmark": "recsys_jax_benchmark.main",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command that the first argument names, with the others as its options."""
    from recsys_jax.console import terminal  # first: it answers Ctrl-C, and a missing package, from the start

    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] not in COMMANDS:
        sys.exit(f"usage: recsys-jax {{{','.join(COMMANDS)}}} ...")
    terminal.command(import_module(COMMANDS[words[0]]).main, words[0], words[1:])
