"""Writes synthetic data: the small mall with Korean reviews, or Parquet tables of any size."""

from dataclasses import dataclass
from pathlib import Path

from recsys_jax.console.terminal import console, following
from recsys_jax.data.files import write_file
from recsys_jax.errors import InputError
from recsys_jax.synthetic.malls import mall, write_mall
from recsys_jax.synthetic.populations import population, write_population

MALL = Path(__file__).resolve().parent.parent / "data" / "amoremall"


@dataclass(frozen=True)
class Options:
    """Writes synthetic data: the small mall with Korean reviews, or Parquet tables of any size."""

    out: Path | None = None
    """Folder to write into; the small mall goes to data/amoremall unless told otherwise."""
    seed: int = 0
    """The same seed gives the same bytes."""
    customers: int | None = None
    """Number of customers of a population in Parquet; without it, the small mall."""
    products: int | None = None
    """Number of products of that population."""


def main(options: Options) -> str:
    """Generates, writes and counts."""
    if options.customers is None and options.products is None:
        out = options.out or MALL
        paths = write_mall(mall(options.seed), out)
        if out.resolve() != MALL:
            paths.append(out / "personas.toml")
            write_file(paths[-1], (MALL / "personas.toml").read_bytes())
        then = following("run.py", out)
    else:
        if options.customers is None or options.products is None:
            raise InputError("a population needs both --customers and --products; the small mall needs neither")
        if options.out is None:
            raise InputError("a population needs --out, the folder to write it into")
        out = options.out
        paths = write_population(population(options.customers, options.products, options.seed), out)
        arguments = ("--recipe", "towers", "--loss", "infonce", "--epochs", 1, "--batch-size", 4096)
        then = following("train.py", out, *arguments)
    for path in paths:
        console.print(f"{path}  {path.stat().st_size:,} bytes")
    return then
