"""Reviews, and one customer for each.

An attribute is what the review's `profile_info` states, else its text, else what is drawn for its persona. It never
comes from the purchased product. But persona and text come from the review of that very product, so a persona has seen
the answer: an evaluation on these customers must say so.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from recsys_jax.data.dataset import usable_products
from recsys_jax.data.schema import Schema
from recsys_jax.data.tables import SetAside, Validation
from recsys_jax.data.tabular.readers import RepeatedKey, read_table
from recsys_jax.data.values import as_id, as_key, composed, has_lone_surrogate
from recsys_jax.errors import InputError, shown
from recsys_jax.personas.catalogue import Catalogue, drawn
from recsys_jax.personas.clustering import PersonaModel, assign
from recsys_jax.personas.encoders import Progress
from recsys_jax.personas.profiles import parse_profile, profile_of_text

_LONGEST_PROFILE = 1000  # Characters: a longer text is no profile.
_TOLD = 64  # Reviews between two calls of `progress`.


@dataclass(frozen=True)
class Reviews:
    """Review texts and the product of each; all lists have one entry per review."""

    source: str
    texts: list[str]
    product_ids: list[str]
    profiles: list[str | None]
    """`profile_info` such as "40대/남성/복합성/주름", where a review has one."""
    validation: Validation | None = None
    """The counts of the reviews in their file."""

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def fingerprint(self) -> str:
        """A checksum of what customers are made of."""
        content = json.dumps([self.texts, self.product_ids, self.profiles])
        return hashlib.sha256(content.encode()).hexdigest()


def read_reviews(folder: Path, schema: Schema) -> Reviews:
    """The usable reviews nested in the product table; `Reviews.validation` counts the others.

    Raises `InputError` where there are none, or more than one in ten is unusable.
    """
    column = schema.products.reviews
    if column is None:
        raise InputError(f"{folder / 'dataset.toml'}: [products] reviews names no column, so there are no reviews")
    table = read_table(folder / schema.products.file)
    unusable = {one.row for one in usable_products(table, schema)[0].set_aside}
    nothing = schema.missing_values.texts
    reviews: list[tuple[str, str, str | None]] = []
    set_aside: list[SetAside] = []
    for row, (value, nested) in enumerate(zip(table.column(schema.products.id), table.column(column), strict=True)):
        number = table.number(row)
        if not isinstance(nested, list):
            reason = f"{column}: found {shown(nested)}; allowed: a list of reviews, empty where there are none"
            set_aside.append(SetAside(table.source, number, reason))
            continue
        for place, review in enumerate(nested, 1):
            problem = "its product is set aside" if number in unusable else _review_problem(review, nothing)
            if problem:
                set_aside.append(SetAside(table.source, number, f"{column} {place}: {problem}"))
            else:
                profile = as_key(review.get("profile_info"))
                said = None if profile in nothing else profile
                reviews.append((composed(review["content"]), as_id(value) or "", said))
    validation = Validation(table.source, len(reviews), tuple(set_aside), "reviews", table.remarks)
    if not validation.read:
        raise InputError(f"{table.source}: there are no reviews in its column {column!r}")
    validation.refuse_many()
    texts, ids, profiles = map(list, zip(*reviews, strict=True))
    return Reviews(table.source, texts, ids, profiles, validation)


def _review_problem(review: Any, nothing: Container[str | None]) -> str | None:
    if isinstance(review, RepeatedKey):
        return f"found the key {review.key!r} twice; allowed: each once"
    text = review.get("content") if isinstance(review, dict) else None
    if not isinstance(text, str) or not text.strip() or as_key(text) in nothing:
        return f"content: found {shown(text)}; allowed: the review's text, not empty"
    profile = review.get("profile_info")
    if not isinstance(profile, str | None) or len(profile or "") > _LONGEST_PROFILE:
        return (
            f"profile_info: found {shown(profile)}; allowed: a text such as '30대/여성/건성' of up to "
            f"{_LONGEST_PROFILE} characters, or null"
        )
    halves = [name for name, said in (("content", text), ("profile_info", profile)) if has_lone_surrogate(said)]
    return f"{halves[0]}: found half a character (a lone surrogate); allowed: whole ones" if halves else None


def _stated(
    reviews: Reviews, catalogue: Catalogue, progress: Progress | None = None
) -> list[dict[str, tuple[Any, str]]]:
    """The attributes that each review states, each with its source; the profile wins over the text."""
    known, language = catalogue.read, (catalogue.attributes, catalogue.language)
    for number, review in enumerate(zip(reviews.texts, reviews.profiles, strict=True)):
        if progress is not None and number % _TOLD == 0:
            progress(number, len(reviews))
        if review not in known:
            text, profile = review
            stated = [
                ("text", profile_of_text(text, *language)),
                ("profile_info", parse_profile(profile, *language)[0]),
            ]
            known[review] = {key: (x, source) for source, said in stated for key, x in said.items()}
    return [known[review] for review in zip(reviews.texts, reviews.profiles, strict=True)]


def profiles_alone(reviews: Reviews, catalogue: Catalogue, columns: Iterable[str]) -> bool:
    """Whether profiles alone say what customers state in these columns: no text, persona or product is read for one."""
    drawn = {one.name for one in catalogue.attributes if one.draw is not None}
    drawn.update(*(one.draws for one in catalogue.personas))
    stated, known = _stated(reviews, catalogue), {one.name for one in catalogue.attributes}

    def own(name: str) -> bool:
        return all(row[name][1] == "profile_info" if name in row else name not in drawn for row in stated)

    return all(name in known and own(name) for name in columns)


def customer_rows(
    reviews: Reviews,
    model: PersonaModel,
    embeddings: Float[np.ndarray, "n d"],
    seed: int,
    categories: Mapping[str, object] | None = None,
    progress: Progress | None = None,
) -> dict[str, list[Any]]:
    """One customer per review, as columns. `categories` maps product ids to the column `product_category`.

    A customer's random draws depend only on `seed` and the index of the review, not on the number of reviews. An
    attribute that is neither stated nor drawn is None.
    """
    labels = assign(model, embeddings)[0].tolist()
    rows = []
    for index, (label, stated) in enumerate(zip(labels, _stated(reviews, model.catalogue, progress), strict=True)):
        product = reviews.product_ids[index]
        rng = np.random.default_rng([seed, index])
        # All are always drawn: a stated age must not change the gender that is drawn.
        own: dict[str, Any] = {one.name: None for one in model.catalogue.attributes}
        own |= {name: drawn(draw, rng) for name, draw in model.draws(label).items()}
        row = {"user_id": f"user_{index + 1:04d}", "persona_id": label, "persona_name": model.names[label]}
        row |= own | {key: value for key, (value, _) in stated.items()} | {"purchased_product_id": product}
        if categories is not None:
            row["product_category"] = categories[product]
        rows.append(row)
    return {key: [row[key] for row in rows] for key in rows[0]} if rows else {}


def not_used(reviews: Reviews, catalogue: Catalogue, most: int = 10) -> list[str]:
    """A note on parts of profiles that are not understood or contradict an earlier part, the `most` common by name."""
    read = catalogue.attributes, catalogue.language
    parts = Counter(part for profile in reviews.profiles for part in parse_profile(profile, *read)[1]).most_common()
    if not parts:
        return []
    told = [f"{shown(part)} ({count:,})" for part, count in parts[:most]]
    if rest := parts[most:]:
        told.append(f"{len(rest):,} more ({sum(count for _, count in rest):,})")
    return [f"{reviews.source}: of what reviewers state, this is not used: {', '.join(told)}"]


def attribute_sources(reviews: Reviews, model: PersonaModel, labels: Int[np.ndarray, " n"]) -> dict[str, Counter[str]]:
    """The number of customers with each attribute from "profile_info", "text" or "persona", or "missing" it."""
    counts: dict[str, Counter[str]] = {attribute.name: Counter() for attribute in model.catalogue.attributes}
    drawn = [model.draws(number) for number in range(len(model.personas))]
    for stated, label in zip(_stated(reviews, model.catalogue), labels.tolist(), strict=True):
        for name, count in counts.items():
            other = "persona" if name in drawn[label] else "missing"
            count[stated[name][1] if name in stated else other] += 1
    return counts
