"""Makes a dataset folder from the files of MovieLens-100k, which everybody downloads from GroupLens for themselves.

Example: python scripts/convert_movielens.py ~/ml-100k ~/movielens
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from recsys_jax import InputError
from recsys_jax.console.terminal import console, following
from recsys_jax.data.files import require_folder, write_file

DESCRIPTION = Path(__file__).resolve().parents[1] / "data" / "movielens" / "dataset.toml"
# The films' own columns; a flag for each genre follows. All texts of MovieLens-100k are Latin-1.
FILM = ("movie id", "title", "release date", "video release date", "IMDb URL")


Row = tuple[str, ...]


@dataclass(frozen=True)
class Options:
    """Makes a dataset folder from the files of MovieLens-100k."""

    source: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="SOURCE")]]
    """The folder ml-100k with u.data, u.user, u.item and u.genre."""
    out: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUT")]]
    """The folder to write dataset.toml and its three tables into."""
    min_rating: int = 1
    """The least rating that counts as a purchase, 1 to 5; at 1, whatever was rated was watched."""


def main(options: Options) -> str:
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
    write_file(options.out / "dataset.toml", DESCRIPTION.read_bytes())
    return following("train.py", options.out)


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
        cells = line.split(separator)
        if len(cells) != fields:
            raise InputError(
                f"{path}, line {number}: found {len(cells)} fields separated by {separator!r}; allowed: {fields}"
            )
        rows.append(cells)
    return rows


def _csv(header: Row, rows: list[Row]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue()
