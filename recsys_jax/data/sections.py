"""TOML files, read section by section and key by key, so that nothing in them goes unread without a word."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recsys_jax.data.tables import shown
from recsys_jax.data.values import as_key, as_number
from recsys_jax.errors import InputError, choices

__all__ = ["Section", "read_toml"]


def read_toml(path: Path) -> dict[str, Any]:
    """The TOML file `path`. Raises `InputError` where it is absent or malformed."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except (ValueError, RecursionError, OSError) as error:  # TOML, UTF-8, and more digits than Python reads
        raise InputError(f"{path}: not readable as TOML: {error}") from None


class Section:
    """A TOML table whose keys are taken one by one, so that one nobody takes is a mistake."""

    def __init__(self, content: object, where: str) -> None:
        if not isinstance(content, Mapping):
            raise InputError(f"{where}: found {shown(content)}; a table of keys and values is needed")
        self._content = content
        self._known: list[str] = []
        self.where = where

    def error(self, key: str, allowed: str) -> InputError:
        """The sentence for a key: where it is, what was found, what is allowed."""
        found = f"found {shown(self._content[key], 200)}" if key in self._content else "it is not given"
        return InputError(f"{self.where}: {key}: {found}; allowed: {allowed}")

    def get(self, key: str) -> Any:
        """What stands there; None where the key is absent."""
        self._known.append(key)
        return self._content.get(key)

    def text(self, key: str) -> str:
        """A text that must be given. Raises `InputError`, as all of these do, for anything else."""
        value = self.optional_text(key)
        if value is None:
            raise self.error(key, "a text")
        return value

    def optional_text(self, key: str) -> str | None:
        """A text; None where the key is absent."""
        value = self.get(key)
        if value is not None and not (isinstance(value, str) and value):
            raise self.error(key, "a text")
        return value

    def number(self, key: str, default: float) -> float:
        """A number, by default `default`."""
        value = self.get(key)
        if value is None:
            return default
        number = as_number(value)
        if number is None:
            raise self.error(key, "a number")
        return number

    def choice(self, key: str, allowed: Iterable[str], default: str | None = None) -> Any:
        """One of the allowed texts."""
        value = self.get(key)
        if value is None and default is not None:
            return default
        if value not in tuple(allowed):
            raise self.error(key, choices(allowed))
        return value

    def keys(self, key: str, allowed: str = "a list of different texts or numbers") -> tuple[str, ...]:
        """A list of different texts or numbers, as texts."""
        value = self.get(key)
        found = [as_key(item) for item in value] if isinstance(value, list) else []
        if isinstance(value, list) and not all(isinstance(item, str | int | float) for item in value):
            found = []
        texts = tuple(item for item in found if item is not None)
        if not texts or len(texts) != len(found) or len(set(texts)) != len(texts):
            raise self.error(key, allowed)
        return texts

    def section(self, key: str) -> "Section":
        """The table under the key."""
        if self.get(key) is None:
            raise self.error(key, f"a section [{key}]")
        return Section(self._content[key], f"{self.where}, [{key}]")

    def end(self) -> None:
        """Raises `InputError` for a key that nobody took."""
        for key in self._content:
            if key not in self._known:
                raise InputError(f"{self.where}: found the key {key!r}; allowed: {choices(dict.fromkeys(self._known))}")
