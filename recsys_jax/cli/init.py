"""Guesses a dataset.toml from any tables, such as `recsys-jax init products.csv customers.csv purchases.csv`."""

import os
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

import tyro

from recsys_jax import stopping
from recsys_jax.console.options import Common
from recsys_jax.console.places import following
from recsys_jax.console.terminal import console, progress, remark
from recsys_jax.data.dataset import load_dataset, read_products, read_schema
from recsys_jax.data.files import absent, read_file, require_folder, write_file
from recsys_jax.data.tabular.readers import ENDINGS, read_table
from recsys_jax.data.values import composed
from recsys_jax.errors import InputError, choices, require, shown
from recsys_jax.schema_inference.arranging import MADE, arrange
from recsys_jax.schema_inference.columns import words
from recsys_jax.schema_inference.guesses import describe
from recsys_jax.schema_inference.linking import Role, Sheet, roles


@dataclass(frozen=True)
class Options(Common):
    """Looks at tables, and writes a dataset.toml that says what it guessed and what it saw."""

    tables: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="TABLE ...")]] = ()
    """Tables (CSV, JSON, Parquet) in any order, or a folder that has them: which is which follows from their ids."""
    products: Path | None = None
    """The table of products, where it is guessed wrong."""
    customers: Path | None = None
    """The table of customers, likewise."""
    purchases: Path | None = None
    """The table of who bought what, likewise."""
    out: Path | None = None
    """The folder for dataset.toml, by default that of the tables; those that lie elsewhere are copied into it."""
    keep: tuple[str, ...] = ()
    """Columns that become attributes of customers, though by the guess they are left out."""
    yes: bool = False
    """Ask nothing: take each guess."""
    force: bool = False
    """Replace what is there: dataset.toml, personas.toml, and tables that are copied or made."""
    examples = ("products.csv customers.csv purchases.csv", "shop --yes", "export.json --out shop")


def main(options: Options) -> str:
    """Reads, guesses, writes, and reads what was written."""
    given: dict[Role, Path] = {role: path for role in get_args(Role) if (path := getattr(options, role)) is not None}
    paths = _paths([*options.tables, *given.values()])
    folder = options.out or Path(os.path.commonpath([path.absolute().parent for path in paths]))
    if options.out is None and Path.cwd() in (folder, *folder.parents):
        folder = folder.relative_to(Path.cwd())
    toml = folder / "dataset.toml"
    require_folder(folder)
    _require_new(toml, options.force)
    with progress("looking at the tables", lines=False):
        sheets = {path.resolve(): _sheet(path, folder, options.force) for path in paths}
        found = roles([*sheets.values()], {role: sheets[path.resolve()] for role, path in given.items()})
    ask = _ask if _asks(options) else lambda _, __, guess: guess
    for name in options.keep:
        named = [*dict.fromkeys(column for sheet in sheets.values() for column in sheet.columns)]
        require(name in named, "keep", name, choices(named, found=name))
    shop = arrange(found, ask, options.keep)
    draft = describe(shop, _name(folder), ask, options.keep)
    kept = {column.name for column in (*draft.read, *(one.column for one in shop.stated))}
    for name in (name for name in options.keep if name not in kept):
        why = draft.left_out.get(name) or "it is no attribute of customers"
        raise InputError(f"keep: found {shown(name)} ({why}); allowed: a column with numbers or values of customers")
    contents: dict[str, bytes | str] = {**shop.made, **draft.files}
    sides = [side for side in (shop.products, shop.customers) if side is not None]
    used = {side.sheet.file for side in sides} | (set() if shop.own else {shop.purchases.file})
    for sheet in sheets.values():
        if sheet.file in used:
            there, content = folder / sheet.file, read_file(sheet.path)
            contents |= {} if there.exists() and there.read_bytes() == content else {sheet.file: content}
        elif sheet is shop.purchases or any(sheet.file in side.saw for side in sides):
            for note in sheet.table.validation.notes:  # nobody reads it again
                remark(note)
        else:
            console.print(f"{sheet.path} is not used: {shop.unused(sheet)}")
    for name in (*shop.made, *draft.files):
        _require_new(folder / name, options.force)
    _write(folder, contents, "\n".join(draft.lines) + "\n")
    for line in draft.told:
        console.print(line)
    console.print(f"Written to {folder}: {', '.join([*contents, toml.name])}")
    return _check(folder, personas=shop.customers is None)


