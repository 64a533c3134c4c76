"""Recipes on the command line: the dataset's own, one per seed, and former names."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from recsys_jax.config import FORMER_FIELDS, Config, WideConfig
from recsys_jax.console.places import require_dataset
from recsys_jax.data.dataset import read_schema
from recsys_jax.errors import InputError

FORMER_OPTIONS: Mapping[str, str] = {old.replace("_", "-"): new.replace("_", "-") for old, new in FORMER_FIELDS.items()}
"""The options of the wide recipe by those that they had before, without the dashes before them."""


def standard(dataset: Path) -> Config:
    """The dataset's own recipe. Raises `InputError` where there is no such dataset."""
    require_dataset(dataset)
    return read_schema(dataset).training or WideConfig()


def seeds_from(config: Config, count: int, ensemble: bool) -> range:
    """The config's seed and those after it. Raises `InputError` where there is none, or nothing to average."""
    if count < 1:
        raise InputError(f"seeds: found {count}; allowed: 1 or more")
    if ensemble and count == 1:
        raise InputError("ensemble: found one seed; allowed: with 2 seeds or more, as in --seeds 8")
    seeds = range(config.seed, config.seed + count)
    if count > 1 and not config.seeded:
        raise InputError(f"seeds: found {count}; allowed: one with the recipe {config.recipe}, which has one best fit")
    replace(config, seed=seeds[-1])  # refuses one that is too great
    return seeds
