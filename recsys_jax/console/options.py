"""A command's options: from the command line, from a TOML file, and written down for the next time."""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from recsys_jax.config import RECIPES, Config, Tell, parse_recipe, to_table
from recsys_jax.data.files import read_toml, toml_tables, write_file
from recsys_jax.errors import InputError, choices, did_you_mean, nearest, require

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
    asks = not {"-h", "--help"}.isdisjoint(arguments)
    if asks:  # beside words that stand there already, they would not be listed
        arguments = [*(word for word in arguments if word in RECIPES), "--help"]
    file = None if asks else _last(arguments, "--config")
    default: dict[str, Any] = {} if file is None else {"default": _read(options, name, Path(file), tell)}
    if not asks:
        _refuse_misspelt(options, name, arguments)
        _refuse_values(options, name, arguments)
    style = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.CascadeSubcommandArgs)
    try:
        return tyro.cli(options, prog=f"recsys-jax {name}", args=arguments, config=style, **default)
    except SystemExit:
        if asks and options.examples:
            print("\n".join(["examples:", *(f"  recsys-jax {name} {one}".rstrip() for one in options.examples)]))
        raise


def _hints(options: type[Common]) -> dict[str, Any]:
    """The type of each option, those of the recipes that the command takes too."""
    kinds = (options, *filter(is_dataclass, get_args(get_type_hints(options).get("recipe"))))
    each = [(field.name, get_type_hints(kind)[field.name]) for kind in kinds for field in fields(kind)]
    return dict(reversed(each))


def _refuse_misspelt(options: type[Common], name: str, arguments: Sequence[str]) -> None:
    """Raises `InputError` for an option that there is none of, and for a word that should be a recipe."""
    hints, words, found = _hints(options), list[str](), list[str]()
    known = [*hints, *(f"no_{field}" for field, hint in hints.items() if hint is bool)]
    allowed, taken = [f"--{one.replace('_', '-')}" for one in known], False
    for word in arguments:
        option, sign, _ = word.partition("=")
        if not re.match("--?[A-Za-z]", option):  # numbers may begin with a sign
            words += [] if taken else [word]
            taken = False
            continue
        field = option[2:].replace("-", "_")
        if field not in known:
            near = did_you_mean(option.replace("_", "-"), allowed)
            raise InputError(f"{name}: found the option {option!r}; allowed: what {name} --help lists{near}")
        taken = not sign and hints.get(field, bool) is not bool
        found.append(option)
    recipes = [*RECIPES, "standard"]
    if not is_dataclass(next(iter(get_args(get_type_hints(options).get("recipe"))), None)):
        return
    if words[1:]:
        right = nearest(words[1], recipes) is None or not {*words}.isdisjoint(recipes)
        require(right, f"{name}: recipe", words[1], choices(recipes, found=words[1]))
    named, own = next((word for word in words if word in recipes), ""), {field.name for field in fields(options)}
    for option in () if "--config" in found else found:  # which may name a recipe
        field = option[2:].replace("-", "_").removeprefix("no_")
        belongs = [recipe for recipe, kind in RECIPES.items() if field in {one.name for one in fields(kind)} - own]
        if belongs and named not in belongs:
            others = [word for word in arguments if word not in recipes]
            at = others.index(words[0]) + 1 if words and words[0] not in recipes else 0
            instead = shlex.join(["recsys-jax", name, *others[:at], belongs[0], *others[at:]])
            raise InputError(f"{name}: {option} belongs to {' and '.join(belongs)}: {instead}")


def _refuse_values(options: type[Common], name: str, arguments: Sequence[str]) -> None:
    """Raises `InputError` for a word that an option of one number or of some words doesn't take."""
    hints = _hints(options)
    for option, word in pairwise([part for one in arguments for part in _parted(one)] + [""]):
        hint = hints.get(option[2:].replace("-", "_")) if option.startswith("--") else None
        kinds = {one for one in (hint, *get_args(hint)) if one in (int, float)}
        of_words = get_origin(hint) is Literal
        if get_origin(hint) is not tuple and (kinds or of_words):
            listed = {
                str(one) for part in (hint, *get_args(hint)) if get_origin(part) is Literal for one in get_args(part)
            }
            with suppress(ValueError):
                if word in listed | {"None"} or (kinds and (float if float in kinds else int)(word) is not None):
                    continue
            require(False, f"{name}: {option}", word or None, " or ".join(_named(hint, word)))


def _parted(word: str) -> list[str]:
    return word.split("=", 1) if word.startswith("--") else [word]


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
    takes_recipe = is_dataclass(next(iter(get_args(hints.get("recipe"))), None))
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
                require(False, f"{where}: {key}", found, " or ".join(_named(hints[field], found)))
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


def _named(hint: Any, found: object) -> Iterator[str]:
    """What an option of that type takes, in words."""
    kind, inner = get_origin(hint), get_args(hint)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path"}
    if kind in (Union, UnionType):
        for one in inner:
            yield from _named(one, found)
    elif kind is tuple:
        yield f"a list of which each is {' or '.join(_named(inner[0], found))}"
    elif kind is Literal:
        yield choices(inner, found=found)
    elif hint is not NoneType:
        yield words[hint]


def remember(name: str, options: Common, folder: Path) -> None:
    """Writes the command and its options into the folder's run.toml, beside the other commands there."""
    path = folder / FILE
    tables: dict[str, dict[str, Any]] = {}
    with suppress(InputError):  # what is no longer TOML repeats nothing
        tables = {title: table for title, table in read_toml(path).items() if isinstance(table, dict)}
    tables[name] = {field: _plain(value) for field, value in vars(options).items() if field not in _ONCE}
    said = (
        "# What was run here. recsys-jax COMMAND --config FILE, with this file, runs it again; paths are as they were\n"
        f"# typed, from the folder where it was run. Written by recsys_jax {version('recsys_jax')}.\n\n"
    )
    write_file(path, said + toml_tables(tables))


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Config):
        return to_table(value)
    if is_dataclass(value):  # the dataset's own recipe, which a file names by leaving it out
        return None
    return str(value) if isinstance(value, Path) else value
