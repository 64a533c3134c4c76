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
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from recsys_jax import InputError, Recommender
from recsys_jax.schema import MultiCategorical


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
    rec = Recommender.load(options.run, options.boosts)
    listed = {f.feature.column for f in rec.model.customers if isinstance(f.feature, MultiCategorical)}
    attributes: dict[str, str | list[str]] = {}
    for word in options.attributes:
        name, sign, value = word.partition("=")
        if not sign or name in attributes:
            raise InputError(f"attributes: found {word!r}; allowed: each attribute once, as NAME=VALUE")
        attributes[name] = value.split(",") if name in listed else value
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
    columns = [name for name in ("brand", "category", "price") if any(one[name] is not None for one in found)]
    boosted = any(one["boosts"] for one in found)
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("")
    table.add_column("product", overflow="fold", ratio=1)
    for name in [*columns, "score", *(["boost"] if boosted else [])]:
        table.add_column(name, justify="left" if name in ("brand", "category") else "right", no_wrap=True)
    for place, one in enumerate(found, 1):
        product = Text(f"{one['name']}\n" if one["name"] else "").append(one["product_id"], "dim")
        cells = [f"{one[name]:,}" if isinstance(one[name], int | float) else str(one[name] or "") for name in columns]
        boost = [f"{one['boost']:+.2f}"] if boosted else []
        table.add_row(str(place), product, *cells, f"{one['score']:.3f}", *boost)
    console.print(table)


if __name__ == "__main__":
    command(main)
