"""Recommends to one customer, such as `recsys-jax recommend runs/amoremall age=32 gender=F skin_type=dry`."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import tyro

from recsys_jax import InputError, Recommender
from recsys_jax.console.options import Common
from recsys_jax.console.places import trained_runs
from recsys_jax.console.recommendations import limits, nothing_left_out, shop_of, show
from recsys_jax.console.terminal import console, note, print_json
from recsys_jax.data.dataset import read_ids
from recsys_jax.data.features import FittedFeature
from recsys_jax.data.files import sheet_text, write_file
from recsys_jax.data.schema import As, Feature, MultiCategorical, Numeric
from recsys_jax.data.values import as_id, composed
from recsys_jax.errors import nearest_id, require
from recsys_jax.serving.history import bought_again
from recsys_jax.serving.ranking import column_named, not_known


@dataclass(frozen=True)
class Options(Common):
    """Recommends products to one customer of whom attributes are known."""

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """The folder with the trained model."""
    attributes: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE ...")]] = ()
    """What is known, such as age=32 gender=F. Several values of one attribute: genres=Drama,Comedy."""
    purchased: tuple[str, ...] = ()
    """Ids of products bought already; they are not recommended."""
    customer: str | None = None
    """The id of a customer in --dataset, whose attributes and purchases are known from there, or in --purchases."""
    dataset: Path | None = None
    """The folder of the dataset that knows the customer."""
    purchases: Path | None = None
    """A file of purchases like the one that the dataset names, which knows what the customer bought."""
    top_n: int = 3
    """How many products."""
    categories: tuple[str, ...] = ()
    """Only products of these categories."""
    available: Path | None = None
    """Only products in this table (CSV, JSON, Parquet), by its column with their ids: what is in stock."""
    boosts: Path | None = None
    """A TOML file with boost rules."""
    diversity: float = 0.0
    """From 0, the best products, to 1: each as unlike those before it as can be."""
    at_most: tuple[str, ...] = ()
    """How many products with the same value, such as brand=2 category=3."""
    pinned: tuple[str, ...] = ()
    """Ids of products that come first."""
    explain: bool = False
    """Say why each is recommended: what attributes, popularity and rules add."""
    csv: Path | None = None
    """Write the list as CSV to this file, too: UTF-8, which Excel opens by Data, From Text/CSV."""
    lists = True
    examples = (
        "runs/amoremall age=32 gender=F skin_type=dry skin_concern=moisture",
        "runs/amoremall skin_type=dry --top-n 5 --at-most brand=1 --explain",
        "runs/shop --dataset shop --customer 00123 --categories Tea --json",
    )


def main(options: Options) -> None:
    """Recommends and prints."""
    forgotten = "=" in options.run.name and not options.run.exists()
    allowed = f"first RUN, the folder with the trained model; under runs/ there are {trained_runs()[1]}"
    require(not forgotten, "run", str(options.run), allowed)
    known = options.dataset or options.purchases
    together = (known is None) == (options.customer is None)
    require(together, "customer", options.customer, "an id, together with --dataset or --purchases")
    shop = shop_of(options.dataset, options.run)
    rec = Recommender.load(options.run, options.boosts, dataset=shop, purchases=options.purchases, tell=note)
    attributes: dict[str, Any] = {}
    for word in options.attributes:
        name, sign, value = composed(word).partition("=")
        name = column_named(name, rec.column_of) or name
        if not sign or name in attributes:
            raise InputError(f"attributes: found {word!r}; allowed: each attribute once, as NAME=VALUE")
        attributes[name] = _values(rec, name, value)
    for said in not_known(rec.model.customers, attributes):
        note(said)
    for product in rec.unmatched(options.purchased):
        note(f"purchased: the catalogue has no product {product!r}{nearest_id(str(product), rec.product_ids)}")
    stock = None if options.available is None else read_ids(options.available, rec.model.schema)
    if said := rec.unmatched_note("available", stock or ()):
        note(said)
    say = note if options.json else console.print  # JSON stays alone on the standard output
    found = rec.recommend(
        attributes=attributes,
        customer_id=options.customer,
        purchased_products=options.purchased,
        top_n=options.top_n,
        categories=options.categories or None,
        available=stock,
        diversity=options.diversity,
        at_most=limits(options.at_most),
        pinned=options.pinned,
        standing=True,
        explain=options.explain,
    )
    listed = {one["product_id"] for one in found}
    for product in options.pinned[: options.top_n]:
        if as_id(product) not in listed:
            note(f"pinned: {product} is left out: it was bought, or is not among what is asked for")
    if options.csv is not None:
        names = [name for name in (found[0] if found else {}) if name not in ("boosts", "reasons")]
        rows = [["place", *names], *([place, *(one[name] for name in names)] for place, one in enumerate(found, 1))]
        write_file(options.csv, sheet_text([["" if value is None else value for value in row] for row in rows]))
    if options.json:
        print_json(found)
    else:
        rules = [f"--{name.replace('_', '-')}" for name in ("diversity", "at_most", "pinned") if vars(options)[name]]
        title = ", ".join([*([options.customer] if options.customer else []), *options.attributes])
        show(found, title, f", as far as {' and '.join(rules)} let it" if rules else "")
        if len(found) < options.top_n:
            console.print(f"Only {len(found)} products remain.")
        taken = [_taken(one.feature) for one in rec.model.customers if _nothing(one, attributes)]
        if taken and options.customer is None:
            console.print(f"Not stated, so taken as dataset.toml says: {', '.join(taken)}")
    if options.csv is not None:
        say(f"Written: {options.csv}")
    bought = [*options.purchased, *chain(*(rec.history.of_ids([options.customer]) if rec.history else ()))]
    if len(rec.unmatched(bought)) == len(bought):
        repeats = bought_again(rec.model.schema, rec.history) and not options.purchased
        ways: dict[str, Any] = {"by_hand": "--purchased", "more": " --customer ID"}
        ways["made"] = rec.model.schema.customers.file is None
        say(nothing_left_out(options.run, named=known, repeats=repeats, bought=bool(bought), **ways))


def _taken(feature: Feature) -> str:
    """What an attribute that is not stated is taken for, where that is a value."""
    return f"{feature.column} {feature.missing.value}" if isinstance(feature.missing, As) else feature.column


def _nothing(fitted: FittedFeature, stated: Mapping[str, object]) -> bool:
    """Whether an attribute counts as not stated."""
    feature, value = fitted.feature, stated.get(fitted.feature.column)
    if isinstance(feature, Numeric):
        return feature.is_missing(value) or (feature.unknown == "missing" and bool(fitted.unknown(value)))
    return not feature.items(value)


def _values(rec: Recommender, name: str, value: str) -> object:
    """An attribute's value or values."""
    for fitted in rec.model.customers:
        feature = fitted.feature
        if feature.column != name or not isinstance(feature, MultiCategorical):
            continue
        # A value may hold a comma itself: only what is no value as a whole is taken apart.
        if fitted.canonical(value) is not None:
            return [value]
        items = feature.items(value) or [value]
        return value.split(",") if len(items) < 2 else items
    return value
