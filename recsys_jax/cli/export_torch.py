"""Writes a trained model as a PyTorch checkpoint, {"model_state_dict": ..., "brand_map": ...}.

Example: python scripts/export_torch.py runs/amoremall model.pth
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from recsys_jax import load_model, save_checkpoint
from recsys_jax.console.terminal import console, following


@dataclass(frozen=True)
class Options:
    """Writes a trained model as a PyTorch checkpoint."""

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """The folder with the trained model."""
    checkpoint: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="CHECKPOINT")]]
    """The file to write; one that is there is replaced."""


def main(options: Options) -> str:
    """Exports."""
    save_checkpoint(load_model(options.run), options.checkpoint)
    console.print(f"Written: {options.checkpoint}")
    return following("import_torch.py", options.checkpoint, "DATASET") + ", or torch.load in PyTorch"
