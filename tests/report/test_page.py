"""The page of a run: whole, offline, and of its own figures."""

import tomllib
from importlib.resources import files
from typing import get_args

from recsys_jax.evaluation.sentences import Language
from recsys_jax.report.page import as_json


def keys(table: dict, path: str = "") -> set[str]:
    found = set()
    for name, value in table.items():
        found |= keys(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}"}
    return found


def test_languages_have_the_same_labels():
    read = [files("recsys_jax.report").joinpath(f"{one}.toml").read_text("utf-8") for one in get_args(Language)]
    english, *others = (keys(tomllib.loads(text)) for text in read)
    assert all(other == english for other in others)


def test_data_cannot_end_its_element():
    assert "<" not in as_json({"</script><script>alert(1)</script>": ["<!--", "\u2028", "&"]})
