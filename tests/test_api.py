"""The public API stands in tests/api.txt: it does not change unannounced.

After a change that is meant: `python tests/test_api.py`, and a line in CHANGELOG.md.
"""

import dataclasses
import inspect
from enum import Enum
from pathlib import Path

import recsys_jax

API = Path(__file__).with_name("api.txt")
HEADER = "# What people import from recsys_jax, and its arguments; tests/test_api.py compares, and writes it anew.\n"


def signature(function: object) -> str:
    """The arguments with their defaults, without the types, whose spelling depends on Python's version."""
    given = inspect.signature(function)  # type: ignore[arg-type]
    plain = [
        one.replace(annotation=one.empty, default=... if inspect.isfunction(one.default) else one.default)
        for one in given.parameters.values()
    ]
    return str(given.replace(parameters=plain, return_annotation=inspect.Signature.empty))


def described(name: str, thing: object) -> list[str]:
    """The lines of a public name: a class with its fields, methods and properties, or a function."""
    if not isinstance(thing, type):
        return [f"{name}{signature(inspect.unwrap(thing))}"]  # type: ignore[arg-type]
    ours = [one for one in thing.__mro__ if one.__module__.startswith("recsys_jax")]
    lines = [f"class {name}({', '.join(base.__name__ for base in thing.__bases__ if base is not object)})"]
    if dataclasses.is_dataclass(thing):
        flax = {"parent", "name"} if any(one.__module__.startswith("flax") for one in thing.__mro__) else set()
        for field in dataclasses.fields(thing):
            given = "" if field.default is dataclasses.MISSING else f" = {field.default!r}"
            lines += [f"{name}.{field.name}{given}"] if field.name not in flax else []
    elif not issubclass(thing, Exception | Enum):
        lines.append(f"{name}{signature(thing)}")
    members = {key: value for one in reversed(ours) for key, value in vars(one).items()}
    for key, value in sorted(members.items()):
        if key.startswith("_"):
            continue
        if isinstance(value, property) or type(value).__name__ == "cached_property":
            lines.append(f"{name}.{key}")
        elif isinstance(value, classmethod | staticmethod) or inspect.isfunction(value):
            lines.append(f"{name}.{key}{signature(inspect.unwrap(getattr(thing, key)))}")
    return lines


def api() -> str:
    """All lines, in the order of `__all__`."""
    lines = [line for name in recsys_jax.__all__ for line in described(name, getattr(recsys_jax, name))]
    return HEADER + "\n".join(lines) + "\n"


def test_the_public_api_changes_only_where_it_is_announced():
    assert api() == API.read_text("utf-8"), "python tests/test_api.py writes it anew; CHANGELOG.md announces it"


def test_the_changelog_begins_with_what_comes_next():
    """And has each version that was released, the newest first."""
    changes = API.parents[1] / "CHANGELOG.md"
    headings = [line for line in changes.read_text("utf-8").splitlines() if line.startswith("## ")]
    assert headings[0] == "## Unreleased"
    assert headings[1:] == sorted(headings[1:], reverse=True)


if __name__ == "__main__":
    API.write_text(api(), encoding="utf-8")
    print(f"Written: {API}")
