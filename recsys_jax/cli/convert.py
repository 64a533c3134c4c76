"""What comes from elsewhere: PyTorch checkpoints, in and out, and datasets, made up or of MovieLens.

Examples: recsys-jax torch import model.pth data/amoremall
          recsys-jax torch export runs/amoremall model.pth
          recsys-jax dataset synthetic --out data/amoremall
          recsys-jax dataset movielens ~/ml-100k ~/movielens
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from math import isfinite
from pathlib import Path
from typing import Annotated

import tyro

from recsys_jax import DeepConfig, InputError, TrainedModel, load_checkpoint, load_model, save_checkpoint
from recsys_jax.config import words
from recsys_jax.console.places import (
    MALL,
    again,
    following,
    make_mall,
    open_dataset,
    run_folder,
    write_model,
    write_set_aside,
)
from recsys_jax.console.terminal import console, note
from recsys_jax.data.dataset import read_products, read_schema
from recsys_jax.data.features import FittedFeature
from recsys_jax.data.files import require_folder, write_file
from recsys_jax.data.schema import Categorical, Numeric
from recsys_jax.data.tables import SetAside
from recsys_jax.synthetic.populations import population, write_population

# The films' own columns; a flag for each genre follows. All texts of MovieLens-100k are Latin-1.
FILM = ("movie id", "title", "release date", "video release date", "IMDb URL")

Row = tuple[str, ...]


@dataclass(frozen=True)
class Import:
    """Turns a PyTorch checkpoint into a run that the other commands read."""

    checkpoint: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="CHECKPOINT")]]
    """The file; nothing in it is run."""
    dataset: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATASET")]]
    """The folder with dataset.toml: the features that the towers read, and the product catalogue."""
    run: Path | None = None
    """The folder that the model is written to; by default runs/NAME-torch with the dataset's name."""
    customers: Path | None = None
    """The customers that it was trained on. Only you know: with them, it can be evaluated in-sample."""


def import_torch(options: Import) -> str:
    """Imports and writes the model."""
    named = run_folder(options.dataset, options.run)
    run = named if options.run else run_folder(options.dataset, named.with_name(f"{named.name}-torch"))
    if options.customers is None:
        schema = read_schema(options.dataset)
        products, _ = read_products(options.dataset, schema)
        lost: Sequence[SetAside] = products.set_aside
        model = load_checkpoint(options.checkpoint, schema, products)
        then = following("recommend", run, *_anybody(model))
    else:
        dataset = open_dataset(options.dataset, run, options.customers)
        lost = dataset.set_aside
        model = load_checkpoint(options.checkpoint, dataset.schema, dataset.products, trained_on=dataset)
        then = following("evaluate", *again(options.dataset, run, options.customers), "--protocol", "in-sample")
    for fitted in model.products:
        if isinstance(fitted.feature, Categorical):
            name, column = fitted.feature.name, model.product_rows[fitted.feature.column]
            count = sum(fitted.canonical(value) is None for value in column)
            if count:
                console.print(f"note: products whose {name} the checkpoint doesn't know: {count:,}")
    write_model(model, run)
    write_set_aside(lost, run)
    return then


def _anybody(model: TrainedModel) -> list[str]:
    """The attributes of somebody, as the next command takes them."""
    return [f"{fitted.feature.column}={_some_value(fitted)}" for fitted in model.customers]


def _some_value(fitted: FittedFeature) -> str:
    if not isinstance(fitted.feature, Numeric):
        return fitted.values[0]
    low, high = fitted.feature.minimum, fitted.feature.maximum
    return f"{(low + high) // 2:g}" if isfinite(low + high) else f"{min(max(0, low), high):g}"


@dataclass(frozen=True)
class Export:
    """Writes a trained model as a PyTorch checkpoint."""

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """The folder with the trained model."""
    checkpoint: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="CHECKPOINT")]]
    """The file to write; one that is there is replaced."""


def export_torch(options: Export) -> str | None:
    """Exports. What to run next is known where the model's dataset is where a command looks by default."""
    model = load_model(options.run, tell=note)
    save_checkpoint(model, options.checkpoint)
    console.print(f"Written: {options.checkpoint}; torch.load reads it with weights_only=True")
    known = MALL.is_dir() and read_schema(MALL).source == model.schema.source
    return following("torch import", options.checkpoint, MALL) if known else None


