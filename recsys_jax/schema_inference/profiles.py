"""The beginning of a persona catalogue: what reviewers state of themselves, in profiles or in columns of their own."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile, zip_longest
from typing import Any

from recsys_jax.data.files import toml_text
from recsys_jax.data.tabular.frames import free
from recsys_jax.data.values import NumberForm
from recsys_jax.schema_inference.columns import AGED, Column, genders, objects, says, units_with, words
from recsys_jax.schema_inference.draft import spellings

TAKEN = (
    "name",
    "description",
    "keywords",
    "user_id",
    "persona_id",
    "persona_name",
    "purchased_product_id",
    "product_category",
)
"""What personas, and the columns of the customers that are made, are called."""
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)([^][{}]*)")
_SIGNS = re.compile(r"[/|,·、・]")  # at which a profile is cut
# Ages in profiles, as personas/languages.toml has them.
_AGES = {
    "ko": re.compile(r"[1-9]\d\s*(대\s*[초중후]?반?(\s*이상)?|[세살])?"),
    "ja": re.compile(r"[1-9]\d\s*(代|歳|才)?"),
    "en": re.compile(r"[1-9]\d(['’]?s|\s*years?(\s+old)?|\s*[-–]\s*[1-9]\d)?", re.IGNORECASE),
}
LABELS = {"ko": {"age": "나이", "gender": "성별", "skin_type": "피부 타입"}, "ja": {}, "en": {}}
"""By the language of reviews: what people of it call the places of profiles that are named here."""
_SCRIPTS = {"ko": "[가-힣]", "ja": "[ぁ-ヿ]", "en": "[a-z]"}


@dataclass(frozen=True)
class Stated:
    """An attribute that reviewers state."""

    table: dict[str, Any]
    """Its [[attribute]] in a persona catalogue."""
    column: Column
    """What each reviewer states; a place in profiles has no name."""
    before: str
    """What a profile has in front of it: of two columns with yes and no, which one it is."""

    @property
    def read(self) -> Column:
        """It as a feature reads it, of numbers those in it."""
        if "values" in self.table:
            return Column(self.table["name"], self.column.cells, self.column.nothing)
        found = [_NUMBER.match(key) for key in self.column.counts.elements()]
        units = Counter(match[2].strip() for match in found if match).most_common()
        unit = next((one for one, _ in units if one and not re.search(r"\d", one)), "")
        aged = self.table["kind"] == "age"
        known = units_with(unit.casefold()) or ({unit: 0.0} if unit and not aged else {})
        numbers = dict.fromkeys(match[1] for match in found if match)
        return Column(self.table["name"], [*numbers], form=NumberForm(known))


def no_numbers(one: Stated, spoken: str) -> str:
    """What of a column of numbers or ages is none, as the end of a sentence; "" of nothing, and of values."""
    form = {"age": _AGES[spoken], "numeric": _NUMBER}.get(one.table["kind"])
    found = [] if form is None else [(x, n) for x, n in one.column.counts.most_common() if not form.fullmatch(x)]
    said = [f"{x[:30]!r} ({n:,})" for x, n in found[:3]] + ["…"] * (len(found) > 3)
    what = "age" if one.table["kind"] == "age" else "number"
    return f"; not used, as no {what}: {', '.join(said)}" if found else ""


def nested(reviews: Sequence[object], key: str) -> list[object]:
    """What nested reviews have under a key."""
    return [one.get(key) for one in objects(reviews)]


def language(texts: Sequence[object]) -> str:
    """The language of reviews, by their letters."""
    said = " ".join(map(str, texts)).casefold()
    return max(_SCRIPTS, key=lambda name: len(re.findall(_SCRIPTS[name], said)))


def places(profiles: Sequence[object]) -> list[Column]:
    """What stands at each place of profiles such as 40대/남성/복합성, in columns without a name."""
    said = Column("", profiles).keys
    sign = next((sign for sign in "/|," if any(sign in profile for profile in said if profile)), "/")
    columns = zip_longest(*([] if profile is None else profile.split(sign) for profile in said))
    often = len(said) - said.count(None)
    return [Column("", parts) for parts in takewhile(lambda one: 10 * (len(one) - one.count(None)) >= often, columns)]


def attributes(columns: Sequence[Column], spoken: str) -> list[Stated]:
    """What reviewers state in columns; one without a name is called by its values, else by its place."""
    found: list[Stated] = []
    for number, column in enumerate(columns, 1):
        aged = (says(column.name, "age") or not column.name) and column.share(_AGES[spoken].fullmatch) >= AGED
        aged = aged and all(one.table["kind"] != "age" for one in found)
        name = re.sub(r"\W+", "_", column.name).strip("_") or ("age" if aged else _known(column))
        taken = *TAKEN, *(one.table["name"] for one in found)
        name = free(name if name.isidentifier() else f"stated_{number}", taken)
        units = Counter(match[2] for key in column.counts.elements() if (match := _NUMBER.fullmatch(key)))
        unit, often = next(iter(units.most_common(1)), ("", 0))
        spelt = spellings(column)
        values = [key for key, count in column.counts.most_common(50) if count > 1 and key not in spelt]
        before = f"{name}: " if column.name and not aged else ""
        if aged:
            table: dict[str, Any] = {"kind": "age"}
        elif often >= AGED * max(column.filled, 1) and (unit or column.guessed.kind == "numeric"):
            table = {"kind": "numeric", "profile": [f"{before}{{number}}{unit}"]}
        elif values:
            table = {"kind": "categorical", "values": values}
            table |= {"profile": [f"{before}{{}}"]} if before else {}
        else:
            continue
        found.append(Stated({"name": name, **table}, column, before))
    return found


def profiles(found: Sequence[Stated], rows: int) -> list[str | None]:
    """What each reviewer states, as a `profile_info`."""
    parts = [[key and one.before + _SIGNS.sub(" ", key) for key in one.column.keys] for one in found]
    return [" / ".join(filter(None, (keys[row] for keys in parts))) or None for row in range(rows)]


def catalogue(found: Sequence[Stated], spoken: str) -> str:
    """The text of a personas.toml that declares these attributes, and names no persona yet."""
    lines = [
        "# Begun by recsys-jax init, of what reviewers state; docs/personas.md explains every key. [[persona]] tables",
        "# would give the clusters of reviews names of your own: there are then as many clusters as tables.",
    ]
    unnamed = next((one.table["name"] for one in found if one.table["name"].startswith("stated_")), None)
    if unnamed:
        lines += [f"# {unnamed} is called by its place in the profiles: a better name goes here and into dataset.toml."]
    lines += [f"language = {toml_text(spoken)}"]
    for one in found:
        lines += ["", "[[attribute]]", *(f"{key} = {toml_text(value)}" for key, value in one.table.items())]
    return "\n".join(lines) + "\n"


def _known(column: Column) -> str:
    """What has such values, most of them; "" where words.toml does not know."""
    values = {key.casefold() for key in column.counts}
    known = {"gender": {word for group in genders() for word in group}, "skin_type": {*words("skin_type")}}
    return next((what for what, own in known.items() if 2 * len(values & own) > len(values)), "")
