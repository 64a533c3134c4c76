"""Files: written whole or not at all, opened only inside their folder; TOML, read key by key."""

import csv
import io
import json
import os
import re
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from errno import EDQUOT, EFBIG, ENOENT, ENOSPC
from hashlib import sha256
from math import inf
from pathlib import Path, PureWindowsPath
from secrets import randbelow
from stat import S_ISREG
from typing import IO, Any, TypeVar, get_args

import numpy as np

from recsys_jax import stopping
from recsys_jax.config import Language
from recsys_jax.data.values import as_key, as_number, composed, parse_number
from recsys_jax.errors import InputError, choices, nearest, plain, require, shown

T = TypeVar("T")


def cache_folder() -> Path:
    """The user's folder for what can be recomputed: `$XDG_CACHE_HOME/recsys_jax`, else `~/.cache/recsys_jax`."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(root) if root else Path.home() / ".cache") / "recsys_jax"
    except RuntimeError:  # no HOME, and a user whom the system does not know, as in many a container
        return Path(os.devnull) / "no home folder"  # which cannot be written: nothing but time is lost


def require_folder(folder: Path) -> None:
    """Raises `InputError` where a folder cannot be written to, or cannot be made."""
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        raise InputError(f"{there}: found a file; allowed: a folder, there or not yet")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{there}: found a folder that may not be written; allowed: one that may")


def replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Lets `write` fill a temporary file in the same folder, which then takes the name `path` in one step.

    Both are flushed to the disk, so that even a power cut leaves the old file or the new one, whole. Raises
    `InputError` where the folder can't be written to or the disk is full; the old file is intact then.
    """
    require_folder(path.parent)
    require(not path.is_dir(), str(path), "a folder", "a file, there or not yet")
    path.parent.mkdir(parents=True, exist_ok=True)
    # A number that nobody else draws: in two containers that share a folder, process ids are the same.
    temporary = path.with_name(f".{path.name}.{randbelow(10**18)}")
    opened = temporary.open("xb")
    stopping.unfinished.add(temporary)
    try:
        with opened as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        stopping.written.setdefault(path, path.exists())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno not in (ENOSPC, EDQUOT, EFBIG):
            raise
        old = "; the file that was there before is intact" if path.exists() else ""
        found = f"found no room to write it ({error.strerror})"
        raise InputError(f"{path}: {found}; allowed: a disk with enough space{old}") from None
    finally:
        temporary.unlink(missing_ok=True)
        stopping.unfinished.discard(temporary)


def write_file(path: Path, content: bytes | str) -> None:
    """Writes a text (as UTF-8) or bytes as the whole content of a file. Raises `InputError` as `replace_file` does."""
    replace_file(path, lambda stream: stream.write(content.encode() if isinstance(content, str) else content))


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as CSV, the header being the first."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def sheet_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as CSV that people open in a spreadsheet: a text that it would take for a formula begins with a `'`.

    >>> sheet_text([["=1+1", "-0.5", "a=b", 3]])
    "'=1+1,-0.5,a=b,3\\n"
    """
    return csv_text(
        [f"'{one}" if _FORMULA.match(str(one)) and parse_number(one) is None else one for one in row] for row in rows
    )


_FORMULA = re.compile(r"[=+\-@\t\r＝＋－＠]")  # and full-width, as a Japanese or Korean keyboard writes them


def sync_folder(folder: Path) -> None:
    """Flushes a folder's list of files to the disk, where the system can."""
    with suppress(OSError):  # some file systems, and Windows, do not open folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Holds the folder's lock among processes that write there; a killed process gives it back."""
    require_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with suppress(ImportError, OSError):  # Windows and some file systems have no such lock
            import fcntl

            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def open_file(path: Path, *, inside: Path | None = None, largest: float = inf) -> IO[bytes]:
    """Opens a file for reading: no pipe or device, which may never end; from `inside` a folder, no link leads out.

    Raises `FileNotFoundError` where it is absent, and `InputError` where it is no regular file, lies outside the
    folder, cannot be read or is larger than `largest` bytes.
    """
    try:
        target = followed(path, inside)
        if not S_ISREG(target.stat().st_mode):
            raise InputError(f"{path}: found no file but something else; allowed: a file")
        # What became a pipe meanwhile is not waited for.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        stream = os.fdopen(os.open(target, flags), "rb")
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(ENOENT, "there is no such file", str(path)) from None
    except InputError:
        raise
    except (OSError, ValueError) as error:  # circular links, a NUL or too many characters in the name
        raise InputError(f"{plain(str(path))}: can't be read: {error}") from None
    size = os.fstat(stream.fileno()).st_size
    if size > largest:
        stream.close()
        raise InputError(f"{path}: found {size:,} bytes; allowed: at most {largest:,}")
    return stream


