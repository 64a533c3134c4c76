"""Recommends products to one customer of whom attributes are known.

Example: recsys-jax recommend runs/amoremall age=32 gender=F skin_type=dry skin_concern=moisture --top-n 5
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from recsys_jax import InputError, Recommender
from recsys_jax.console.terminal import console, errors
from recsys_jax.data.schema import Categorical, MultiCategorical


@dataclass(frozen=True)
class Options:
    """Recommends products to one customer of whom attributes are known."""

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """The folder with the trained model."""
    attributes: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE")]] = ()
    """What is known, such as age=32 gender=F. Several values of one attribute: genres=Drama,Comedy."""
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
    attributes: dict[str, object] = {}
    for word in options.attributes:
        name, sign, value = word.partition("=")
        if not sign or name in attributes:
            raise InputError(f"attributes: found {word!r}; allowed: each attribute once, as NAME=VALUE")
        attributes[name] = _values(rec, name, value)
    for product in options.purchased:
        if product not in rec.model.product_ids:
            errors.print(f"note: purchased: the catalogue has no product {product!r}")
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


def _values(rec: Recommender, name: str, value: str) -> object:
    """An attribute's value or values; says which ones the model does not know, where a policy lets them pass."""
    for fitted in rec.model.customers:
        feature = fitted.feature
        if feature.column != name or not isinstance(feature, Categorical):
            continue
        items = [value]
        # A value may hold a comma itself: only what is no value as a whole is taken apart.
        if isinstance(feature, MultiCategorical) and fitted.canonical(value) is None:
            items = feature.items(value)
            items = value.split(",") if len(items) < 2 else items
        for item in items:
            if feature.unknown != "error" and fitted.canonical(item) is None:
                errors.print(f"note: {name}: the model does not know {item!r}; it knows {fitted.allowed()}")
        return items if isinstance(feature, MultiCategorical) else value
    return value


def show(found: Sequence[dict[str, Any]], title: str) -> None:
    """Recommendations as a table; columns that the dataset does not have are left out."""
    columns = [name for name in ("brand", "category", "price") if any(one[name] is not None for one in found)]
    boosted = any(abs(one["boost"]) >= 0.005 for one in found)  # what would be shown as nothing is not shown
    whole = all(isinstance(one["price"], int | None) for one in found)
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("")
    # Names may wrap; an id must stay in one piece, to be copied.
    table.add_column("product", overflow="fold", min_width=max((len(one["product_id"]) for one in found), default=0))
    for name in [*columns, "score", *(["boost"] if boosted else [])]:
        text = name in ("brand", "category")
        table.add_column(name, justify="left" if text else "right", no_wrap=not text, overflow="fold")
    for place, one in enumerate(found, 1):
        product = Text(f"{one['name']}\n" if one["name"] else "").append(one["product_id"], "dim")
        boost = [f"{one['boost']:+.2f}"] if boosted else []
        table.add_row(
            str(place), product, *(_shown(one[name], whole) for name in columns), f"{one['score']:.3f}", *boost
        )
    console.print(table)


def _shown(value: object, whole: bool) -> str:
    if isinstance(value, int | float):
        return f"{value:,}" if whole else f"{value:,.2f}"
    return "" if value is None else str(value)
