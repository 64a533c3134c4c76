"""Makes the page: template, labels and data become one file without any reference to another."""

import base64
import hashlib
import json
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from recsys_jax.data.dataset import Dataset
from recsys_jax.data.files import write_file
from recsys_jax.evaluation.findings import findings
from recsys_jax.evaluation.report import Report
from recsys_jax.evaluation.sentences import Language
from recsys_jax.models.trained import TrainedModel
from recsys_jax.report import panel
from recsys_jax.report.labels import labels

PAGE = "report.html"


def write(
    run: Path, headline: str, found: Report, dataset: Dataset, model: TrainedModel | None, *, language: Language = "en"
) -> Path:
    """Writes `report.html` into the run: what `found` says of its model, and that model at work; returns its path."""
    page = (
        _environment()
        .get_template("page.html")
        .render(
            language=language,
            t=labels(language),
            title=dataset.schema.name,
            headline=headline,
            warnings=findings(found.leak_free or found),
            panel=None if model is None else panel.page_data(model),
        )
    )
    write_file(run / PAGE, page)
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
    environment.filters["as_json"] = as_json
    environment.globals |= {"inline": inline, "digest": digest}
    return environment


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
