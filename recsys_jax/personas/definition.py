"""The Markdown report of the personas: share, keywords, most central reviews, default attributes."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from recsys_jax.data.files import write_file
from recsys_jax.personas.clustering import PersonaModel
from recsys_jax.personas.customers import ATTRIBUTES
from recsys_jax.personas.encoders import clean_text


def persona_definition(
    path: Path,
    model: PersonaModel,
    texts: Sequence[str],
    labels: Int[np.ndarray, " n"],
    distances: Float[np.ndarray, " n"],
    sources: Mapping[str, Mapping[str, int]],
) -> None:
    """Writes the report; `labels` and `distances` are those of `assign`, `sources` those of `attribute_sources`."""
    report = f"""\
# Persona definition

{len(texts):,} reviews in {len(model.personas)} clusters, embedded by `{model.encoder.name}`. \
Mean silhouette {model.silhouettes[len(model.personas)]:.3f}.

A persona comes from the text of a review of the purchased product: it has seen the answer. \
What is measured on these customers must say so.

| attribute | from the profile | from the text | from the persona |
|---|---|---|---|
"""
    for name in ATTRIBUTES:
        shares = (f"{sources[name].get(source, 0):,}" for source in ("profile_info", "text", "persona"))
        report += f"| {' | '.join([name, *shares])} |\n"
    for number, persona in enumerate(model.personas):
        rows = np.flatnonzero(labels == number)
        central: dict[str, None] = {}  # repeated reviews are quoted once
        for row in rows[np.argsort(distances[rows], kind="stable")]:
            central.setdefault(_quote(texts[row]))
            if len(central) == 3:
                break
        quotes = "".join(f"\n> {quote}\n" for quote in central)
        keywords = _escape(", ".join(model.keywords[number])) or "none"
        evidence = f"{model.evidence[number]:+.1f} standard deviations from chance"
        if model.evidence[number] <= 2:
            evidence += ", which is weak: the name is what the others left"
        if note := model.name_note(number):
            evidence += f" ({_escape(note)})"
        report += f"""
## {number}. {_escape(persona.name)}

{_escape(persona.description)}.

* Share: {len(rows) / max(len(texts), 1):.1%} ({len(rows):,} reviews)
* Distinctive keywords: {keywords}
* Evidence for the name: use of its keywords {evidence}
* Attributes where the reviewer states none: skin type {persona.skin_type}, concern {persona.skin_concern}, \
age {persona.age[0]} to {persona.age[1]}, {persona.female_share:.0%} female

The most central reviews:
{quotes}"""
    write_file(path, report)


def _quote(text: str, limit: int = 280) -> str:
    flat = " ".join(re.sub(r"https?://\S+", "(link)", clean_text(text)).split())
    return _escape(flat if len(flat) <= limit else f"{flat[: limit - 1].rstrip()}…")


def _escape(text: str) -> str:
    """Text with Markdown's signs escaped, including those of a list, heading or number at the start."""
    text = re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", text)
    return re.sub(r"^(\d*)([-+.)=])", r"\1\\\2", text)
