"""Recommends products to one customer of whom attributes are known.

Example: python scripts/recommend.py runs/amoremall age=32 gender=F skin_type=dry skin_concern=moisture --top-n 5
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from _common import command, console
from rich.table import Table

from recsys_jax import InputError, Recommender


@dataclass(frozen=True)
class Options:
    """Recommends products to one customer of whom attributes are known."""

    run: tyro.conf.Positional[Path]
    """The folder with the trained model."""
    attributes: tyro.conf.Positional[tuple[str, ...]] = ()
    """What is known, as NAME=VALUE: age=32 gender=F. Several values of one attribute: genres=Drama,Comedy."""
    purchased: tuple[str, ...] = ()
    """Ids of products bought already; they are not recommended."""
    top_n: int = 3
    """How many products."""
    categories: tuple[str, ...] = ()
    """Only products of these categories."""
    boosts: Path | None = None
    """A TOML file with boost rules."""
    json: bool = False
    """Print JSON instead of a table."""


def main(options: Options) -> None:
    """Recommends and prints."""
    attributes: dict[str, str] = {}
    for word in options.attributes:
        name, sign, value = word.partition("=")
        if not sign or name in attributes:
            raise InputError(f"attributes: found {word!r}; allowed: each attribute once, as NAME=VALUE")
        attributes[name] = value
    rec = Recommender.load(options.run, options.boosts)
    found = rec.recommend(
        purchased_products=options.purchased,
        top_n=options.top_n,
        categories=options.categories or None,
        **attributes,
    )
    if options.json:
        print(json.dumps(found, ensure_ascii=False, indent=1))
    else:
        show(found, ", ".join(options.attributes))
        if len(found) < options.top_n:
            console.print(f"Only {len(found)} products remain.")


def show(found: Sequence[dict[str, Any]], title: str) -> None:
    """Recommendations as a table; columns that the dataset does not have are left out."""
    columns = [name for name in ("name", "brand", "category", "price") if any(one[name] is not None for one in found)]
    boosted = any(one["boosts"] for one in found)
    table = Table(title=title, title_justify="left")
    for name in ["", "product_id", *columns, "score", *(["boost"] if boosted else [])]:
        right = name in ("", "price", "score", "boost")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for place, one in enumerate(found, 1):
        cells = [f"{one[n]:,}" if isinstance(one[n], int | float) else str(one[n] or "") for n in columns]
        boost = [f"{one['boost']:+.2f}"] if boosted else []
        table.add_row(str(place), one["product_id"], *cells, f"{one['score']:.3f}", *boost)
    console.print(table)


if __name__ == "__main__":
    command(main)
