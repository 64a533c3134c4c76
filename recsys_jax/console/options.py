"""A command's options: from the command line, from a TOML file, and written down for the next time."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from recsys_jax.config import RECIPES, Config, Language, Tell, parse_recipe, to_table
from recsys_jax.console import usage
from recsys_jax.data.files import read_toml, toml_tables, write_file
from recsys_jax.errors import InputError, choices, nearest, require

FILE = "run.toml"
"""The file in a run's folder that has, by command, the options that repeat it."""


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every command takes."""

    config: Path | None = None
    """A TOML file with this command's options, such as a run's run.toml, which repeats it; the command line wins."""
    json: bool = False
    """Print one JSON document instead of text; notes and progress go to the standard error."""
    examples: ClassVar[tuple[str, ...]] = ()
    """Command lines that --help shows, without the program and the command."""
    lists: ClassVar[bool] = False
    """Whether the command prints a list of its own as JSON."""


_ONCE = {*(field.name for field in fields(Common)), "force", "resume", "yes"}  # what is meant for one time alone


def parse(
    main: Callable[..., str | None], name: str, arguments: Sequence[str], tell: Tell = lambda sentence: None
) -> Any:
    """The `options` of a command's `main`, from the arguments: they stand before, between or after its words.

    What they leave out is taken from the file after `--config`; `tell` is called with a line on former names there.
    """
    options = get_type_hints(main, include_extras=True)["options"]
    arguments = getattr(options, "translate", list)(arguments)  # replaces former names
    style = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.CascadeSubcommandArgs)
    if not {"-h", "--help"}.isdisjoint(arguments):  # beside words that stand there already, they would not be listed
        asked = [*(word for word in arguments if word in RECIPES), "--help"]
        try:
            tyro.cli(
                options, prog=f"recsys-jax {name}", args=asked, config=(*style, *usage.MARKERS), registry=usage.rules()
            )
        except SystemExit:
            if options.examples:
                print("\n".join(["examples:", *(f"  recsys-jax {name} {one}".rstrip() for one in options.examples)]))
            raise
    file = _last(arguments, "--config")
    default: dict[str, Any] = {} if file is None else {"default": _read(options, name, Path(file), tell)}
    needed = [one.name for one in fields(options) if _required(one)]
    needed = [one for one in needed if getattr(default.get("default"), one, tyro.MISSING) is tyro.MISSING]
    typed = usage.Typed.of(options, arguments, needed)
    usage.refuse(options, name, typed, needed)
    return tyro.cli(options, prog=f"recsys-jax {name}", args=typed.arguments(), config=style, **default)


def _last(arguments: Sequence[str], option: str) -> str | None:
    """What was last said for an option, as the next word or behind a sign."""
    found, words = None, iter(arguments)
    for word in words:
        if word == option:
            found = next(words, None)
        elif word.startswith(f"{option}="):
            found = word.partition("=")[2]
    return found


def _read(options: type[Common], name: str, path: Path, tell: Tell) -> Common:
    """The options that a file has under the command's name; of `train`, also the table of a recipe alone.

    Raises `InputError` for a file without them, and for what no option takes.
    """
    content, hints = read_toml(path), get_type_hints(options)
    values: dict[str, Any] = {}
    takes_recipe = usage.takes_recipe(options)
    table = content.get(name)
    recipes = [one for one in content.values() if isinstance(one, Mapping) and "recipe" in one]
    if table is None and takes_recipe and recipes:
        from recsys_jax.evaluation.methods import read_config

        values["recipe"] = read_config(path, tell)
    else:
        near = nearest(name, content) if table is None else None
        hint = f", and not [{near}]" if near else ""
        require(isinstance(table, Mapping), f"{path}: [{name}]", table, f"a table with this command's options{hint}")
        allowed = [field.name for field in fields(options) if field.name != "config"]
        for key, found in content[name].items():
            field, where = key.replace("-", "_"), f"{path}, [{name}]"
            if field not in allowed:
                raise InputError(
                    f"{where}: found the option {key!r}; allowed: {choices(allowed, limit=99, found=field)}"
                )
            if field == "recipe" and takes_recipe:
                values[field] = parse_recipe(found, f"{path}, [{name}.{key}]", tell)
                continue
            try:
                values[field] = _fitting(hints[field], found)
            except ValueError:
                require(False, f"{where}: {key}", found, " or ".join(usage.named(hints[field], found)))
    return options(**{field.name: tyro.MISSING for field in fields(options) if _required(field)} | values)


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _fitting(hint: Any, found: object) -> object:
    """A TOML value as an option of that type has it. Raises `ValueError` where it does not fit."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        for one in inner:
            with suppress(ValueError):
                return _fitting(one, found)
    elif kind is tuple and isinstance(found, list):
        return tuple(_fitting(inner[0], one) for one in found)
    elif kind is Literal and found in inner:
        return found
    elif hint is Path and isinstance(found, str):
        return Path(found)
    elif hint is float and type(found) is int:
        return float(found)
    elif type(found) is hint:
        return found
    raise ValueError


def remember(name: str, options: Common, folder: Path) -> None:
    """Writes the command and its options into the folder's run.toml, after those of other commands there."""
    tables = {title: table for title, table in remembered(folder).items() if title != name}
    tables[name] = {field: _plain(value) for field, value in vars(options).items() if field not in _ONCE}
    said = (
        "# What was run here. recsys-jax COMMAND --config FILE, with this file, runs it again; paths are as they were\n"
        f"# typed, from the folder where it was run. Written by recsys_jax {version('recsys_jax')}.\n\n"
    )
    write_file(folder / FILE, said + toml_tables(tables))


def remembered(folder: Path) -> dict[str, dict[str, Any]]:
    """By command, the options that the folder's run.toml has, the latest last; none where it is absent or no TOML."""
    with suppress(InputError):  # what is no longer TOML repeats nothing
        return {title: table for title, table in read_toml(folder / FILE).items() if isinstance(table, dict)}
    return {}


def last_language(folder: Path) -> Language:
    """The language that the last page of a run was asked for in, or English."""
    found = [table["language"] for table in remembered(folder).values() if table.get("language") in get_args(Language)]
    return found[-1] if found else "en"


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Config):
        return to_table(value)
    if is_dataclass(value):  # the dataset's own recipe, which a file names by leaving it out
        return None
    return str(value) if isinstance(value, Path) else value
