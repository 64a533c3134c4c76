"""The beginning of a persona catalogue: what reviewers state of themselves in their profiles."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from recsys_jax.data.files import toml_text
from recsys_jax.data.values import as_key, as_list

_NUMBER = re.compile(r"\d+(?:\.\d+)?(.*)")
_AGES = {"", "대", "세", "살", "代", "歳", "s", " years"}
_SCRIPTS = {"ko": "[가-힣]", "ja": "[ぁ-ヿ]", "en": "[a-z]"}


def stated(reviews: Sequence[object]) -> list[dict[str, Any]]:
    """What the `profile_info` of nested reviews states, place by place: 40대/남성/복합성, 34 / commuting / 3 hours.

    As attributes of a persona catalogue: a name, a kind, and its values, or how its numbers are written.
    """
    profiles = [key for review in _each(reviews) if (key := as_key(review.get("profile_info"))) is not None]
    sign = next((sign for sign in "/|," if any(sign in profile for profile in profiles)), "/")
    places = zip_longest(*([part.strip() for part in profile.split(sign)] for profile in profiles))
    found: list[dict[str, Any]] = []
    for number, parts in enumerate(places, 1):
        if 10 * sum(part is not None for part in parts) < len(profiles):
            break
        name, filled = f"stated_{number}", [part for part in parts if part]
        units = Counter(match[1] for part in filled if (match := _NUMBER.fullmatch(part)))
        values = [part for part, count in Counter(filled).most_common(50) if count > 1]
        if 2 * units.total() > len(filled):
            unit = units.most_common(1)[0][0]
            age = unit in _AGES and all(one["name"] != "age" for one in found)
            written = {"name": name, "kind": "numeric", "profile": [f"{{number}}{unit}"]}
            found.append({"name": "age", "kind": "age"} if age else written)
        elif values:
            found.append({"name": name, "kind": "categorical", "values": values})
    return found


def catalogue(reviews: Sequence[object], attributes: Sequence[Mapping[str, Any]]) -> str:
    """The text of a personas.toml that declares these attributes, and names no persona yet."""
    texts = " ".join(str(review.get("content")) for review in _each(reviews)).casefold()
    language = max(_SCRIPTS, key=lambda name: len(re.findall(_SCRIPTS[name], texts)))
    lines = [
        "# Begun by recsys-jax init, of what profiles state; docs/personas.md explains every key. Give the attributes",
        "# names, in dataset.toml too, and add [[persona]] tables: until then, clusters are called by their keywords.",
        f"language = {toml_text(language)}",
    ]
    for one in attributes:
        lines += ["", "[[attribute]]", *(f"{key} = {toml_text(value)}" for key, value in one.items())]
    return "\n".join(lines) + "\n"


def _each(reviews: Sequence[object]) -> list[dict[str, object]]:
    return [one for nested in reviews for one in (as_list(nested) or ()) if isinstance(one, dict)]
