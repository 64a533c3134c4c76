"""Opens what was made to take absurd amounts of memory, with little to be had. See test_hostile.

    python _memory.py RUN WORK

RUN is a saved model. Prints what came of each file: `InputError: ...`, or what should not have been.
"""

import io
import json
import os
import resource
import shutil
import struct
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from test_artifacts import file_of, forged

from recsys_jax import Recommender, load_model
from recsys_jax.personas.clustering import load_personas

GIGABYTE = 2**30
MUCH = 2 * GIGABYTE // 5
"""More than the memory that is left below, a quarter of a gigabyte, and little enough to be made quickly."""
run, work = map(Path, sys.argv[1:])


def sparse(path: Path, size: int, start: bytes = b"") -> None:
    path.write_bytes(start)
    os.truncate(path, size)


def header(entries: dict) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


def model(make):
    """A model folder with one forgery in it, and how it is opened."""

    def attempt(folder: Path):
        shutil.copytree(run, folder)
        make(folder)
        return lambda: load_model(folder)

    return attempt


def document(edit):
    return model(lambda folder: forged(folder, edit))


def tensors(content: bytes, size: int | None = None):
    def make(folder: Path) -> None:
        forged(folder, lambda _: None, content)
        if size is not None:
            os.truncate(file_of(folder, "tensors"), size)

    return model(make)


def wide(number: int):
    """A model that says of every width that it is as large, with tensors whose header agrees."""

    def make(folder: Path) -> None:
        content = file_of(folder, "tensors").read_bytes()
        entries = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
        for name, entry in entries.items():
            if name not in ("purchases", "losses"):
                entry["shape"] = [*entry["shape"][:-1], number]
            if name.endswith("hidden/kernel"):  # of three embeddings and the age, of two and the price
                entry["shape"][0] = (3 if "customer" in name else 2) * number + 1
            elif name.endswith("output/kernel"):
                entry["shape"][0] = number
        options = {"embedding_dim": number, "hidden_dim": number, "output_dim": number}
        forged(folder, lambda d: d["config"].update(options), header(entries))

    return model(make)


def packed(name: str, content: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method, compresslevel=1) as archive:
        archive.writestr(name, content)
    return out.getvalue()


