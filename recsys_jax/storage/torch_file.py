"""A file by `torch.save`, opened so that nothing in it runs and nothing in it takes more memory than the file is large.

PyTorch's `weights_only=True` keeps code out. It still calls what a file asks for among some classes, `bytearray` with
any length say, and unpacks what was packed. So the file is looked through first.
"""

import pickletools
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from recsys_jax.errors import InputError, choices

_ALLOWED = "a file by torch.save that holds plain tensors, dictionaries, lists, texts and numbers alone"
# What torch.save writes of these.
_CALLED = re.compile(
    r"collections OrderedDict|torch Size|torch\._utils _rebuild_(tensor_v2|parameter)|torch [A-Z][A-Za-z0-9]+Storage"
)


def torch_module() -> Any:
    """PyTorch, imported only here: it takes seconds. Raises `InputError` where it is not installed."""
    try:
        import torch
    except ImportError:
        raise InputError("PyTorch checkpoints need torch: pip install 'recsys_jax[torch]'") from None
    return torch


def open_torch_file(path: Path) -> Mapping[Any, Any]:
    """The dictionary in the file. Raises `InputError` for everything else."""
    torch = torch_module()
    if not path.is_file():
        raise InputError(f"{path}: {'found a folder; allowed: a file' if path.exists() else 'there is no such file'}")
    try:
        _look_through(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except UnpicklingError:
        raise InputError(f"{path}: refused by PyTorch's weights_only=True; allowed: {_ALLOWED}") from None
    except Exception:  # what a damaged file raises depends on where the damage is
        old = "; one from before PyTorch 1.6 can be saved again by a newer one"
        raise InputError(f"{path}: damaged, or no PyTorch file; allowed: {_ALLOWED}{old}") from None
    if not isinstance(found, Mapping):
        raise InputError(f"{path}: found {type(found).__name__}; allowed: a dictionary")
    return found


def _look_through(path: Path) -> None:
    """Raises `InputError` where something would be unpacked, or called that a file of tensors has no use for."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
        if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise InputError(
                f"{path}: found packed content, {choices(packed, limit=3) or 'parts that overlap'}; allowed: {_ALLOWED}"
            )
        for entry in entries:
            if not entry.filename.endswith(".pkl"):
                continue
            for code, name, _ in pickletools.genops(archive.read(entry)):
                if code.name == "GLOBAL" and not _CALLED.fullmatch(str(name)):
                    module, function = str(name).split(" ", 1)
                    why = f"opening it would run code, {module}.{function}"
                    if module.startswith("numpy"):  # a brand_map made with NumPy, most likely
                        why += " (save NumPy's numbers as Python's, such as int(row))"
                    raise InputError(f"{path}: refused: {why}; allowed: {_ALLOWED}")
