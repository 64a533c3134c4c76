"""Writes synthetic data: the small mall with Korean reviews, or Parquet tables of any size."""

from dataclasses import dataclass
from pathlib import Path

from _common import command, console

from recsys_jax.errors import InputError
from recsys_jax.synthetic import mall, population, write_mall, write_population

MALL = Path(__file__).resolve().parent.parent / "data" / "amoremall"


@dataclass(frozen=True)
class Options:
    """What to generate, and where."""

    out: Path | None = None
    """Folder to write into; the small mall goes to data/amoremall unless told otherwise."""
    seed: int = 0
    """The same seed gives the same bytes."""
    customers: int | None = None
    """Number of customers of a population in Parquet; without it, the small mall."""
    products: int | None = None
    """Number of products of that population."""


def main(options: Options) -> None:
    if options.customers is None and options.products is None:
        out = options.out or MALL
        paths = write_mall(mall(options.seed), out)
        following = (
            "make run" if out == MALL else f"copy data/amoremall/dataset.toml to {out}, which describes these columns"
        )
    else:
        if options.customers is None or options.products is None:
            raise InputError("a population needs both --customers and --products; the small mall needs neither")
        if options.out is None:
            raise InputError("a population needs --out, the folder to write it into")
        out = options.out
        paths = write_population(population(options.customers, options.products, options.seed), out)
        following = f"train on {out}, which {out / 'dataset.toml'} describes"
    for path in paths:
        console.print(f"{path}  {path.stat().st_size:,} bytes")
    console.print(f"next: {following}")


if __name__ == "__main__":
    command(main)
