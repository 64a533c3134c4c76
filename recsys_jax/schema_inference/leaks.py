"""What says of customers what they bought: an attribute of the product is none of people, whose preferences are."""

from collections import defaultdict
from collections.abc import Sequence

from recsys_jax.schema_inference.columns import Ask, says
from recsys_jax.schema_inference.linking import explained

FOLLOWS = 0.98
"""From which on a column follows from another one, but for slips."""
_SEEMS = 0.8  # from which on it may, or is a strong preference: who has a dog buys what is for dogs
_NAMED = 0.05  # the same, where the name is that of products and no table has these, such as that of a division


def judged(
    name: str, values: Sequence[str | None], products: Sequence[str | None], product: str, ask: Ask, *, alone: bool
) -> tuple[str, str]:
    """Why a column is the product's and so left out of the customers; or what is doubtful of one that is kept.

    An attribute of the product is the same wherever the product is. `values` and `products` stand beside each other;
    `alone` says that no other table has the products. Asks where it is doubtful.
    """
    known = [(value, key) for value, key in zip(values, products, strict=True) if None not in (value, key)]
    share = explained([value for value, _ in known], [key for _, key in known])
    people = says(name, "customer") or says(name, "about_customer")
    named = alone and not people and (says(name, "brand") or says(name, "category"))
    if share >= (1 if people else FOLLOWS):
        return f"it follows from the product ({product}): whoever knows it has seen the answer", ""
    if share < (_NAMED if named else _SEEMS):
        return "", ""
    said = defaultdict[str | None, list[str | None]](list)
    for value, key in known:
        said[key].append(value)
    several = [one for one in said.values() if len(one) > 1]
    differ = sum(len({*one}) > 1 for one in several)
    saw = f"it goes with the product ({product}), but differs within {differ:,} of {len(several):,} products"
    question = f"{name}: {saw}. Is it known of customers before they buy?"
    if ask(question, ("yes", "no"), "no" if named else "yes") == "yes":
        return "", f"{saw}: kept as a preference; take it out if it is known after a purchase alone"
    return f"{saw}: taken for the product's", ""
