"""Synthetic populations of any size with known preferences: tables for benchmarks, without review texts."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.random import Generator

from recsys_jax.data.files import replace_file, write_file
from recsys_jax.errors import InputError, installing, require
from recsys_jax.synthetic import malls
from recsys_jax.synthetic.malls import CATEGORIES, PERSONAS, REVIEWS, SKIN_TYPES, Floats, Ints

SKIN_CONCERNS = ("moisture", "wrinkle", "gift", "repurchase", "calming", "texture")  # as the personas are

# Shares of the skin types by persona: attributes correlate with the persona without determining it.
SKIN_TYPE_SHARES = np.array(
    [
        [0.60, 0.05, 0.15, 0.10, 0.10],
        [0.30, 0.10, 0.35, 0.10, 0.15],
        [0.20, 0.20, 0.20, 0.20, 0.20],
        [0.10, 0.30, 0.30, 0.05, 0.25],
        [0.10, 0.10, 0.15, 0.60, 0.05],
        [0.10, 0.35, 0.35, 0.10, 0.10],
    ]
)
CONCERN_KNOWN = 0.7  # share of customers with the persona's own concern; the others have a random one
AGES = np.array([33, 48, 38, 40, 28, 31])
MORE_PURCHASES = 2.0  # mean purchases of a customer beyond the first
BRAND_GROUPS, PRICE_LEVELS = 12, 5
ZIPF, ZIPF_FROM = 0.9, 10.0  # the product of rank r is bought in proportion to (r + 10) ** -0.9


@dataclass(frozen=True)
class Population:
    """Columns of products and customers, purchases as pairs of indices, and the planted preferences."""

    products: dict[str, Any]
    customers: dict[str, Any]
    customer: Int[np.ndarray, " purchases"]
    product: Int[np.ndarray, " purchases"]
    preference: Float[np.ndarray, "personas products"]


def population(customers: int, products: int, seed: int) -> Population:
    """Customers with attributes, products, purchases, and the planted P(product | persona).

    >>> made = population(100, 20, seed=0)
    >>> len(made.customers["user_id"]), made.preference.shape
    (100, (6, 20))
    """
    for name, count in (("customers", customers), ("products", products)):
        require(1 <= count < 2**31, name, count, "from 1 to 2147483647")
    rng = malls.generator(seed)
    goods, category, brand, level = _goods(products, rng)
    utility = _group_utility(rng)[:, category, brand % BRAND_GROUPS, level]
    popularity = (ZIPF_FROM + rng.permutation(products)) ** -ZIPF
    weight = popularity * np.exp(utility)
    preference = weight / weight.sum(axis=1, keepdims=True)
    people, persona = _people(customers, rng)
    customer, product = _purchases(persona, preference, rng)
    return Population(goods, people, customer, product, preference)


def _goods(size: int, rng: Generator) -> tuple[dict[str, Any], Ints, Ints, Ints]:
    """The columns of the products, and the numbers of their category, brand and price level."""
    words = malls.sentence_bank()
    reviews = REVIEWS.sum(axis=0)
    category = _choose(reviews / reviews.sum(), size, rng)
    # A few large brands and many small ones, as in a shop.
    brand = (min(max(19, size // 5), 4000) * rng.random(size) ** 2).astype(np.int64)
    place = rng.random(size)
    price, name = np.empty(size, np.int64), np.empty(size, object)
    for index, (number, quartiles) in enumerate(zip(CATEGORIES, malls.PRICES, strict=True)):
        here, there = np.flatnonzero(category == index), words["categories"][str(number)]
        price[here] = np.interp(place[here], np.linspace(0, 1, 5), quartiles).round(-2)
        full = [" ".join((line, *item.split("|")[::2])) for line in there["lines"] for item in there["products"]]
        name[here] = np.array(full, object)[rng.integers(len(full), size=len(here))]
    ratings = np.array(list(malls.RATINGS.values()))
    columns = {
        "product_id": [f"P{row:07d}" for row in range(size)],
        "product_name": name,
        "price": price,
        "brand_name": [f"브랜드{row:04d}" for row in brand],
        "category": np.array(CATEGORIES)[category],
        "rating": np.array(list(malls.RATINGS))[_choose(ratings / ratings.sum(), size, rng)],
    }
    return columns, category, brand, (place * PRICE_LEVELS).astype(np.int64)


def _group_utility(rng: Generator) -> Floats:
    """Each persona's utility of each category, group of brands and price level."""
    # One more review each, so that no persona is excluded from a category.
    liked = np.log((REVIEWS + 1) / (REVIEWS + 1).sum(axis=1, keepdims=True) / REVIEWS.sum(axis=0))
    of_brand = rng.standard_normal((len(PERSONAS), 1, BRAND_GROUPS))
    twist = 0.3 * rng.standard_normal((len(PERSONAS), len(CATEGORIES), BRAND_GROUPS))
    level = (np.arange(PRICE_LEVELS) + 0.5) / PRICE_LEVELS
    bell = -0.5 * ((level - malls.PRICE_IDEAL[:, None]) / (2 * malls.PRICE_WIDTH)) ** 2
    utility: Floats = (liked[:, :, None] + of_brand + twist)[..., None] + bell[:, None, None, :]
    return utility


