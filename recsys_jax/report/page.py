"""Makes the page: template, labels and data become one file without any reference to another."""

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from recsys_jax.config import Language
from recsys_jax.console.pictures.embedding import Colouring, Space
from recsys_jax.console.pictures.plots import FEW
from recsys_jax.console.terminal import harmless
from recsys_jax.data.dataset import Dataset
from recsys_jax.data.files import write_file
from recsys_jax.data.schema import label_of
from recsys_jax.evaluation.bootstrap import Interval
from recsys_jax.evaluation.engine import MODEL
from recsys_jax.evaluation.findings import findings, leak
from recsys_jax.evaluation.report import Report
from recsys_jax.evaluation.sentences import Sentences
from recsys_jax.models.trained import TrainedModel
from recsys_jax.report import contents, panel
from recsys_jax.report.labels import labels, whole

PAGE = "report.html"


def write(
    run: Path,
    found: Report,
    dataset: Dataset,
    model: TrainedModel | None,
    space: Space | None,
    *,
    headline: str,
    folder: Path,
    made: Path | None,
    derived: bool | None = None,
    encoder: str | None = None,
    colour: str | None = None,
    called: Mapping[str, str] | None = None,
    memory: Report | None = None,
    language: Language = "en",
) -> Path:
    """Writes `report.html` into the run and returns its path.

    It is of what a protocol `found`, with the model of the run and its `space`, if it has one. `folder` is that of the
    dataset, `made` the customers that were made of its reviews by an `encoder`, `derived` as in `findings`; `called`
    has other names of methods, `memory` is what was found in-sample.
    """
    say, words = Sentences(language), labels(language)
    shown = found.leak_free or found
    k, colouring = contents.length(shown), Colouring.of(dataset, colour, language)
    warnings = findings(shown, derived=derived if shown is found else None, language=language)
    if shown is not found:
        warnings.insert(0, leak(found, language))
    others = {"leak": found if shown is not found else None, "in-sample": memory}
    tables = [("shown", shown), *((key, one) for key, one in others.items() if one is not None)]
    customers, described = dataset.schema.customers, dataset.schema.description
    drawn = None if model is None or space is None else (model, dataset, space)
    rules, faults = ((), []) if model is None else panel.rules_of(folder, model)
    personas, of_reviews = ([], []) if made is None else contents.personas(folder, made, encoder, language)
    page = _environment().get_template("page.html")
    text = page.render(
        language=language,
        t=words,
        say=say,
        title=dataset.schema.name,
        word=label_of(customers.segment or "", customers.features, language, say.name(dataset.segment_word)),
        word_of_plane=say.name(colouring.word),
        attributes=[label_of(one.column, customers.features, language) for one in customers.features],
        run=run,
        commands=[] if model is None else contents.commands(run, dataset, model, None if made else folder),
        places=[f"{one.evaluation.split}/metrics.json" for one in (found, memory) if one is not None],
        found_anew=made is not None and found.evaluation.split != "in-sample",
        verdicts=contents.verdicts(shown, say),
        headline=(*re.split(r"(?<=\.) ", whole(headline), maxsplit=1), "")[:2],
        k=k,
        tiles=[(kind, name, shown.means[name][f"hit@{k}"]) for kind, name in contents.beside(shown)],
        warnings=list(map(whole, warnings)),
        notes=[*faults, *dataset.notes, *of_reviews, *dict.fromkeys(found.evaluation.methods[MODEL].notes)],
        described=described.get(language) or described.get("en", ""),
        facts=contents.facts(found, dataset, model, run),
        tables=[(key, one, contents.methods(one, called or {}, say)) for key, one in tables],
        segments=contents.segments(shown),
        few=FEW,
        loss=None if model is None else contents.loss(model),
        personas=personas,
        plane=drawn and contents.plane(*drawn, colouring),
        drawn=space and space.shown(dataset),
        importance=contents.importance(shown, language),
        lists=drawn and contents.lists(*drawn),
        panel=None if model is None else panel.page_data(model, rules, language=language),
    )
    write_file(run / PAGE, harmless(text))
    return run / PAGE


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("recsys_jax.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"as_json": as_json, "pair": _pair, "reach": _reach, "whole": whole}
    environment.globals |= {"inline": inline, "digest": digest}
    return environment


def _pair(one: tuple[str, float]) -> str:
    return f"{one[0]} {one[1]:g}"


def _reach(one: Interval) -> float:
    """How far an interval, or the mean that has none, reaches: what a scale must hold."""
    return max(value for value in (one.mean, one.high, 1e-9) if not math.isnan(value))


def as_json(value: Any) -> Markup:
    """A value as JSON that may stand in a script element, whatever texts are in it.

    >>> str(as_json({"name": "</script>"}))
    '{"name":"\\\\u003c/script\\\\u003e"}'
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(re.sub("[<>&\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text))


@cache
def inline(name: str) -> Markup:
    """A file of this package as it stands in the page."""
    return Markup(files(__package__).joinpath(name).read_text("utf-8"))


def digest(name: str) -> Markup:
    """What the page's policy knows a script or a style sheet by: nothing else runs, whatever a product is called."""
    found = hashlib.sha256(str(inline(name)).encode()).digest()
    return Markup(f"'sha256-{base64.b64encode(found).decode()}'")
