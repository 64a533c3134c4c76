"""A list by rules, of all products, made one after the other in plain Python: the definition."""

import numpy as np


def by_hand(values, vectors, kinds, limits, diversity, pinned, k, gone=()):
    """The list of one customer, of all products but those that are gone, with no candidates and no bounds."""
    others = [j for j in range(len(values)) if j not in pinned and j not in gone and values[j] > -np.inf]
    finite = [values[j] for j in range(len(values)) if values[j] > -np.inf]
    average = sum(finite) / len(finite) if finite else 0.0
    best = max((values[j] for j in others), default=average)
    spread = best - average if best > average else 1.0
    chosen = list(pinned)[:k]
    while len(chosen) < k:
        top, place = None, None
        for j in sorted(others, key=lambda j: -values[j]):
            full = any(
                code >= 0 and sum(code in kind[i] for i in chosen) >= limit
                for kind, limit in zip(kinds, limits, strict=True)
                for code in kind[j]
            )
            if j in chosen or full:
                continue
            alike = max([0.0, *(float(vectors[j] @ vectors[i]) for i in chosen)])
            worth = (1 - diversity) * (values[j] - average) / spread - diversity * alike
            if top is None or worth > top + 1e-9:
                top, place = worth, j
        if place is None:
            break
        chosen.append(place)
    return chosen