def npy(shape: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return out.getvalue()


def personas(content: bytes | None, size: int = 0, described: bytes = b""):
    def attempt(folder: Path):
        folder.mkdir()
        digest = "" if content is None else sha256(content).hexdigest()
        said = json.dumps({"format": 2, "arrays_sha256": digest, "encoder": "use"}).encode()
        (folder / "model.json").write_bytes(described or said)
        (folder / "arrays.npz").write_bytes(content or b"")
        os.truncate(folder / "arrays.npz", size or len(content or b""))
        return lambda: load_personas(folder)

    return attempt


def wide_personas(part: bytes):
    """A model.json of personas, as large as it may be, of nothing but such parts."""
    described = b'{"format": 2, "more": [' + part * ((2**22 - 60) // len(part)) + b"0]}"
    return personas(b"", described=described)


def toml(text: str):
    def attempt(folder: Path):
        folder.mkdir()
        (folder / "boosts.toml").write_text(text)
        return lambda: Recommender.load(run, folder / "boosts.toml")

    return attempt


def pickled(content: bytes):
    """A checkpoint with this pickle, as it is."""

    def change(path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, entry in entries.items():
                archive.writestr(name, content if name.endswith(".pkl") else entry)

    return checkpoint({}, change)


class Called:
    """What a pickle asks to be called with what."""

    def __init__(self, function, *args) -> None:
        self.parts = function, args

    def __reduce__(self):
        return self.parts


def checkpoint(value, change=None):
    def attempt(folder: Path):
        folder.mkdir()
        torch.save(value, folder / "model.pth")
        if change is not None:
            change(folder / "model.pth")
        products = [{"product_id": "a", "product_name": "A", "brand_name": "B", "category": 97, "price": 1}]
        return lambda: Recommender.from_torch(folder / "model.pth", products=products)

    return attempt


def deflate(path: Path) -> None:
    """The same archive, packed."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def overlap(path: Path) -> None:
    """The same archive, of which the contents list each part three times."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.filelist *= 3
        archive._didModify = True


def repeated(size: int) -> dict:
    """A checkpoint of the published form in which each number stands for as many as one likes."""
    one, state = torch.zeros(1), {}
    for side, tables in (("customer", ["skin_type", "skin_concern", "gender"]), ("product", ["category", "brand"])):
        for name in tables:
            rows = {"skin_type": 5, "skin_concern": 6, "gender": 2, "category": 5, "brand": 1}[name]
            state[f"{name}_emb.weight"] = one.expand(rows, size)
        width = size * len(tables) + 1
        for layer, shape in {
            "0.weight": (size, width),
            **dict.fromkeys(("0.bias", "2.weight", "2.bias", "2.running_mean", "2.running_var"), (size,)),
            "4.weight": (size, size),
            "4.bias": (size,),
        }.items():
            state[f"{side}_mlp.{layer}"] = one.expand(shape)
        state[f"{side}_mlp.2.num_batches_tracked"] = torch.tensor(1)
    return {"model_state_dict": state, "brand_map": {"B": 0}}


ATTEMPTS = {
    "a model.json of 3 GB": model(lambda folder: sparse(folder / "model.json", 3 * GIGABYTE, b"{")),
    "a model.json of 3 GB of which the start is in order": model(
        lambda folder: os.truncate(folder / "model.json", 3 * GIGABYTE)
    ),
    "lists in lists": model(lambda folder: (folder / "model.json").write_text("[" * 10**5 + "]" * 10**5)),
    "objects in objects": model(lambda folder: (folder / "model.json").write_text('{"a":' * 10**5 + "1" + "}" * 10**5)),
    "tensors of 3 GB without a header": tensors(b"", 3 * GIGABYTE),
    "tensors of 3 GB with a header": model(lambda folder: os.truncate(file_of(folder, "tensors"), 3 * GIGABYTE)),
    "a header as long as the file": tensors(struct.pack("<Q", 3 * GIGABYTE - 8), 3 * GIGABYTE),
    "a tensor of 3 GB that no model has": tensors(
        header({"more": {"dtype": "F32", "shape": [3 * 2**28], "data_offsets": [0, 3 * GIGABYTE]}}), 3 * GIGABYTE + 89
    ),
    "a header longer than any": tensors(struct.pack("<Q", 2**64 - 1)),
    "a header of lists in lists": tensors(struct.pack("<Q", 10**5) + b"[" * 10**5),
    "a header with absurd lengths": tensors(
        header({"losses": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}})
    ),
    **{f"widths of {number:g} that agree": wide(number) for number in (10**6, 10**12, 2**62)},
    **{
        f"the option {option}": document(lambda d, option=option: d["config"].update({option: 10**12}))
        for option in ("embedding_dim", "hidden_dim", "output_dim")
    },
    "personas of 3 GB": personas(None, 3 * GIGABYTE),
    "personas that are packed": personas(packed("mean.npy", npy((MUCH // 8,)) + bytes(MUCH))),
    "personas with a forged length": personas(packed("mean.npy", npy((10**12,)), zipfile.ZIP_STORED)),
    "a checkpoint that asks for bytes": checkpoint({"model_state_dict": {"a": Called(bytearray, 3 * GIGABYTE)}}),
    "a checkpoint that asks for a tensor": checkpoint({"model_state_dict": {"a": Called(torch.Tensor, 10**12)}}),
    "a checkpoint that is packed": checkpoint({"model_state_dict": {"a": torch.ones(MUCH // 4)}}, deflate),
    "a checkpoint as good as packed": checkpoint({"model_state_dict": {"a": torch.ones(10**6)}}, overlap),
    **{f"a checkpoint of one number, {size:,} wide": checkpoint(repeated(size)) for size in (10**5, 10**7)},
}
WIDE = {b"[],": 2**24, b"{},": 2**24, b'{"a":1},': 2**24, b"[1],": 2**24}
ATTEMPTS |= {
    **{
        f"a model.json of 16 MB of {part.decode()}": model(
            lambda folder, part=part, size=size: (folder / "model.json").write_bytes(
                b'{"format":5,"more":[' + part * (size // len(part)) + b"0]}"
            )
        )
        for part, size in WIDE.items()
    },
    "a header of 16 MB of []": tensors(
        struct.pack("<Q", 2**24 - 2**10) + b'{"a":[' + b"[]," * 5_592_000 + b"[]]}" + b" " * 2**10
    ),
    **{f"personas of 4 MB of {part.decode()}": wide_personas(part) for part in WIDE},
    "TOML of 1 MB of tables": toml("".join(f"[{number:x}]\n" for number in range(2**17))[: 2**20 - 9]),
    "TOML of 1 MB of lists": toml("a = [" + "[]," * (2**20 // 3 - 9) + "]"),
    "TOML of 1 MB of tables in a list": toml("a = [" + "{}," * (2**20 // 3 - 9) + "]"),
    "TOML with a key of a million parts": toml("a." * 500_000 + "a = 1"),
    **{
        f"a pickle of 10 MB of {name}": pickled(b"\x80\x02](" + part * (10**7 // len(part)) + b"e.")
        for name, part in {"lists": b"]", "dictionaries": b"}", "tuples": b"K\x01\x85"}.items()
    },
}
# Prepared first, with as much memory as it takes.
made = {kind: attempt(work / str(number)) for number, (kind, attempt) in enumerate(ATTEMPTS.items())}
taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (taken + GIGABYTE // 4,) * 2)
outcomes = {}
for kind, opened in made.items():
    try:
        opened()
        outcomes[kind] = "nothing was found wrong"
    except Exception as error:
        outcomes[kind] = f"{type(error).__name__}: {error}"[:300]
print(json.dumps(outcomes, indent=1))
