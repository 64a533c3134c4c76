"""Recommends to one customer, such as `recsys-jax recommend runs/amoremall age=32 gender=F skin_type=dry`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from recsys_jax import InputError, Recommender
from recsys_jax.console.recommendations import show
from recsys_jax.console.terminal import console, note, print_json
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
    rec = Recommender.load(options.run, options.boosts, tell=note)
    attributes: dict[str, Any] = {}
    for word in options.attributes:
        name, sign, value = word.partition("=")
        if not sign or name in attributes:
            raise InputError(f"attributes: found {word!r}; allowed: each attribute once, as NAME=VALUE")
        attributes[name] = _values(rec, name, value)
    for product in rec.unmatched(options.purchased):
        note(f"purchased: the catalogue has no product {product!r}")
    found = rec.recommend(
        purchased_products=options.purchased,
        top_n=options.top_n,
        categories=options.categories or None,
        **attributes,
    )
    if options.json:
        print_json(found)
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
            items = feature.items(value) or [value]
            items = value.split(",") if len(items) < 2 else items
        for item in items:
            if feature.unknown != "error" and fitted.canonical(item) is None:
                note(f"{name}: the model does not know {item!r}; it knows {fitted.allowed()}")
        return items if isinstance(feature, MultiCategorical) else value
    return value
