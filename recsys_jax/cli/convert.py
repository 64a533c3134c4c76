"""What comes from elsewhere: PyTorch checkpoints, in and out, and datasets, made up or of MovieLens."""

from dataclasses import dataclass, replace
from importlib.resources import files
from math import isfinite
from pathlib import Path
from typing import Annotated, Literal

import tyro

from recsys_jax import DeepConfig, InputError, load_checkpoint, load_model, save_checkpoint
from recsys_jax.config import words
from recsys_jax.console import places
from recsys_jax.console.options import Common, remember
from recsys_jax.console.terminal import console, note, remark
from recsys_jax.data.dataset import read_products, read_schema
from recsys_jax.data.features import FittedFeature
from recsys_jax.data.files import csv_text, read_file, require_folder, write_file
from recsys_jax.data.schema import Categorical, Numeric
from recsys_jax.errors import require
from recsys_jax.synthetic.headphones import write_headphones
from recsys_jax.synthetic.populations import population, write_population

# The films' own columns; a flag for each genre follows. All texts of MovieLens-100k are Latin-1.
FILM = ("movie id", "title", "release date", "video release date", "IMDb URL")

Row = tuple[str, ...]


@dataclass(frozen=True)
class Import(Common):
    """Turns a PyTorch checkpoint into a run that the other commands read."""

    checkpoint: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="CHECKPOINT")]]
    """The file; nothing in it is run."""
    dataset: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATASET")]]
    """The folder with dataset.toml: the features that the towers read, and the product catalogue."""
    run: Path | None = None
    """The folder that the model is written to; by default runs/NAME-torch with the dataset's name."""
    customers: Path | None = None
    """The customers that it was trained on. Only you know: with them, it can be evaluated in-sample."""
    force: bool = False
    """Take over a run folder that has the files of others, or another dataset's run."""
    examples = ("model.pth data/amoremall --run runs/amoremall-torch",)


def import_torch(options: Import) -> str:
    """Imports and writes the model."""
    run = options.run or Path("runs") / f"{read_schema(options.dataset).name}-torch"
    run = places.run_folder(options.dataset, run, force=options.force)
    if options.customers is None:
        schema = read_schema(options.dataset)
        products, _ = read_products(options.dataset, schema)
        lost = products.set_aside
        model = load_checkpoint(options.checkpoint, schema, products)
        somebody = [f"{fitted.feature.column}={_some_value(fitted)}" for fitted in model.customers]
        then = places.following("recommend", run, *somebody)
    else:
        dataset = places.open_dataset(options.dataset, run, options.customers)
        lost = tuple(dataset.set_aside)
        model = load_checkpoint(options.checkpoint, dataset.schema, dataset.products, trained_on=dataset)
        again = places.again(options.dataset, run, options.customers)
        then = places.following("evaluate", *again, "--protocol", "in-sample")
    for fitted in model.products:
        if isinstance(fitted.feature, Categorical):
            name, column = fitted.feature.name, model.product_rows[fitted.feature.column]
            count = sum(fitted.canonical(value) is None for value in column)
            if count:
                remark(f"products whose {name} the checkpoint doesn't know: {count:,}")
    with places.alone(run):
        places.write_model(model, run, options.dataset)
        remember("torch import", replace(options, run=run), run)
    places.write_set_aside(lost, run)
    return then


def _some_value(fitted: FittedFeature) -> str:
    if not isinstance(fitted.feature, Numeric):
        return fitted.values[0]
    low, high = fitted.feature.minimum, fitted.feature.maximum
    return f"{(low + high) // 2:g}" if isfinite(low + high) else f"{min(max(0, low), high):g}"


@dataclass(frozen=True)
class Export(Common):
    """Writes a trained model as a PyTorch checkpoint."""

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """The folder with the trained model."""
    checkpoint: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="CHECKPOINT")]]
    """The file to write; one that is there is replaced."""
    examples = ("runs/amoremall model.pth",)


