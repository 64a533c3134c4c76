"""One customer per review.

An attribute is what the review's `profile_info` states, else its text, else the persona's default. It never comes from
the purchased product. But persona and text come from the review of that very product, so a persona has seen the answer:
an evaluation on these customers must say so.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Float

from recsys_jax.data.dataset import Reviews
from recsys_jax.personas.clustering import PersonaModel, assign
from recsys_jax.personas.profiles import parse_profile, profile_of_text

ATTRIBUTES = ("age", "gender", "skin_type", "skin_concern")


def _attributes(reviews: Reviews) -> list[dict[str, tuple[Any, str]]]:
    """The attributes that each review states, each with its source; the profile wins over the text."""
    rows = []
    for text, profile in zip(reviews.texts, reviews.profiles, strict=True):
        stated = [("text", profile_of_text(text)), ("profile_info", parse_profile(profile)[0])]
        rows.append({key: (x, source) for source, said in stated for key, x in asdict(said).items() if x is not None})
    return rows


def customer_rows(
    reviews: Reviews,
    model: PersonaModel,
    embeddings: Float[np.ndarray, "n d"],
    seed: int,
    categories: Mapping[str, object] | None = None,
) -> dict[str, list[Any]]:
    """One customer per review, as columns. `categories` maps product ids to the column `product_category`.

    A customer's random draws depend only on `seed` and the index of the review, not on the number of reviews.
    """
    labels = assign(model, embeddings)[0].tolist()
    rows = []
    for index, (label, stated) in enumerate(zip(labels, _attributes(reviews), strict=True)):
        persona, product = model.personas[label], reviews.product_ids[index]
        rng = np.random.default_rng([seed, index])
        # Both are always drawn: a stated age must not change the gender that is drawn.
        youngest, oldest = persona.age
        age, other = int(rng.integers(youngest, oldest, endpoint=True)), rng.random() >= persona.female_share
        own = dict(zip(ATTRIBUTES, (age, "FM"[other], persona.skin_type, persona.skin_concern), strict=True))
        row = {"user_id": f"user_{index + 1:04d}", "persona_id": label, "persona_name": persona.name}
        row |= own | {key: value for key, (value, _) in stated.items()} | {"purchased_product_id": product}
        if categories is not None:
            row["product_category"] = categories[product]
        rows.append(row)
    return {key: [row[key] for row in rows] for key in rows[0]} if rows else {}


def attribute_sources(reviews: Reviews) -> dict[str, Counter[str]]:
    """The number of customers with each attribute from "profile_info", "text" or "persona".

    The key "not used" counts the parts of profiles that are not understood or contradict an earlier part.
    """
    stated = _attributes(reviews)
    counts = {name: Counter(row.get(name, (None, "persona"))[1] for row in stated) for name in ATTRIBUTES}
    counts["not used"] = Counter(part for profile in reviews.profiles for part in parse_profile(profile)[1])
    return counts
