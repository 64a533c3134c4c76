"""One customer per review.

An attribute is what the review's `profile_info` states, else its text, else what is drawn for its persona. It never
comes from the purchased product. But persona and text come from the review of that very product, so a persona has seen
the answer: an evaluation on these customers must say so.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from recsys_jax.data.dataset import Reviews
from recsys_jax.personas.catalogue import Catalogue, drawn
from recsys_jax.personas.clustering import PersonaModel, assign
from recsys_jax.personas.profiles import parse_profile, profile_of_text


def _stated(reviews: Reviews, catalogue: Catalogue) -> list[dict[str, tuple[Any, str]]]:
    """The attributes that each review states, each with its source; the profile wins over the text."""
    rows, read = [], (catalogue.attributes, catalogue.language)
    for text, profile in zip(reviews.texts, reviews.profiles, strict=True):
        stated = [("text", profile_of_text(text, *read)), ("profile_info", parse_profile(profile, *read)[0])]
        rows.append({key: (x, source) for source, said in stated for key, x in said.items()})
    return rows


def customer_rows(
    reviews: Reviews,
    model: PersonaModel,
    embeddings: Float[np.ndarray, "n d"],
    seed: int,
    categories: Mapping[str, object] | None = None,
) -> dict[str, list[Any]]:
    """One customer per review, as columns. `categories` maps product ids to the column `product_category`.

    A customer's random draws depend only on `seed` and the index of the review, not on the number of reviews. An
    attribute that is neither stated nor drawn is None.
    """
    labels = assign(model, embeddings)[0].tolist()
    rows = []
    for index, (label, stated) in enumerate(zip(labels, _stated(reviews, model.catalogue), strict=True)):
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


def attribute_sources(reviews: Reviews, model: PersonaModel, labels: Int[np.ndarray, " n"]) -> dict[str, Counter[str]]:
    """The number of customers with each attribute from "profile_info", "text" or "persona", or "missing" it.

    The key "not used" counts the parts of profiles that are not understood or contradict an earlier part.
    """
    read = model.catalogue.attributes, model.catalogue.language
    counts: dict[str, Counter[str]] = {attribute.name: Counter() for attribute in model.catalogue.attributes}
    drawn = [model.draws(number) for number in range(len(model.personas))]
    for stated, label in zip(_stated(reviews, model.catalogue), labels.tolist(), strict=True):
        for name, count in counts.items():
            other = "persona" if name in drawn[label] else "missing"
            count[stated[name][1] if name in stated else other] += 1
    counts["not used"] = Counter(part for profile in reviews.profiles for part in parse_profile(profile, *read)[1])
    return counts