def _people(size: int, rng: Generator) -> tuple[dict[str, Any], Ints]:
    """The columns of the customers, and the numbers of their personas."""
    reviews = REVIEWS.sum(axis=1)
    persona = _choose(reviews / reviews.sum(), size, rng)
    skin = np.empty(size, np.int64)
    for index, shares in enumerate(SKIN_TYPE_SHARES):
        here = np.flatnonzero(persona == index)
        skin[here] = _choose(shares, len(here), rng)
    known = rng.random(size) < CONCERN_KNOWN
    # There is one concern for each persona, in the same order.
    concern = np.where(known, persona, rng.integers(len(SKIN_CONCERNS), size=size))
    age = np.clip(np.round(AGES[persona] + 8 * rng.standard_normal(size)), 15, 79).astype(np.int64)
    columns = {
        "user_id": [f"U{row:08d}" for row in range(size)],
        "persona_id": persona,
        "persona_name": np.array(PERSONAS, object)[persona],
        "age": age,
        "gender": np.where(rng.random(size) < malls.WOMEN, "F", "M").astype(object),
        "skin_type": np.array(SKIN_TYPES, object)[skin],
        "skin_concern": np.array(SKIN_CONCERNS, object)[concern],
    }
    return columns, persona


def _purchases(persona: Ints, preference: Floats, rng: Generator) -> tuple[Ints, Ints]:
    """Purchases as (customer, product), sorted, each pair once: repeated ones are drawn again."""
    size = preference.shape[1]
    wanted = np.minimum(1 + rng.poisson(MORE_PURCHASES, len(persona)), size)
    bought, missing = np.empty(0, np.int64), wanted
    # With few products, a customer whose draws keep repeating ends with fewer than wanted.
    for _ in range(50):
        customer = np.repeat(np.arange(len(persona)), missing)
        product = np.empty(len(customer), np.int64)
        for index, shares in enumerate(preference):
            here = np.flatnonzero(persona[customer] == index)
            product[here] = _choose(shares, len(here), rng)
        drawn = np.unique(customer * size + product)
        place = np.searchsorted(bought, drawn)
        new = np.append(bought, -1)[place] != drawn
        bought = np.insert(bought, place[new], drawn[new])
        missing = missing - np.bincount(drawn[new] // size, minlength=len(persona))
        if not missing.any():
            break
    return bought // size, bought % size


def _choose(shares: Floats, size: int, rng: Generator) -> Ints:
    """`size` numbers drawn with these shares; faster than `Generator.choice` for many of both."""
    edges = np.cumsum(shares)
    return np.searchsorted(edges[:-1] / edges[-1], rng.random(size), side="right")


def write_population(made: Population, folder: Path) -> list[Path]:
    """Writes the Parquet tables, the truth and a `dataset.toml` into the folder; returns their paths."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError(f"Parquet files need pyarrow: {installing('parquet')}") from None

    customer_ids, product_ids = pa.array(made.customers["user_id"]), pa.array(made.products["product_id"])
    tables = {
        "products": made.products,
        "customers": made.customers,
        "interactions": {
            "user_id": customer_ids.take(pa.array(made.customer)),
            "product_id": product_ids.take(pa.array(made.product)),
        },
        "truth": {"product_id": product_ids, **dict(zip(PERSONAS, made.preference, strict=True))},
    }
    paths = [folder / "dataset.toml"]
    write_file(paths[0], malls.sentence_bank()["population"]["dataset"])
    for name, columns in tables.items():
        paths.append(folder / f"{name}.parquet")
        replace_file(paths[-1], partial(pq.write_table, pa.table(columns)))
    return paths
