"""How a command is used: what --help shows, and what is refused of what was typed, in a sentence."""

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import chain
from math import inf
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from recsys_jax.config import RECIPES
from recsys_jax.errors import InputError, choices, did_you_mean, nearest, require

NAMES = (*RECIPES, "standard")
"""The words that name a recipe."""
MARKERS = (tyro.conf.FlagCreatePairsOff,)
"""For --help alone: a flag is listed without its negative, which undoes it where a file sets it."""
_VALUES = {bool: None, int: "INT", float: "NUMBER", str: "TEXT", Path: "PATH"}


def rules() -> ConstructorRegistry:
    """tyro's rules, with which --help names values and defaults as a person does; for --help alone."""
    found, within = ConstructorRegistry(), False

    @found.struct_rule
    def options(info: StructTypeInfo) -> StructConstructorSpec | None:
        nonlocal within
        if within or not is_dataclass(info.type):
            return None
        within = True
        try:
            spec = ConstructorRegistry.get_struct_spec(info)  # by tyro's own rule
        finally:
            within = False
        if not isinstance(spec, StructConstructorSpec):
            return None
        hints = get_type_hints(info.type, include_extras=True)
        return replace(spec, fields=tuple(_shown(field, hints[field.name]) for field in spec.fields))

    return found


def _shown(field: StructFieldSpec, hint: Any) -> StructFieldSpec:
    if field.name == "recipe" and _recipes(hint):  # listed by their names
        return field
    marks = getattr(hint, "__metadata__", ())
    metavar = None if tyro.conf.Positional in marks else _value(get_args(hint)[0] if marks else hint)
    shown = tyro.conf.arg(metavar=metavar, help_behavior_hint=_default)
    annotated: Any = Annotated[field.type, shown]
    return replace(field, type=annotated, helptext=_on_one_line(field.helptext))


def _value(hint: Any) -> str | None:
    """What stands for a value of that type; None for a flag's, which has none.

    >>> _value(int | Literal["auto"] | None), _value(tuple[str, ...]), _value(Literal["en", "ko"])
    ('INT|auto', 'TEXT ...', '{en,ko}')
    """
    kind, inner = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return "|".join(filter(None, (_value(one) for one in inner if one is not NoneType)))
    if kind is tuple:
        return f"{_value(inner[0])} ..."
    if kind is Literal:
        return ",".join(inner) if len(inner) == 1 else f"{{{','.join(inner)}}}"
    return _VALUES[hint]


def _default(label: str) -> str:
    """Nothing where none is said: an option that is left out, a flag that is not set, an empty list."""
    return "" if label in ("", "None", "False") else f"(default: {label})"


def _on_one_line(text: str | Callable[[], str | None] | None) -> Callable[[], str | None]:
    """A docstring, read when it is shown, without the breaks of its lines."""
    return lambda: " ".join(((text() if callable(text) else text) or "").split())


@dataclass(frozen=True)
class Typed:
    """What was typed: options, each with its values, and the words that are no option's."""

    options: Sequence[tuple[str, Sequence[str]]]
    words: Sequence[str]

    @classmethod
    def of(cls, options: type[Any], arguments: Sequence[str], needed: Sequence[str]) -> "Typed":
        """A flag takes none of the words behind it, a list all up to the next option, any other option one.

        A list leaves as many at the end as the words that are `needed`.
        """
        hints, found, words, room, over = _hints(options), list[tuple[str, list[str]]](), list[str](), 0.0, False
        for place, word in enumerate(arguments):
            option, sign, value = word.partition("=")
            if word == "--" and not over:  # what follows are words
                over, room = True, 0.0
            elif over or not re.match("--?[A-Za-z]", option):  # numbers may begin with a sign
                taken = room == 1 or (room and len(arguments) - place > len(needed) - len(words))
                (found[-1][1] if taken else words).append(word)
                room = room - 1 if taken else 0.0
            else:
                found.append((option, [value] if sign else []))
                hint = hints.get(_field(option), bool)
                room = inf if get_origin(hint) is tuple else float(hint is not bool and not sign)
        return cls(found, words)

    def arguments(self) -> list[str]:
        """The same, words first: wherever they stood between options, they are read."""
        options = [[option, *values] for option, values in self.options]
        options = [[f"{one[0]}={one[1]}", *one[2:]] if one[1:] and one[1].startswith("-") else one for one in options]
        ordered = [list(self.words), *options]
        if any(word.startswith("-") for word in self.words):
            ordered = [*options, ["--", *self.words]]
        return [*chain(*ordered)]


def refuse(options: type[Any], name: str, typed: Typed, needed: Sequence[str]) -> None:
    """Raises `InputError` for what a command doesn't take, and where a word that is `needed` is missing."""
    _refuse_misspelt(options, name, typed)
    _refuse_values(options, name, typed)
    _refuse_words(options, name, typed, needed)


def _recipes(hint: Any) -> list[Any]:
    """The dataclasses of a union of recipes, each with a name of its own."""
    parts = [get_args(one)[0] if hasattr(one, "__metadata__") else one for one in get_args(hint)]
    return [one for one in parts if is_dataclass(one)]