def _require_new(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise InputError(f"{path}: found a file; allowed: none yet, or --force, which replaces it")


def _paths(named: Sequence[Path]) -> list[Path]:
    """The tables, each once; of a folder those in it. Raises `InputError` where there are none."""
    found: dict[Path, Path] = {}
    for path in named:
        if not os.path.exists(path):
            raise InputError(absent(path, "there is no such file or folder"))
        inside = [path]
        if path.is_dir():  # without what was made of its tables before
            tables = sorted(one for one in path.iterdir() if one.suffix.lower() in ENDINGS)
            made = {f"{one.stem}{what}" for one in tables for what in MADE}
            inside = [one for one in tables if one.stem not in made]
            # Where it has nothing but Excel sheets, the first is refused with what to do.
            inside = inside or sorted(one for one in path.iterdir() if one.suffix.lower().startswith(".xls"))
        require(bool(inside), str(path), "a folder without tables", f"one with files that end in {choices(ENDINGS)}")
        found.update((one.resolve(), one) for one in inside)
    require(
        bool(found),
        "tables",
        "none",
        "a folder that has them, or one or more, such as products.csv customers.csv purchases.csv",
    )
    return [*found.values()]


def _sheet(path: Path, folder: Path, force: bool) -> Sheet:
    """A table, and its name in the dataset's folder, into which one that lies elsewhere is copied."""
    table = read_table(path)
    inside = path.resolve().is_relative_to(folder.resolve())
    file = path.resolve().relative_to(folder.resolve()).as_posix() if inside else path.name
    if not inside and (folder / file).exists() and (folder / file).read_bytes() != path.read_bytes():
        _require_new(folder / file, force)
    return Sheet(path, table, file)


def _name(folder: Path) -> str:
    """The folder's, without what a dataset's name may not have."""
    plain = "".join(one if one.isprintable() else "_" for one in folder.resolve().name)
    return re.sub(r"^\.+|[\\:]", "_", plain) or "shop"


def _asks(options: Options) -> bool:
    return not options.yes and console.is_terminal and sys.stdin.isatty()


def _ask(question: str, allowed: Sequence[str], guess: str) -> str:
    """Asks on a line; nothing said, or the end of what is said, is the guess. The beginning of an answer will do."""
    while True:
        console.print(f"{question} ({', '.join(allowed)}) [{guess}] ", end="")
        try:
            said = composed(input().strip()).casefold() or guess.casefold()
        except EOFError:
            return guess
        said = next((one for one in allowed if "yes" in allowed and said in words(one)), said)
        begun = [one for one in allowed if one.casefold().startswith(said)]
        fitting = [one for one in begun if one.casefold() == said] or begun
        if len(fitting) == 1:
            return fitting[0]
        console.print(f"found {shown(said)}; allowed: {choices(fitting or allowed)}, or the beginning of one")


def _write(folder: Path, contents: dict[str, bytes | str], toml: str) -> None:
    """Writes dataset.toml last; whoever stops before it leaves nothing."""
    with ExitStack() as undo:
        for name, content in contents.items():
            if not (folder / name).exists():
                stopping.unfinished.add(folder / name)
                undo.callback((folder / name).unlink, missing_ok=True)
            write_file(folder / name, content)
        write_file(folder / "dataset.toml", toml)
        undo.pop_all()
    stopping.unfinished.difference_update(folder / name for name in contents)


def _check(folder: Path, *, personas: bool) -> str:
    """Reads the dataset as training does, says what is set aside, and gives the command that goes on."""
    if personas:
        table, ids = read_products(folder, read_schema(folder))
        said, notes = f"{len(ids):,} products, with reviews", table.validation.notes
    else:
        made = load_dataset(folder)
        counts = (made.product_ids, "products"), (made.customer_ids, "customers"), (made.purchases, "purchases")
        said, notes = ", ".join(f"{len(rows):,} {name}" for rows, name in counts), made.notes
    console.print(f"{folder}: {said}")
    for note in notes:
        remark(note)
    return following("run", folder)
