"""A small shop of headphones with English reviews: a persona catalogue that is not of cosmetics, to be tried out."""

import json
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

from numpy.random import Generator

from recsys_jax.data.files import write_file
from recsys_jax.synthetic.malls import generator

REVIEWS = 6  # of each product
FAITHFUL = 0.8  # share of reviews by the kind of customer that a product is made for
STATED, PROFILES = 0.4, 0.5  # shares of reviews whose text, and whose profile, states attributes


def write_headphones(folder: Path, seed: int) -> list[Path]:
    """Writes dataset.toml, personas.toml, products.json and the truth, who wrote each review; returns the paths."""
    rng = generator(seed)
    words = tomllib.loads(files("recsys_jax.synthetic").joinpath("headphones.toml").read_text("utf-8"))
    products: list[dict[str, Any]] = []
    truth: list[str] = []
    for kind, about in words["kinds"].items():
        for name in about["names"]:
            everybody = list(words["writers"])
            faithful, anybody = rng.random(REVIEWS) < FAITHFUL, rng.integers(len(everybody), size=REVIEWS)
            writers = [about["writer"] if own else everybody[at] for own, at in zip(faithful, anybody, strict=True)]
            reviews = [_review(words["writers"][writer], words["neutral"]["sentences"], rng) for writer in writers]
            price = round(about["price"] * rng.uniform(0.7, 1.3), 2)
            head = {"sku": f"H{len(products) + 1:02}", "name": name, "brand": words["brands"][rng.integers(4)]}
            products.append({**head, "kind": kind, "price": price, "reviews": reviews})
            truth += writers
    tables = {"products.json": products, "truth.json": truth}
    contents = {"dataset.toml": words["dataset"], "personas.toml": words["personas"]}
    contents |= {name: json.dumps(rows, indent=1) + "\n" for name, rows in tables.items()}
    for name, content in contents.items():
        write_file(folder / name, content)
    return [folder / name for name in contents]


def _review(writer: dict[str, Any], neutral: list[str], rng: Generator) -> dict[str, str]:
    """A few sentences of the writer's theme, what they state of themselves, and something that anybody says."""
    slots = {"age": rng.integers(18, 60), "hours": rng.integers(2, 9)}
    lines = [writer["sentences"][at] for at in rng.permutation(len(writer["sentences"]))[: rng.integers(2, 5)]]
    if rng.random() < STATED:
        lines.append(writer["stated"][rng.integers(len(writer["stated"]))].format(**slots))
    lines.append(neutral[rng.integers(len(neutral))])
    review = {"content": ". ".join(lines) + "."}
    if rng.random() < PROFILES:
        review["profile_info"] = f"{slots['age']} / {writer['profile']} / {slots['hours']} hours"
    return review