def takes_recipe(options: type[Any]) -> bool:
    """Whether a command takes a recipe, by its name, and the recipe's options."""
    return bool(_recipes(get_type_hints(options).get("recipe")))


def _hints(options: type[Any]) -> dict[str, Any]:
    """The type of each option, those of the recipes that the command takes too."""
    kinds = (options, *_recipes(get_type_hints(options).get("recipe")))
    each = [(field.name, get_type_hints(kind)[field.name]) for kind in kinds for field in fields(kind)]
    return dict(reversed(each))


def _field(option: str) -> str:
    return option[2:].replace("-", "_")


def _refuse_misspelt(options: type[Any], name: str, typed: Typed) -> None:
    """Raises `InputError` for an option that there is none of, and for a word that should be a recipe."""
    hints, words, found = _hints(options), typed.words, [option for option, _ in typed.options]
    known = [*hints, *(f"no_{field}" for field, hint in hints.items() if hint is bool)]
    allowed = [f"--{one.replace('_', '-')}" for one in known]
    for option in found:
        if _field(option) not in known or not option.startswith("--"):
            near = did_you_mean(option.replace("_", "-"), allowed)
            raise InputError(f"{name}: found the option {option!r}; allowed: what {name} --help lists{near}")
    if not takes_recipe(options):
        return
    if words[1:]:
        right = nearest(words[1], NAMES) is None or not {*words}.isdisjoint(NAMES)
        require(right, f"{name}: recipe", words[1], choices(NAMES, found=words[1]))
    named, own = next((word for word in words if word in NAMES), ""), {field.name for field in fields(options)}
    for option in () if "--config" in found else found:  # which may name a recipe
        field = _field(option).removeprefix("no_")
        belongs = [recipe for recipe, kind in RECIPES.items() if field in {one.name for one in fields(kind)} - own]
        if belongs and named not in belongs:
            others = [word for word in typed.words if word not in NAMES]
            instead = shlex.join(["recsys-jax", name, *replace(typed, words=[*others, belongs[0]]).arguments()])
            raise InputError(f"{name}: {option} belongs to {' and '.join(belongs)}: {instead}")


def _refuse_values(options: type[Any], name: str, typed: Typed) -> None:
    """Raises `InputError` for a value that an option doesn't take, and for none where it takes one."""
    hints = _hints(options)
    for option, values in typed.options:
        hint = hints.get(_field(option), bool)
        if hint is bool:
            require(not values, f"{name}: {option}", " ".join(values), "the option alone, without a value")
            continue
        listed = get_origin(hint) is tuple
        kind, more = (get_args(hint)[0], ", and more after spaces") if listed else (hint, "")
        found: Sequence[str | None] = values or [None] * (kind is not str or not listed)  # of ids there may be none
        for value in found:
            if value is None or not _takes(kind, value):
                require(False, f"{name}: {option}", value, " or ".join(named(kind, value)) + more)


def _takes(hint: Any, word: str) -> bool:
    """Whether a word of the command line is a value of that type."""
    if get_origin(hint) in (Union, UnionType):
        return any(_takes(one, word) for one in get_args(hint))
    if get_origin(hint) is Literal:
        return word in get_args(hint)
    if hint is NoneType:
        return word == "None"
    try:
        return hint(word) is not None
    except ValueError:
        return False


def _refuse_words(options: type[Any], name: str, typed: Typed, needed: Sequence[str]) -> None:
    """Raises `InputError` where a word is missing that the command needs, and for one more than it takes."""
    hints = get_type_hints(options, include_extras=True)
    marks = {one: getattr(hint, "__metadata__", ()) for one, hint in hints.items()}
    places = {one: _metavar(found) for one, found in marks.items() if tyro.conf.Positional in found}
    recipe = takes_recipe(options)
    words = [word for word in typed.words if not (recipe and word in NAMES)]
    missing = [places[one] for one in [*places][len(words) :] if one in needed]
    used = " ".join(["recsys-jax", name, *places.values(), *["RECIPE"] * recipe])
    if missing:
        raise InputError(
            f"{name}: found no {' and no '.join(missing)}; allowed: {used}, such as recsys-jax {name} "
            f"{options.examples[0]}; recsys-jax {name} --help says what each is"
        )
    listed = any(metavar.endswith(" ...") for metavar in places.values())
    for word in [] if listed else [*words[len(places) :], *typed.words[len(words) + 1 :]]:
        raise InputError(f"{name}: found {word!r}; allowed: {used}")


def _metavar(marks: Sequence[Any]) -> str:
    return str(next(one.metavar for one in marks if hasattr(one, "metavar")))


def named(hint: Any, found: object) -> Iterator[str]:
    """What an option of that type takes, in words."""
    kind, inner = get_origin(hint), get_args(hint)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path"}
    if kind in (Union, UnionType):
        for one in inner:
            yield from named(one, found)
    elif kind is tuple:
        yield f"a list of which each is {' or '.join(named(inner[0], found))}"
    elif kind is Literal:
        yield choices(inner, found=found)
    elif hint is not NoneType:
        yield words[hint]