@dataclass(frozen=True)
class Synthetic:
    """Writes synthetic data: the small mall with Korean reviews, or Parquet tables of any size."""

    out: Path | None = None
    """The folder to write into; the small mall goes to data/amoremall unless told otherwise."""
    seed: int = 0
    """The same seed gives the same bytes."""
    customers: int | None = None
    """Number of customers of a population in Parquet; without it, the small mall."""
    products: int | None = None
    """Number of products of that population."""


def synthetic(options: Synthetic) -> str:
    """Generates, writes and counts."""
    if options.customers is None and options.products is None:
        out = options.out or MALL
        paths = make_mall(out, options.seed)
        then = following("run", out)
    else:
        if options.customers is None or options.products is None:
            raise InputError("a population needs both --customers and --products; the small mall needs neither")
        if options.out is None:
            raise InputError("a population needs --out, the folder to write it into")
        out = options.out
        paths = write_population(population(options.customers, options.products, options.seed), out)
        recipe = DeepConfig(loss="infonce", epochs=1, batch_size=4096)
        then = following("train", out, *words(recipe))
    for path in paths:
        console.print(f"{path}  {path.stat().st_size:,} bytes")
    return then


@dataclass(frozen=True)
class MovieLens:
    """Makes a dataset folder from the files of MovieLens-100k."""

    source: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="SOURCE")]]
    """The folder ml-100k with u.data, u.user, u.item and u.genre."""
    out: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUT")]]
    """The folder to write dataset.toml and its three tables into."""
    min_rating: int = 1
    """The least rating that counts as a purchase, 1 to 5; at 1, whatever was rated was watched."""


def movielens(options: MovieLens) -> str:
    """Converts, writes and counts."""
    if not 1 <= options.min_rating <= 5:
        raise InputError(f"min_rating: found {options.min_rating}; allowed: 1 to 5")
    require_folder(options.out)
    tables: dict[str, tuple[Row, list[Row]]] = {
        "products.csv": (("movie_id", "title", "genres", "year"), _films(options.source)),
        "customers.csv": (("user_id", "age", "gender", "occupation"), _users(options.source)),
        "interactions.csv": (("user_id", "movie_id", "rating", "time"), _ratings(options.source, options.min_rating)),
    }
    for name, (header, rows) in tables.items():
        write_file(options.out / name, _csv(header, rows))
        console.print(f"{options.out / name}  {len(rows):,} rows")
    write_file(options.out / "dataset.toml", files("recsys_jax.data").joinpath("movielens.toml").read_bytes())
    return following("train", options.out)


def _films(source: Path) -> list[Row]:
    genres = [name for name, _ in _lines(source / "u.genre", "|", 2)]
    rows: list[Row] = []
    for number, line in enumerate(_lines(source / "u.item", "|", len(FILM) + len(genres)), 1):
        movie, title, released, *_ = line
        year = released[-4:]
        if released and not (year.isascii() and year.isdigit()):
            raise InputError(
                f"{source / 'u.item'}, line {number}: found the release date {released!r}; "
                "allowed: empty, or like 01-Jan-1995"
            )
        flags = zip(genres, line[len(FILM) :], strict=True)
        # A film of the genre "unknown" has none.
        own = [genre for genre, flag in flags if flag == "1" and genre != "unknown"]
        rows.append((movie, title, "|".join(own), year))
    return rows


def _users(source: Path) -> list[Row]:
    return [(user, age, gender, job) for user, age, gender, job, _ in _lines(source / "u.user", "|", 5)]


def _ratings(source: Path, least: int) -> list[Row]:
    rows: list[Row] = []
    for number, (user, movie, rating, time) in enumerate(_lines(source / "u.data", "\t", 4), 1):
        if rating not in {"1", "2", "3", "4", "5"}:
            raise InputError(f"{source / 'u.data'}, line {number}: found the rating {rating!r}; allowed: 1 to 5")
        if int(rating) >= least:
            rows.append((user, movie, rating, time))
    return rows


def _lines(path: Path, separator: str, fields: int) -> list[list[str]]:
    """The lines of a file, each of so many fields."""
    if not path.is_file():
        raise InputError(
            f"{path}: there is no such file; SOURCE is the unpacked folder ml-100k with u.data, u.user, u.item, u.genre"
        )
    # Not splitlines(): it also splits at characters that may stand in a Latin-1 title.
    lines = path.read_bytes().decode("latin-1").replace("\r\n", "\n").split("\n")
    rows = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        found = line.split(separator)
        if len(found) != fields:
            raise InputError(
                f"{path}, line {number}: found {len(found)} fields separated by {separator!r}; allowed: {fields}"
            )
        rows.append(found)
    return rows


def _csv(header: Row, rows: list[Row]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue()