def followed(path: Path, inside: Path | None) -> Path:
    """What a path leads to. Raises `InputError` where that is outside a folder, which may be a link itself."""
    target = Path(os.path.realpath(path))
    if inside is not None and not target.is_relative_to(os.path.realpath(inside)):
        raise InputError(f"{path}: found a link to {target}; allowed: a file in the folder itself")
    return target


def require_inside(folder: Path, file: str, where: str) -> None:
    """Raises `InputError` for the name of a file that leads out of the folder, on any system."""
    # Windows' rules know both kinds of slashes and the letters of drives.
    named = PureWindowsPath(file)
    inside = not named.anchor and ".." not in named.parts and file.isprintable()
    require(inside, where, file, "a file in the folder of the dataset")
    followed(folder / file, folder)


def absent(path: Path, what: str = "there is no such file") -> str:
    """A sentence on a file or folder that is not there: the name near it that is, or near the folder that isn't."""
    place = path
    while not place.parent.is_dir() and place.parent != place:
        place = place.parent
    with suppress(OSError):
        near = nearest(place.name, os.listdir(place.parent))
        what += f"; did you mean {place.with_name(near)}?" if near else ""
    return f"{plain(str(path))}: {what}"


def read_file(path: Path, *, inside: Path | None = None, largest: float = inf) -> bytes:
    """The content of a file. Raises `InputError` where it is absent, and as `open_file` does."""
    try:
        with open_file(path, inside=inside, largest=largest) as stream:
            return stream.read()
    except FileNotFoundError:
        raise InputError(absent(path)) from None
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error}") from None


def first_bytes(path: Path, inside: Path) -> bytes:
    """The first thousand bytes of a file; none where it is absent or may not be read."""
    with suppress(OSError, InputError), open_file(path, inside=inside) as stream:
        return stream.read(1000)
    return b""


