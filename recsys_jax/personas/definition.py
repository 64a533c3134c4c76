"""The Markdown report of the personas: share, keywords, most central reviews, default attributes."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from recsys_jax.data.files import write_file
from recsys_jax.personas.clustering import CENTRAL_SHARE, EVIDENCE, PersonaModel
from recsys_jax.personas.encoders import clean_text
from recsys_jax.personas.keywords import CENTRAL, central
from recsys_jax.personas.profiles import Draw


def persona_definition(
    path: Path,
    model: PersonaModel,
    texts: Sequence[str],
    labels: Int[np.ndarray, " n"],
    distances: Float[np.ndarray, " n"],
    sources: Mapping[str, Mapping[str, int]],
) -> None:
    """Writes the report; `labels` and `distances` are those of `assign`, `sources` those of `attribute_sources`."""
    attributes = [attribute.name for attribute in model.catalogue.attributes]
    report = f"""\
# Persona definition

{len(texts):,} reviews in {len(model.personas)} clusters, embedded by `{model.encoder.name}`. \
Mean silhouette {model.silhouettes[len(model.personas)]:.3f}.

A name of the catalogue is given where its keywords are used more than {EVIDENCE:g} standard deviations above chance, \
and in {CENTRAL_SHARE:.0%} or more of the {CENTRAL} most central reviews that differ. Else a persona is called by its \
own keywords, with the nearest name in brackets.

A persona comes from the text of a review of the purchased product: it has seen the answer. \
What is measured on these customers must say so.
"""
    if attributes:
        report += "\n| attribute | from the profile | from the text | from the persona | missing |\n"
        report += "|---|---|---|---|---|\n"
    for name in attributes:
        counts = (f"{sources[name].get(source, 0):,}" for source in ("profile_info", "text", "persona", "missing"))
        report += f"| {' | '.join([name, *counts])} |\n"
    quotes = list(map(quote, texts))  # repeated reviews are quoted once
    for number, persona in enumerate(model.personas):
        lines = [f"Share: {np.mean(labels == number):.1%} ({np.sum(labels == number):,} reviews)"]
        lines.append(f"Distinctive keywords: {_escape(', '.join(model.keywords[number])) or 'none'}")
        note = model.name_note(number)
        if persona.name == model.nearest[number] or note:
            whose = "its keywords" if persona.name == model.nearest[number] else f"those of {model.nearest[number]}"
            used = _escape(f"{whose} are used {model.use(number)}")
            lines.append(f"Evidence for the name: {used}{f' ({_escape(note)})' if note else ''}")
        if drawn := ", ".join(f"{name} {_drawn(draw)}" for name, draw in model.draws(number).items()):
            lines.append(f"Attributes where the reviewer states none: {_escape(drawn)}")
        nearest = central(quotes, labels, distances, number, 3)
        report += f"""
## {number}. {_escape(persona.name)}

{_escape(persona.description.rstrip(".。"))}.

{chr(10).join(f"* {line}" for line in lines)}

The most central reviews:
{"".join(f"{chr(10)}> {_escape(quotes[row])}{chr(10)}" for row in nearest)}"""
    write_file(path, report)


def _drawn(draw: Draw) -> str:
    """What is drawn, for people to read."""
    if isinstance(draw, str):
        return draw
    if isinstance(draw, Mapping):
        return " or ".join(f"{value} ({share:.0%})" for value, share in draw.items())
    return f"{draw[0]} to {draw[1]}"


def quote(text: str, limit: int = 280) -> str:
    """A review on one line, shortened, without links."""
    flat = " ".join(re.sub(r"https?://\S+", "(link)", clean_text(text)).split())
    return flat if len(flat) <= limit else f"{flat[: limit - 1].rstrip()}…"


def _escape(text: str) -> str:
    """Text with Markdown's signs escaped, including those of a list, heading or number at the start."""
    text = re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", text)
    return re.sub(r"^(\d*)([-+.)=])", r"\1\\\2", text)