def export_torch(options: Export) -> str | None:
    """Exports. What to run next is known where the model's dataset is where a command looks by default."""
    model = load_model(options.run, tell=note)
    save_checkpoint(model, options.checkpoint)
    console.print(f"Written: {options.checkpoint}; torch.load reads it with weights_only=True")
    known = places.MALL.is_dir() and read_schema(places.MALL).source == model.schema.source
    return places.following("torch import", options.checkpoint, places.MALL) if known else None


@dataclass(frozen=True)
class Synthetic(Common):
    """Writes synthetic data: a small shop with reviews, or Parquet tables of any size."""

    out: Path | None = None
    """The folder to write into; the small mall goes to data/amoremall unless told otherwise."""
    shop: Literal["mall", "headphones"] = "mall"
    """The small shop: the cosmetics mall, in Korean, or the headphones of docs/personas.md, in English."""
    seed: int = 0
    """The same seed gives the same bytes."""
    customers: int | None = None
    """Number of customers of a population in Parquet; without it, the small mall."""
    products: int | None = None
    """Number of products of that population."""
    examples = (
        "--out mall",
        "--shop headphones --out headphones",
        "--out population --customers 1000000 --products 100000",
    )


def synthetic(options: Synthetic) -> str:
    """Generates, writes and counts."""
    if options.shop == "headphones":
        if options.out is None or options.customers is not None or options.products is not None:
            raise InputError(
                "the shop of headphones needs --out, the folder to write it into, and nothing of a population"
            )
        paths = write_headphones(options.out, options.seed)
        then = places.following("run", options.out)
    elif options.customers is None and options.products is None:
        paths = places.make_mall(options.out or places.MALL, options.seed)
        then = places.following("run", options.out or places.MALL)
    elif options.customers is None or options.products is None:
        raise InputError("a population needs both --customers and --products; the small mall needs neither")
    elif options.out is None:
        raise InputError("a population needs --out, the folder to write it into")
    else:
        paths = write_population(population(options.customers, options.products, options.seed), options.out)
        then = places.following("train", options.out, *words(DeepConfig(loss="infonce", epochs=1, batch_size=4096)))
    for path in paths:
        console.print(f"{path}  {path.stat().st_size:,} bytes")
    return then


@dataclass(frozen=True)
class MovieLens(Common):
    """Makes a dataset folder from the files of MovieLens-100k."""

    source: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="SOURCE")]]
    """The folder ml-100k with u.data, u.user, u.item and u.genre."""
    out: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUT")]]
    """The folder to write dataset.toml and its three tables into."""
    min_rating: int = 1
    """The least rating that counts as a purchase, 1 to 5; at 1, whatever was rated was watched."""
    examples = ("ml-100k movielens",)


def movielens(options: MovieLens) -> str:
    """Converts, writes and counts."""
    require(1 <= options.min_rating <= 5, "min_rating", options.min_rating, "1 to 5")
    require_folder(options.out)
    tables: dict[str, tuple[Row, list[Row]]] = {
        "products.csv": (("movie_id", "title", "genres", "year"), _films(options.source)),
        "customers.csv": (
            ("user_id", "age", "gender", "occupation"),
            [(user, age, gender, job) for user, age, gender, job, _ in _lines(options.source / "u.user", "|", 5)],
        ),
        "interactions.csv": (("user_id", "movie_id", "rating", "time"), _ratings(options.source, options.min_rating)),
    }
    for name, (header, rows) in tables.items():
        write_file(options.out / name, csv_text([header, *rows]))
        console.print(f"{options.out / name}  {len(rows):,} rows")
    write_file(options.out / "dataset.toml", files("recsys_jax.data").joinpath("movielens.toml").read_bytes())
    return places.following("train", options.out)


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
        # A film of the genre "unknown" has none.
        own = [name for name, flag in zip(genres, line[len(FILM) :], strict=True) if flag == "1" and name != "unknown"]
        rows.append((movie, title, "|".join(own), year))
    return rows


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
    lines = read_file(path).decode("latin-1").replace("\r\n", "\n").split("\n")
    rows = [line.split(separator) for line in lines]
    for number, row in enumerate(rows, 1):
        if len(row) != fields and row != [""]:
            raise InputError(
                f"{path}, line {number}: found {len(row)} fields separated by {separator!r}; allowed: {fields}"
            )
    return [row for row in rows if row != [""]]