def read_arrays(content: bytes) -> dict[str, np.ndarray]:
    """The arrays that `numpy.savez` wrote, without unpickling or unpacking. Raises `ValueError` for anything else."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
        if packed:
            raise ValueError("found packed arrays; allowed: arrays as they are")
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return {name: np.asarray(stored[name]) for name in stored.files}
    except Exception as error:  # a damaged zip raises one of a dozen kinds, a forged length MemoryError
        raise ValueError(f"{type(error).__name__}: {error}") from None


def read_toml(path: Path, *, inside: Path | None = None) -> dict[str, Any]:
    """The TOML file `path`: of what it holds, all can be shown and counted with.

    Raises `InputError` where it is absent, malformed, larger or deeper than what a person writes, or holds an integer
    beyond what can be shown.
    """
    try:
        text = composed(read_file(path, inside=inside, largest=_LARGEST_TOML).decode())
        if _DEEP_KEY.search(text):  # of which tomllib would keep all beginnings
            raise ValueError(f"found a key of {_DEEPEST} parts; allowed: fewer")
        document = tomllib.loads(text)
        _require_plain(document, _DEEPEST)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, more digits than Python reads
        raise InputError(f"{path}: not readable as TOML: {error}") from None
    return document


_LARGEST_TOML, _DEEPEST = 2**20, 32
_KEY = r"""(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_DEEP_KEY = re.compile(rf"""(?<![\w"'\\-])(?:{_KEY}[ \t]*+\.[ \t]*+){{{_DEEPEST}}}""")


def _require_plain(value: object, deepest: int) -> None:
    if isinstance(value, int) and value.bit_length() > 2**13:  # Python shows no more than 4,300 digits
        raise ValueError(f"found an integer of {value.bit_length():,} bits; allowed: at most 8,192")
    if isinstance(value, dict | list):
        if not deepest:
            raise ValueError(f"found tables or lists in each other, {_DEEPEST} deep; allowed: fewer")
        for part in value.values() if isinstance(value, dict) else value:
            _require_plain(part, deepest - 1)


def read_json(content: bytes, constant: Callable[[str], Any] | None = None) -> Any:
    """A document of JSON that takes at most some ten times as much memory as it is long; `constant` reads NaN and such.

    Raises `ValueError` for no JSON, and for little but brackets: of three bytes, `[],` makes 64.
    """
    if 64 * content.count(b"[") + 232 * content.count(b"{") > 8 * len(content) + 2**20:
        raise ValueError("found little but brackets; allowed: lists and objects that hold something")
    return json.loads(content.decode(), parse_constant=constant)


UNSEALED = "0" * 64
"""Stands for the checksum that a document has of itself, while it is made."""


def sealed(text: str) -> str:
    """The text with its SHA-256 in the place of the first `UNSEALED` in it."""
    return text.replace(UNSEALED, sha256(text.encode()).hexdigest(), 1)


def is_sealed(content: bytes, seal: str) -> bool:
    """Whether the content is what its seal says."""
    return sha256(content.replace(seal.encode(), UNSEALED.encode(), 1)).hexdigest() == seal


class Section:
    """A TOML table whose keys are read one by one; `end` refuses a key that was never read."""

    def __init__(self, content: object, where: str) -> None:
        if not isinstance(content, Mapping):
            raise InputError(f"{where}: found {shown(content)}; a table of keys and values is needed")
        self._content = content
        self._known: list[str] = []
        self.where = where

    def error(self, key: str, allowed: str) -> InputError:
        """The error for a key: where it is, what was found, what is allowed."""
        near = nearest(key, [other for other in self._content if other not in self._known])
        missing = f"it is not given{f', but {shown(near)} is' if near else ''}"
        found = f"found {shown(self._content[key], 200)}" if key in self._content else missing
        return InputError(f"{self.where}: {key}: {found}; allowed: {allowed}")

    def require(self, ok: bool, key: str, allowed: str) -> None:
        """Raises the `InputError` for a key whose value is not ok."""
        if not ok:
            raise self.error(key, allowed)

    def get(self, key: str, default: object = None) -> Any:
        """The value; `default` where the key is absent."""
        self._known.append(key)
        value = self._content.get(key)
        return default if value is None else value

    def text(self, key: str) -> str:
        """A required text. Raises `InputError`, as all of these do, for anything else."""
        value = self.get(key)
        self.require(isinstance(value, str) and bool(value), key, "a text")
        return value  # type: ignore[no-any-return]

    def optional_text(self, key: str) -> str | None:
        """A text; None where the key is absent."""
        return None if self.get(key) is None else self.text(key)

    def by_language(self, key: str) -> dict[str, str]:
        """A text for all languages, or a table of texts by language; empty where the key is absent."""
        value, languages = self.get(key, {}), get_args(Language)
        texts = value if isinstance(value, Mapping) else dict.fromkeys(languages, value)
        right = set(texts) <= set(languages) and all(isinstance(one, str) and one.strip() for one in texts.values())
        self.require(right, key, f"a text, or a table of texts by language, which is {choices(languages)}")
        return dict(texts)

    def number(self, key: str, default: float) -> float:
        """A number."""
        number = as_number(self.get(key, default))
        if number is None:
            raise self.error(key, "a number")
        return number

    def choice(self, key: str, allowed: Sequence[str], default: str | None = None) -> Any:
        """One of the allowed texts."""
        value = self.get(key, default)
        self.require(value in allowed, key, choices(allowed, found=value))
        return value

    def keys(self, key: str, allowed: str = "a list of different texts or numbers") -> tuple[str, ...]:
        """A list of different texts or numbers, as texts."""
        value = self.get(key)
        listed = isinstance(value, list) and all(isinstance(item, str | int | float) for item in value)
        found = [as_key(item) for item in value] if listed else []
        self.require(0 < len(found) == len(set(found)) and None not in found, key, allowed)
        return tuple(text for text in found if text is not None)

    def values(self, key: str) -> tuple[str | int | float, ...]:
        """A list of different texts or numbers, as they are; empty where the key is absent."""
        return tuple(self.get(key)) if self.get(key) is not None and self.keys(key) else ()

    def part(self, key: str, read: Callable[["Section"], T]) -> T:
        """What `read` makes of the table under the key, of which it must read all keys."""
        content = self.get(key)
        self.require(content is not None, key, f"a section [{key}]")
        section = Section(content, f"{self.where}, [{key}]")
        made = read(section)
        section.end()
        return made

    def end(self) -> None:
        """Raises `InputError` for a key that was never read."""
        for key in (one for one in self._content if one not in self._known):
            allowed = choices(dict.fromkeys(self._known), found=key)
            raise InputError(f"{self.where}: found the key {shown(key)}; allowed: {allowed}")


_BARE = re.compile(r"[A-Za-z0-9_-]+")


def toml_text(value: object) -> str:
    """A value as TOML has it.

    >>> toml_text({"returned": ["no", ""]})
    '{ returned = ["no", ""] }'
    """
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {toml_text(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(map(toml_text, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_tables(document: Mapping[str, Any], within: Sequence[str] = ()) -> str:
    """The tables of a document as TOML, each under its heading, without what is None.

    >>> print(toml_tables({"my shop": {"k": 1, "colour": None, "deep": {"seed": 0}}}))
    ["my shop"]
    k = 1
    <BLANKLINE>
    ["my shop".deep]
    seed = 0
    <BLANKLINE>
    """
    parts: list[str] = []
    for name, table in document.items():
        if isinstance(table, Mapping):
            values = {key: one for key, one in table.items() if not isinstance(one, Mapping) and one is not None}
            heading = f"[{'.'.join(map(_key, [*within, name]))}]"
            parts.append("\n".join([heading, *(f"{_key(key)} = {toml_text(one)}" for key, one in values.items()), ""]))
            parts += filter(None, [toml_tables(table, [*within, name])])
    return "\n".join(parts)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else toml_text(name)
