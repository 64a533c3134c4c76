"""Recommends to every customer in a file; interrupted at any moment, the same command continues."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from recsys_jax import InputError
from recsys_jax.console.options import Common
from recsys_jax.console.places import trained_runs
from recsys_jax.console.recommendations import limits, nothing_left_out, shop_of
from recsys_jax.console.terminal import answer, console, progress, remark
from recsys_jax.jobs.batch import rejected_file, score_file
from recsys_jax.serving.history import BOUGHT

ENOUGH = 1000  # customers to say how fast it was


@dataclass(frozen=True)
class Options(Common):
    """Recommends products to every customer in a table (CSV, JSON, Parquet); of Parquet, however many there are."""

    customers: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="CUSTOMERS")]]
    """The table with the customers' attributes; what it says that they bought is not recommended."""
    out: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUT")]]
    """The Parquet or CSV file to write, one row per customer and place. Rows that cannot be used go to another beside
    it, with the reason."""
    run: Path | None = None
    """The folder with the trained model; by default the only one under runs/."""
    top_n: int = 10
    """How many products for each customer."""
    categories: tuple[str, ...] = ()
    """Only products of these categories."""
    available: Path | None = None
    """Only products in this table (CSV, JSON, Parquet), by its column with their ids: what is in stock."""
    boosts: Path | None = None
    """A TOML file with boost rules."""
    dataset: Path | None = None
    """The folder of the dataset: what its customers bought, by their ids, is not recommended to them."""
    purchases: Path | None = None
    """Instead, a file of purchases like the one that the dataset names."""
    include_purchased: bool = False
    """Recommend also what customers bought."""
    diversity: float = 0.0
    """From 0, the best products, to 1: each as unlike those before it as can be."""
    at_most: tuple[str, ...] = ()
    """How many products with the same value, such as brand=2 category=3."""
    pinned: tuple[str, ...] = ()
    """Ids of products that come first."""
    names: bool = False
    """Write also what people know the products by: name, brand, category, price."""
    allow_unmatched: bool = False
    """Score even where more than one in ten of the purchases is the id of no product."""
    examples = (
        "customers.parquet out.parquet --run runs/shop --dataset shop",
        "customers.csv out.csv --run runs/shop --top-n 5 --names --available stock.csv",
    )


def main(options: Options) -> None:
    """Scores, writes and counts."""
    began = time.perf_counter()
    run, out = options.run or only_run(), options.out
    with progress("scoring (compiling first)") as bar:
        own = ("customers", "out", "run", "dataset", *vars(Common()))
        wanted: dict[str, Any] = {name: value for name, value in vars(options).items() if name not in own}
        wanted |= {"dataset": shop_of(options.dataset, run), "at_most": limits(options.at_most)}
        counts, before = score_file(options.customers, out, run, **wanted, progress=bar, tell=remark)
    seconds = time.perf_counter() - began
    answer["counts"] = vars(counts)
    if not counts.scored:
        why = "every row was rejected" if counts.rows else "there are no rows in the input"
        console.print(f"No customer was scored: {why}. {out.name} is empty.")
    # As fast as it went since another process had scored those before; of few, the start is all of the time.
    rate = (
        f": {(counts.scored - before) / seconds:,.0f} customers per second" if counts.scored - before >= ENOUGH else ""
    )
    console.print(
        f"{counts.scored:,} customers, {counts.recommendations:,} recommendations, {counts.rejected:,} rows rejected, "
        f"in {seconds:,.1f} s{rate}"
    )
    for name, (lost, first) in counts.unknown.items():
        remark(f"{lost:,} of {counts.scored:,} customers have an unknown {name}; the first, {first}")
    for name, (lost, first) in counts.unseen.items():
        remark(f"{lost:,} of {counts.scored:,} customers have an unusual {name}; the first, {first}")
    if counts.unmatched:
        found = f"{counts.unmatched:,} of {counts.bought:,} purchases are the id of no product, so nothing was left out"
        console.print(f"{found} for them; the first in {options.customers.name}, {counts.first_unmatched}")
    if counts.rejected:
        console.print(f"The first rejected one, {counts.first}")
    console.print(f"Written: {', '.join(map(str, [out, rejected_file(out)] if counts.rejected else [out]))}")
    if counts.strangers:
        found = f"{counts.strangers:,} of {counts.scored:,} customers are not in {options.dataset}"
        console.print(f"{found}; the first, {counts.first_stranger}")
    if options.include_purchased:
        console.print("Nothing that customers bought was left out, as asked for: --include-purchased")
    elif counts.known:
        again = ""
        if options.dataset is not None and not counts.repeats:
            again = f'; repeat = "allowed" in {options.dataset}/dataset.toml would recommend it again'
        console.print(f"Left out: what {counts.known:,} of {counts.scored:,} customers bought{again}")
    else:
        named, column = options.purchases or options.dataset, f"a column {BOUGHT}"
        console.print(
            nothing_left_out(run, named=named, repeats=counts.repeats, bought=counts.bought > 0, by_hand=column)
        )


def only_run() -> Path:
    """The only folder under runs/ that holds a model. Raises `InputError` where there is none or several."""
    found, listed = trained_runs()
    if len(found) == 1:
        return found[0]
    raise InputError(f"run: found {listed} under runs/; name the folder with the trained model: --run RUN")
