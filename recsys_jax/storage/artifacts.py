"""A trained model as a folder: safetensors and JSON, nothing that can run; written whole, checked when it is read."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import version
from math import inf, prod
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from recsys_jax.config import parse_recipe, to_table
from recsys_jax.data.features import FeatureSpace, FittedFeature, with_product_id
from recsys_jax.data.files import (
    UNSEALED,
    absent,
    first_bytes,
    is_sealed,
    only_writer,
    open_file,
    read_file,
    read_json,
    read_toml,
    sealed,
    write_file,
)
from recsys_jax.data.schema import Schema
from recsys_jax.errors import InputError, require, shown
from recsys_jax.models.basis import Average
from recsys_jax.models.popularity import LogPopularity
from recsys_jax.models.trained import TrainedModel
from recsys_jax.storage import validation
from recsys_jax.storage.former import NEWEST_FORMER, Former
from recsys_jax.storage.validation import Shape

FORMAT, OLDEST = 6, 3
"""The format that is written, and the oldest that is read."""
MODEL = "model.json"

_LARGEST = {MODEL: 2**30, "header": 2**24}  # A million products are some 200 MB of JSON; a tensor's entry is 100 bytes.
_TYPES = {"F32": "float32", "I64": "int64"}
# All that a save leaves in a folder, were it killed: `files.replace_file` puts a dot before, a number after.
_OURS = re.compile(r"model-[0-9a-f]{12}\.safetensors|\.model(-[0-9a-f]{12})?\.(safetensors|json)\.[0-9]+")
_FORMER = "model.safetensors"  # The tensors of format 3, and of many other programs.


def beginning(folder: Path) -> bytes:
    """How `model.json` begins, with format, versions and checksums; empty where there is none, or none of a model."""
    begins = first_bytes(folder / MODEL, folder)
    return begins if re.match(rb'{\s*"format": \d', begins) else b""


def read_head(folder: Path) -> dict[str, Any]:
    """What `model.json` says before its vocabularies: format, versions, checksums, config, schema; nothing is verified.

    Raises `InputError` where it is absent, damaged or of another format, or where the tensors that it names are absent.
    """
    path = folder / MODEL
    try:
        with open_file(path, inside=folder, largest=_LARGEST[MODEL]) as stream:
            text = stream.read(2**20)
        document: dict[str, Any] = read_json(text[: text.index(b',\n "customers": ')] + b"}")
        _check_format(document["format"], document.get("versions"), path)
        missing = [name for name in document["sha256"] if not (folder / name).is_file()]
        document["config"] = {"recipe": document.get("recipe"), **document["config"]}
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; recsys-jax train writes it") from None
    except InputError:
        raise
    except Exception as error:  # what a damaged or forged document raises depends on what is missing from it
        raise InputError(f"{path}: damaged: {type(error).__name__}: {str(error)[:200]}") from None
    if missing:
        raise InputError(f"{folder / missing[0]}: there is no such file; train the model again")
    return document


def save_model(model: TrainedModel, folder: str | Path) -> tuple[Path, Path]:
    """Writes a model into `folder` and returns its files: `model.json`, and the tensors that it names.

    The tensors' name holds their checksum, so they lie beside the old ones until `model.json` takes its name: in that
    one step the new model replaces the old one. Only then do the old tensors go. Raises `InputError` for a model that
    `load_model` would refuse, for a `model.json` of others, and where the disk is full; what is there is intact then.
    """
    require(isinstance(model, TrainedModel), "save_model(), model", model, "a TrainedModel, as fit gives it")
    folder = Path(folder)
    begins = beginning(folder)
    if (folder / MODEL).exists() and not begins:
        raise InputError(f"{folder / MODEL}: found a file that is no model; allowed: a folder without one")
    content, name, text = _encoded(model, f"{folder}: a model that can't be saved")
    with only_writer(folder):
        write_file(folder / name, content)
        write_file(folder / MODEL, text)
        for entry in folder.iterdir():
            former = entry.name == _FORMER and f'"{_FORMER}": "'.encode() in begins
            if former or (_OURS.fullmatch(entry.name) and entry.name != name):
                with suppress(OSError):  # where a file that is open can't go, the next save removes it
                    entry.unlink()
    return folder / MODEL, folder / name


def holds(folder: Path, model: TrainedModel) -> bool:
    """Whether `save_model` would write what is there."""
    _, _, text = _encoded(model, str(folder))
    return (folder / MODEL).exists() and read_file(folder / MODEL, inside=folder) == text.encode()


def _encoded(model: TrainedModel, where: str) -> tuple[bytes, str, str]:
    """The tensors of a model, the name of their file, and what stands in `model.json`."""
    leaves = {
        **validation.flatten(model.variables),
        **validation.popularity_tensors(model.popularity),
        **validation.average_tensors(model),
        "product_embeddings": model.product_embeddings,
        "purchases": model.purchases.astype(np.int64),
        "losses": model.losses,
    }
    tensors = {name: np.array(leaf, order="C") for name, leaf in leaves.items()}
    validation.check_catalogue(model.schema, model.product_ids, model.product_rows, where)
    described = model.config, model.customers, model.products, len(model.product_ids)
    shapes = validation.shapes_of(tensors)
    validation.check_shapes(shapes, validation.needed_shapes(shapes, *described), where)
    validation.check_numbers(model, where)
    content = save_tensors(tensors)
    digest = hashlib.sha256(content).hexdigest()
    name = _tensors_name(digest)
    document: dict[str, Any] = {
        "format": FORMAT,
        "versions": {package: version(package) for package in ("recsys_jax", "jax", "flax", "numpy", "safetensors")},
        "sha256": {MODEL: UNSEALED, name: digest},
        "trained_on": model.trained_on,
        "batches": dict(model.batches),
        "config": to_table(model.config),
        "chosen": {name: "inf" if value == inf else value for name, value in model.chosen.items()},
        "popularity_scale": model.popularity.scale,
        "schema": model.schema.source,
        "customers": {fitted.feature.name: fitted.learned() for fitted in model.customers},
        "products": {fitted.feature.name: fitted.learned() for fitted in model.products},
        "product_ids": list(model.product_ids),
        "product_rows": {column: list(values) for column, values in model.product_rows.items()},
    }
    return content, name, sealed(json.dumps(document, indent=1, default=_plain) + "\n")


def load_model(folder: str | Path, *, tell: Callable[[str], None] = lambda sentence: None) -> TrainedModel:
    """The model that `save_model` wrote, also while another process saves one there: the old or the new, whole.

    Former formats are read, too; `tell` is called with a line on each name that has changed since.

    Nothing in the folder is run or believed: checksums first, then what a model needs. No file outside the folder is
    read, and not much more memory taken than its files are large. Raises `InputError` where a file is missing,
    damaged, forged or of another format.
    """
    folder = Path(folder)
    path = folder / MODEL
    while True:
        try:
            stream = open_file(path, inside=folder, largest=_LARGEST[MODEL])
        except FileNotFoundError:
            _refuse_dataset(folder)
            raise InputError(absent(path, "there is no such file; recsys-jax train writes it")) from None
        with stream:
            try:
                return _load(folder, stream.read(), tell)
            except FileNotFoundError as error:
                # Another save has removed the tensors since; or else model.json still names what is not there.
                if path.exists() and os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                    raise InputError(f"{error.filename}: there is no such file; train the model again") from None


def _refuse_dataset(folder: Path) -> None:
    """Raises `InputError` for a dataset in the place of its run."""
    toml = folder / "dataset.toml"
    if toml.exists():
        run = Path("runs") / str(read_toml(toml).get("name"))
        near = f"; did you mean {run}?" if (run / MODEL).exists() else "; recsys-jax train makes one of it"
        raise InputError(f"{folder}: found a dataset; allowed: a run, the folder with a trained model{near}")


def _load(folder: Path, content: bytes, tell: Callable[[str], None]) -> TrainedModel:
    path = folder / MODEL
    try:
        document = read_json(content)
        _check_format(document["format"], document.get("versions"), path)
        name, digest = _checked(document, content, path)
        return _restore(document, folder, name, digest, tell)
    except FileNotFoundError:
        raise
    except InputError as error:  # a feature's sentence, say, doesn't know in which file it stands
        raise (error if str(folder) in str(error) else InputError(f"{path}: {error}")) from None
    except MemoryError:
        raise InputError(f"{folder}: there is too little memory for a model of this size") from None
    except Exception as error:  # what a damaged or forged document raises depends on what is missing from it
        raise InputError(f"{path}: damaged: {type(error).__name__}: {str(error)[:200]}") from None


def _check_format(found: object, versions: object, path: Path) -> None:
    if type(found) is int and OLDEST <= found <= FORMAT:
        return
    reads = f"this version, {version('recsys_jax')}, reads the formats {OLDEST} to {FORMAT}"
    if type(found) is int and found > FORMAT:
        by = str(versions.get("recsys_jax", "unknown"))[:40] if isinstance(versions, Mapping) else "unknown"
        raise InputError(
            f"{path}: found format {found}, written by a newer recsys_jax (version {by}); {reads}: install a newer one"
        )
    raise InputError(f"{path}: found format {str(found)[:40]!s}; {reads}: train the model again with recsys-jax train")


def _checked(document: dict[str, Any], content: bytes, path: Path) -> tuple[str, str]:
    """The name and the checksum of the tensors, once model.json is what its own checksum says."""
    checksums = document["sha256"]
    own = checksums.pop(MODEL)
    if document["format"] == OLDEST:
        whole = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest() == own
    else:
        whole = is_sealed(content, own)
    if not whole:
        raise InputError(f"{path}: damaged, or edited: its content is not what its checksum says")
    ((name, digest),) = checksums.items()
    expected = "model.safetensors" if document["format"] == OLDEST else _tensors_name(digest)
    if name != expected or not re.fullmatch("[0-9a-f]{64}", digest):
        raise InputError(f"{path}: sha256: found the file {shown(name)}; allowed: {shown(expected)}")
    return name, digest


def _tensors_name(digest: str) -> str:
    return f"model-{digest[:12]}.safetensors"


def _restore(
    document: Mapping[str, Any], folder: Path, name: str, digest: str, tell: Callable[[str], None]
) -> TrainedModel:
    where = str(folder / MODEL)
    schema = Schema.parse(document["schema"], where)
    config = parse_recipe({"recipe": document.get("recipe"), **document["config"]}, where, tell)
    listed = schema.products.features
    customers, products = (
        FeatureSpace(tuple(FittedFeature.restore(f, found[f.name]) for f in features if f.name in found))
        for found, features in (
            (document["customers"], schema.customers.features),
            (document["products"], with_product_id(listed, schema.products.id) if config.id_embedding else listed),
        )
    )
    ids, rows = tuple(document["product_ids"]), document["product_rows"]
    validation.check_catalogue(schema, ids, rows, where)
    if config.id_embedding and products["product_id"].values != ids:
        raise InputError(f"{where}: found other products in the vocabulary of ids; allowed: the model's, in order")
    batches, trained_on = document["batches"], document["trained_on"]
    counted = all(type(number) is int and 0 <= number < 2**63 for number in batches.values())
    if set(batches) != {"customer", "product"} or not counted or not isinstance(trained_on, str):
        raise InputError(f"{where}: batches, trained_on: found other than two counts and a text")
    former = None if document["format"] > NEWEST_FORMER else Former(config, products)

    def fits(shapes: Mapping[str, Shape]) -> None:
        needed = validation.needed_shapes(shapes, config, customers, products, len(ids))
        described = f"{folder / name}: damaged, or not of the model that {MODEL} describes"
        validation.check_shapes(shapes, needed if former is None else former.shapes(needed), described)

    tensors = _tensors(folder, name, digest, fits)
    if former is None:
        found, scale = document["chosen"], float(document["popularity_scale"])
    else:
        found, scale, tensors = former.read(tensors)
    chosen = {field: float(value) for field, value in found.items()}
    if not set(chosen) <= set(to_table(config)) or not all(value > 0 for value in chosen.values()):
        raise InputError(f"{where}: chosen: found {shown(chosen)}; allowed: fields of the recipe, above 0")
    if not (scale > 0 if config.popularity_bias else scale == 0):
        raise InputError(f"{where}: popularity_scale: found {scale}; allowed: above 0 where popularity counts, else 0")
    tree = validation.unflatten(tensors)
    average = tree.pop("average", None)
    if average is not None:
        average = Average(**{"knots": {}, **average})
    model = TrainedModel(
        schema=schema,
        config=config,
        customers=customers,
        products=products,
        popularity=LogPopularity(**{"attributes": {}, **tree.pop("popularity")}, scale=scale),
        product_ids=ids,
        product_rows=rows,
        product_embeddings=tree.pop("product_embeddings"),
        purchases=tree.pop("purchases"),
        losses=tree.pop("losses"),
        batches=batches,
        chosen=chosen,
        trained_on=trained_on,
        average=average,
        variables=tree,
    )
    validation.check_numbers(model, str(folder / name))
    return model


def _tensors(
    folder: Path, name: str, digest: str, fits: Callable[[Mapping[str, Shape]], None]
) -> dict[str, np.ndarray]:
    """The tensors in a file of safetensors: eight bytes of length, a JSON header, the numbers that it tells of.

    `fits` checks the header before a number is read: a forged header may promise more than there is, and an empty file
    may be long.
    """
    path = folder / name
    with open_file(path, inside=folder) as stream:
        size = os.fstat(stream.fileno()).st_size
        length = int.from_bytes(stream.read(8), "little")
        if length > min(size - 8, _LARGEST["header"]):
            raise InputError(f"{path}: damaged: found {size} bytes, and {length} as the length of its header")
        try:
            header = read_json(stream.read(length))
            header.pop("__metadata__", None)
            shapes: dict[str, Shape] = {}
            for tensor, entry in header.items():
                shapes[tensor] = _TYPES[entry["dtype"]], tuple(map(index, entry["shape"]))
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
            raise InputError(f"{path}: damaged: its header is not one that recsys-jax train writes") from None
        fits(shapes)
        needed = sum(prod(shape) * (8 if kind == "int64" else 4) for kind, shape in shapes.values())
        if size != 8 + length + needed:
            raise InputError(f"{path}: damaged: found {size - 8 - length} bytes of numbers; allowed: {needed}")
        stream.seek(0)
        content = stream.read(size)
    if hashlib.sha256(content).hexdigest() != digest:
        raise InputError(f"{path}: damaged, or of another model: its checksum is not the one in {MODEL}")
    try:
        tensors: dict[str, np.ndarray] = load_tensors(content)
    except Exception as error:  # a header may fit and yet not say where the numbers lie
        raise InputError(f"{path}: damaged: {type(error).__name__}: {str(error)[:200]}") from None
    fits(validation.shapes_of(tensors))
    return tensors


def _plain(value: object) -> object:
    """A value of a table as JSON: NumPy's scalars as Python's, dates as text."""
    return value.item() if isinstance(value, np.generic) else str(value)
