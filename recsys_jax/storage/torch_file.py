"""A file by `torch.save`, opened so that nothing in it runs and nothing in it takes more memory than the file is large.

PyTorch's `weights_only=True` keeps code out. It still calls what a file asks for among some classes, `bytearray` with
any length say, and unpacks what was packed. So the file is looked through first.
"""

import os
import pickletools
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

from recsys_jax.data.files import absent, open_file
from recsys_jax.errors import InputError, choices, installing

_ALLOWED = "a file by torch.save that holds plain tensors, dictionaries, lists, texts and numbers alone"
# What torch.save writes of these.
_CALLED = re.compile(
    r"collections OrderedDict|torch Size|torch\._utils _rebuild_(tensor_v2|parameter)|torch [A-Z][A-Za-z0-9]+Storage"
)
_MADE = ("EMPTY", "LIST", "DICT", "TUPLE", "REDUCE", "NEWOBJ", "BINPERSID")
_MOST_MADE, _LARGEST_TUPLE = 20_000, 1000  # The published form makes some 200, and tuples of ten.


def torch_module() -> Any:
    """PyTorch, imported only here: it takes seconds. Raises `InputError` where it is not installed."""
    try:
        import torch
    except ImportError:
        raise InputError(f"PyTorch checkpoints need torch: {installing('torch')}") from None
    return torch


def open_torch_file(path: Path) -> Mapping[Any, Any]:
    """The dictionary in the file, and those in it, as plain ones. Raises `InputError` for everything else."""
    torch = torch_module()
    try:
        with open_file(path) as stream:
            _look_through(path, stream)
            stream.seek(0)
            found = torch.load(stream, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(absent(path)) from None
    except InputError:
        raise
    except UnpicklingError:
        raise InputError(f"{path}: refused by PyTorch's weights_only=True; allowed: {_ALLOWED}") from None
    except Exception:  # what a damaged file raises depends on where the damage is
        old = "; one from before PyTorch 1.6 can be saved again by a newer one"
        raise InputError(f"{path}: damaged, or no PyTorch file; allowed: {_ALLOWED}{old}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: found {type(found).__name__}; allowed: a dictionary")
    return {key: _plain(part, path) if isinstance(part, dict) else part for key, part in _plain(found, path).items()}


def _plain(found: dict[Any, Any], path: Path) -> dict[Any, Any]:
    """The entries of a dictionary that may bring methods of its own, which a file can give to an `OrderedDict`."""
    entries = dict(dict.items(found))
    for key in entries:
        if not isinstance(key, str | int | float):
            raise InputError(f"{path}: found {type(key).__name__} as a key; allowed: texts and numbers")
    return entries


def _look_through(path: Path, stream: IO[bytes]) -> None:
    """Raises `InputError` for what would be unpacked, called or made, and a file of tensors has no use for."""
    size = os.fstat(stream.fileno()).st_size
    with zipfile.ZipFile(stream) as archive:
        entries = archive.infolist()
        packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
        if packed or sum(entry.file_size for entry in entries) > size:
            raise InputError(
                f"{path}: found packed content, {choices(packed, limit=3) or 'parts that overlap'}; allowed: {_ALLOWED}"
            )
        for entry in entries:
            if entry.filename.endswith(".pkl"):
                _look_through_pickle(path, archive.read(entry))


def _look_through_pickle(path: Path, content: bytes) -> None:
    # How many parts each value on the unpickler's stack has, those that it has twice counted twice: to hash a tuple of
    # tuples takes as long, and a file of 600 bytes can name 2^25 parts.
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[Any, int] = {}
    made = 0
    for code, argument, _ in pickletools.genops(content):
        if code.name == "GLOBAL" and not _CALLED.fullmatch(str(argument)):
            module, function = str(argument).split(" ", 1)
            why = f"opening it would run code, {module}.{function}"
            if module.startswith("numpy"):  # a brand_map made with NumPy, most likely
                why += " (save NumPy's numbers as Python's, such as int(row))"
            raise InputError(f"{path}: refused: {why}; allowed: {_ALLOWED}")
        if code.name == "MARK":
            marks.append(len(stack))
        elif "PUT" in code.name:
            memo[argument] = stack[-1]
        elif "GET" in code.name:
            stack.append(memo[argument])
        else:
            needs = code.stack_before
            sliced = pickletools.stackslice in needs
            start = marks.pop() - needs.index(pickletools.markobject) if sliced else len(stack) - len(needs)
            parts = sum(stack[start:])
            stack[start:] = [1 + parts] * len(code.stack_after)
            made += code.name.startswith(_MADE)
            if made > _MOST_MADE or (code.name.startswith("TUPLE") and parts > _LARGEST_TUPLE):
                raise InputError(
                    f"{path}: found more than {_MOST_MADE:,} lists and the like, or a tuple of more than "
                    f"{_LARGEST_TUPLE:,} parts; allowed: {_ALLOWED}"
                )
