"""A dataset.toml while it is guessed: a line for each key, with what was seen beside it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from unicodedata import normalize

from recsys_jax.data.files import toml_text
from recsys_jax.errors import nearest, plain
from recsys_jax.schema_inference.columns import Column, Content, genders, says, units_with


def spellings(column: Column) -> dict[str, str]:
    """The values that differ from a more frequent one in case or in spaces around them alone, and that one."""
    first: dict[str, str] = {}
    found = {}
    for key, _ in column.counts.most_common():
        known = first.setdefault(key.strip().casefold(), key)
        if known != key:
            found[key] = known
    return found


def slips(column: Column) -> dict[str, str]:
    """The values that another one differs from by spaces or a unit alone, and rare ones that look like it; and that."""
    found, first = dict[str, str](), dict[str, str]()
    for key, count in column.counts.most_common() if len(column.counts) <= _VALUES else ():
        bare = "".join(key.split())
        same = first.setdefault(bare, key)
        near = nearest(key, [other for other, often in column.counts.items() if often >= _RARER * count], _ALIKE)
        one_letter = near and abs(len(normalize("NFD", key)) - len(normalize("NFD", near))) <= 1
        if same != key:
            found[key] = same
        elif bare.isdecimal():
            with_unit = (one for one in column.counts if one.startswith(bare) and units_with(one[len(bare) :].strip()))
            found |= {key: one} if (one := next(with_unit, None)) else {}
        elif one_letter and near and _TOLD_BY.findall(key) == _TOLD_BY.findall(near):
            found[key] = near
    return found


def alike(column: Column) -> dict[str, str]:
    """The words for the genders that a column has, in any language, and the most frequent of its own for each."""
    groups = [{one for word in group for one in (word, word.capitalize())} for group in genders()]
    if len(column.counts) < 2 or column.share(lambda key: any(key in group for group in groups)) < _PLAIN:
        return {}
    own = [next((key for key, _ in column.counts.most_common() if key in group), None) for group in groups]
    names = [*column.counts, *(one for group in genders() for word in group for one in (word, word.capitalize()))]
    return {
        one: str(key)
        for key, group in zip(own, groups, strict=True)
        for one in dict.fromkeys(names)
        if key and one in group and one != key
    }


_PLAIN = 0.9  # of the cells, from which on a column is of genders
_VALUES = 50  # of more values, none is compared
_RARER, _ALIKE = 4, 0.8  # how much rarer a slip is, and how alike
_TOLD_BY = re.compile(r"\d+|\b\w\b")  # numbers and single letters: others are others
_SENTINELS = {"-1", "-9", "-99", "-999"}


@dataclass
class Draft:
    """The lines of a dataset.toml, and what people are told of them."""

    lines: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    """The contents of files beside it, by their names."""
    read: list[Column] = field(default_factory=list)
    """The columns whose cells will be read."""
    left_out: dict[str, str] = field(default_factory=dict)
    """The columns that nothing learns from, with the reasons."""

    def section(self, title: str, saw: str) -> None:
        """Begins a section."""
        self.lines += ["", f"# {plain(saw)}", title]
        self.told.append(f"{title} {plain(saw)}")

    def say(self, key: str, value: object, saw: str = "", *, tell: bool = False) -> None:
        """A key, and what its value is guessed from."""
        self.lines.append(f"{key} = {toml_text(value)}" + (f"  # {plain(saw)}" if saw else ""))
        if tell:
            self.told.append(f"  {key} = {toml_text(value)}: {plain(saw)}")

    def remark(self, sentence: str) -> None:
        """A line of its own, for people."""
        self.lines.append(f"# {plain(sentence)}")
        self.told.append(f"  {plain(sentence)}")

    def leave_out(self, columns: Mapping[str, str]) -> None:
        """Columns that nothing learns from, with the reasons; of "" nobody would ask."""
        self.left_out |= columns
        for name, why in columns.items():
            if why:
                self.remark(f"left out: {name}: {why}")

    def feature(self, side: str, column: Column, name: str, found: Content) -> None:
        """A feature of one side, with its policies."""
        self.read.append(column)
        self.lines += ["", f"# {plain(found.saw)}", f"[[{side}.features]]"]
        self.told.append(f"  {plain(column.name)}: {found.kind}; {plain(found.saw)}")
        self.say("name", name)
        if name != column.name:
            self.say("column", column.name)
        self.say("kind", found.kind)
        if found.kind == "numeric":
            self._number(column)
            return
        if side == "products" and column.filled == len(column.cells) and {*column.counts} == {"0", "1"}:
            self.say("values", [0, 1])
            self.say("unknown", "error", "a flag, which is one or the other")
            self.say("missing", "error", "none is empty")
            return
        self.say("values", "learned", "or a list of those that there may be")
        if found.separator is not None:
            self.say("separator", found.separator)
        if found.kind == "multi-categorical":
            self.say("unknown", "ignore", "new ones are left out; the others count")
        else:
            self.say("unknown", "extra-row", 'new ones share a row; "error" refuses them')
        same = alike(column) if found.kind == "categorical" and side == "customers" else {}
        if same:
            self.say("aliases", same, "words for a gender mean the same, in the table and in a request")
            joined = [f"{one} to {same[one]}" for one in column.counts if one in same]
            self.told += [f"  aliases of {plain(column.name)} join {', '.join(map(plain, joined))}"] if joined else []
        elif found.kind == "categorical" and (spelt := spellings(column)):
            self.remark(f"aliases = {toml_text(spelt)} would join what differs in case alone")
        if found.kind == "categorical" and side == "customers" and not same:
            self.join(column)
        self.say("missing", "extra-row", 'a row of its own; { as = VALUE } where empty means something; or "error"')

    def join(self, column: Column) -> None:
        """A line that joins values which look like another one."""
        if joined := slips(column):
            said = [f"{key!r} ({column.counts[key]:,}) looks like {other!r}" for key, other in joined.items()]
            self.remark(f"{', '.join(said[:3])}: aliases = {toml_text(joined)} joins them")

    def _number(self, column: Column) -> None:
        below = [key for key, number in column.numbers.items() if number < 0]
        nothing = below if len(below) == 1 and below[0] in _SENTINELS and column.counts[below[0]] > 1 else []
        if nothing:
            self.say("missing_values", [int(nothing[0])], "the one number below 0")
        units, thousands = column.written
        if units:
            self.say(
                "units", dict(units) if any(units.values()) else [*units], "beside numbers; the number alone will do"
            )
        if thousands:
            self.say("thousands", thousands, "between groups of three digits")
        self.say("standardise", True, "minus the mean, by the standard deviation; or scale = a natural size")
        numbers = [number for key, number in column.numbers.items() if key not in nothing] or [-1.0]
        if says(column.name, "age") and min(numbers) >= 1 and max(numbers) <= 120:
            self.say("min", 1)
            self.say("max", 120, "an age that can be true")
        elif min(numbers) >= 0 and (says(column.name, "amount") or says(column.name, "price")):
            self.say("min", 0, "what can't be true is unknown; max likewise")
        others = len(column.numbers) < len(column.counts)
        saw = 'what is no number counts as missing; or "error"' if others else 'or "missing"'
        self.say("unknown", "missing" if others else "error", saw)
        self.say("missing", "flag", "the mean, and a flag; { as = NUMBER } where empty means something")
