"""The manifest of a run folder: whose it is and, by fingerprints, which of its files belong together."""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from recsys_jax.data.files import first_bytes, only_writer, open_file, read_json, write_file
from recsys_jax.data.splits import SPLITS
from recsys_jax.errors import InputError, plain
from recsys_jax.storage.artifacts import MODEL, beginning
from recsys_jax.storage.jobs import fingerprint

MANIFEST, CUSTOMERS = "run.json", "customers.json"
PROTOCOLS = ("in-sample", *SPLITS)
EVALUATION = ("report.md", "results.csv", "metrics.json", "results_by_segment.png")
"""What is written of each protocol, into a folder of its name."""

# The names that a picture could not draw, and by former versions the picture itself.
_WRITTEN = *EVALUATION, "results_by_segment_names.csv", "results_by_persona.png"

_OF_MODEL = "embedding_space.png", "embedding_space_names.csv", "loss.csv", "report.html", "report.md", "seeds.json"
# What a run of a version without manifests has, some of it, and how that begins: others use these names, too.
_FORMER = {
    "personas/model.json": rb'{\s*"format": \d',
    "checkpoint*.safetensors": rb'.{40}{"',  # a checksum, then safetensors
    "*/metrics.json": rb'{\s*"protocol": "',
    "comparison.json": rb'{\s*"queries": {',
    "*/*/comparison.json": rb'{\s*"queries": {',
}
_LARGEST = 2**20


def read_manifest(folder: Path) -> dict[str, str]:
    """What the manifest says; nothing where there is none, as in the runs of former versions.

    Raises `InputError` where it is damaged or another program's.
    """
    try:
        with open_file(folder / MANIFEST, inside=folder, largest=_LARGEST) as stream:
            found = read_json(stream.read())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        found = None
    if not isinstance(found, dict) or "recsys_jax" not in found or not all(isinstance(x, str) for x in found.values()):
        raise InputError(f"{folder / MANIFEST}: found no manifest; allowed: one that this program wrote")
    return found


def record(folder: Path, facts: Mapping[str, str | None]) -> None:
    """Notes facts in the manifest; what is None is forgotten."""
    with only_writer(folder):
        known = {**read_manifest(folder), "recsys_jax": version("recsys_jax"), **facts}
        kept = {name: value for name, value in known.items() if value is not None}
        write_file(folder / MANIFEST, json.dumps(kept, indent=1) + "\n")


def claim(folder: Path, source: Path, facts: Mapping[str, str] | None = None) -> None:
    """Notes what the folder is made from, as the way from the folder, so that both may move; and more facts."""
    record(folder, {"source": os.path.relpath(source.resolve(), folder.resolve()), **(facts or {})})


def made_from(folder: Path) -> Path | None:
    """What the folder says that it was made from, where that is there."""
    with suppress(InputError, ValueError, OSError):
        source = read_manifest(folder).get("source")
        made = None if source is None else Path(os.path.relpath(os.path.join(os.path.realpath(folder), source)))
        return made if made is not None and made.exists() else None
    return None


def require_own(folder: Path, source: Path, *, force: bool = False) -> None:
    """Raises `InputError` for a folder with the files of others, or that was made from another source that is there.

    With `force` the folder is taken over. A folder without a manifest is known by what former versions wrote.
    """
    known = read_manifest(folder)
    if force or not folder.is_dir():
        return
    if not known:
        found = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        if found and not is_run(folder):
            raise InputError(
                f"{folder}: found files that this program did not write, such as {found[0]}; allowed: a new folder, an "
                "empty one, a run, or --force"
            )
    made = os.path.join(os.path.realpath(folder), known.get("source", source.resolve()))
    with suppress(ValueError):  # a name that no file can have
        made = os.path.realpath(made)
    if os.path.exists(made) and not os.path.samefile(made, source):
        raise InputError(
            f"{folder}: found what was made from {plain(made)}; allowed for {source}: another folder (--run), or "
            "--force, which replaces it"
        )


def is_run(folder: Path) -> bool:
    """Whether the folder has a manifest, a model, or what former versions wrote, whole or damaged."""
    named = (folder / MANIFEST).exists() or beginning(folder)
    return bool(named) or any(_has(folder, *one) for one in _FORMER.items())


def _has(folder: Path, pattern: str, begins: bytes) -> bool:
    """Whether there is a file of such a name that begins so."""
    found = (first_bytes(path, folder) for path in folder.glob(pattern))
    return any(re.match(begins, one, re.DOTALL) for one in found)


def require_unread(folder: Path, names: Iterable[str], read: Iterable[Path]) -> None:
    """Raises `InputError` where a file that will be written into the folder is one that is read."""
    written = {(folder / name).resolve() for name in names}
    for path in read:
        if path.resolve() in written:
            raise InputError(f"{path}: found a file of the dataset that would be replaced; allowed: another --run")


def forget(folder: Path, protocols: Sequence[str] = PROTOCOLS, names: Sequence[str] = _OF_MODEL) -> list[Path]:
    """Removes what is written of the model and by protocols, and returns it."""
    places = [folder / name for name in names]
    places += [folder / protocol / name for protocol in protocols for name in _WRITTEN]
    there = [path for path in places if path.exists()]
    for path in there:
        path.unlink()
    facts = [f"{protocol}: {what}" for protocol in protocols for what in ("model", "data")] + ["model"] * bool(names)
    if not read_manifest(folder).keys().isdisjoint(facts):
        record(folder, dict.fromkeys(facts))
    return there


def model_of(folder: Path) -> str:
    """The fingerprint of the folder's model; empty where there is none."""
    return fingerprint(folder / MODEL)


def settle(folder: Path) -> bool:
    """Removes what was written of another model than the folder has, as a kill leaves it; whether there was any."""
    known, model = read_manifest(folder), model_of(folder)
    stale = [protocol for protocol in PROTOCOLS if known.get(f"{protocol}: model", model) != model]
    names = _OF_MODEL if known.get("model", model) != model else ()
    return bool(forget(folder, stale, names))


def outdated(folder: Path, data: Sequence[str]) -> list[str]:
    """The protocols whose figures are of other data than those of these fingerprints, of which one is enough."""
    known = read_manifest(folder)
    return [protocol for protocol in PROTOCOLS if known.get(f"{protocol}: data", data[0]) not in data]


def made_of(folder: Path, reviews: str, catalogue: Path) -> dict[str, str]:
    """The fingerprints of customers made of reviews, and of what they were made with."""
    files = {"customers": folder / CUSTOMERS, "personas": folder / "personas" / "model.json", "catalogue": catalogue}
    return {"reviews": reviews, **{name: fingerprint(path) for name, path in files.items()}}
