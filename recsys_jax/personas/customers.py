"""One customer per review.

An attribute is what the review's `profile_info` states, else its text, else what is drawn for its persona. It never
comes from the purchased product. But persona and text come from the review of that very product, so a persona has seen
the answer: an evaluation on these customers must say so.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

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
        persona, product = model.personas[label], reviews.product_ids[index]
        rng = np.random.default_rng([seed, index])
        # All are always drawn: a stated age must not change the gender that is drawn.
        draws = {one.name: persona.draws.get(one.name, one.draw) for one in model.catalogue.attributes}
        own = {name: None if draw is None else drawn(draw, rng) for name, draw in draws.items()}
        row = {"user_id": f"user_{index + 1:04d}", "persona_id": label, "persona_name": persona.name}
        row |= own | {key: value for key, (value, _) in stated.items()} | {"purchased_product_id": product}
        if categories is not None:
            row["product_category"] = categories[product]
        rows.append(row)
    return {key: [row[key] for row in rows] for key in rows[0]} if rows else {}


def attribute_sources(reviews: Reviews, catalogue: Catalogue) -> dict[str, Counter[str]]:
    """The number of customers with each attribute from "profile_info", "text" or "persona".

    The key "not used" counts the parts of profiles that are not understood or contradict an earlier part.
    """
    stated, read = _stated(reviews, catalogue), (catalogue.attributes, catalogue.language)
    names = [attribute.name for attribute in catalogue.attributes]
    counts = {name: Counter(row.get(name, (None, "persona"))[1] for row in stated) for name in names}
    counts["not used"] = Counter(part for profile in reviews.profiles for part in parse_profile(profile, *read)[1])
    return counts
