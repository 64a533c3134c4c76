"""What reviewers state of themselves, in a `profile_info` or in the text of a review.

What there is to state is an `Attribute` of the persona catalogue. What is grammar stands in languages.toml: how people
say "I am", who else a sentence may speak of, how ages are told.
"""

import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import combinations
from typing import Any, Literal

from recsys_jax.errors import choices, require
from recsys_jax.personas.encoders import clean_text

Value = str | int | float
Draw = str | tuple[float, float] | Mapping[str, float]
"""What is drawn where nothing is stated: a value, the lowest and highest of a number, or values with their shares."""

_NUMBER = r"(?<![\d.,])(?P<number>\d{1,9}(?:\.\d{1,6})?)(?![\d,]*\d)"
_CUT = re.compile(r"[/|,·、・\s]+")
# Each doubles the ways to match, so a catalogue of a stranger must not have many.
_MOST_OPTIONAL = 4


@dataclass(frozen=True)
class Phrase:
    """A pattern that states a value, in lower case: the one that the word in it means, or the number in it."""

    pattern: re.Pattern[str]
    words: Mapping[str, str | int]
    """The value that each word means; of an age, the number."""
    within: Mapping[str, int]
    """The year of a decade of age that early, mid or late means; by default 5."""

    def value(self, match: re.Match[str]) -> Value:
        """What a match states."""
        said = {name: text for name, text in match.groupdict().items() if text is not None}
        if "number" in said:
            return float(said["number"]) if "." in said["number"] else int(said["number"])
        if "years" in said:
            return (int(said["years"]) + int(said.get("to", said["years"]))) // 2
        found = self.words[said["word"]] if "word" in said else int(said["decade"]) * 10 + 5
        return found if isinstance(found, str) else found + self.within.get(said.get("within", ""), 5) - 5


@dataclass(frozen=True)
class Attribute:
    """Something that is known of a customer: one of some values, or a number."""

    name: str
    kind: Literal["categorical", "numeric", "age"]
    values: tuple[str, ...]
    """The values of a categorical attribute."""
    lowest: float
    highest: float
    """The bounds of a number; one beyond them is not stated."""
    draw: Draw | None
    """What is drawn for a persona that says nothing of it; None: nothing, so the value is missing."""
    profile: tuple[Phrase, ...]
    """What states it as a part of a profile."""
    text: tuple[Phrase, ...]
    """What states it in a review."""

    def allows(self, value: Value) -> bool:
        """Whether it can have the value."""
        return value in self.values if isinstance(value, str) else self.lowest <= value <= self.highest


@cache
def languages() -> dict[str, dict[str, Any]]:
    """The languages of languages.toml, by their codes."""
    return tomllib.loads(files("recsys_jax.personas").joinpath("languages.toml").read_text(encoding="utf-8"))


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.VERBOSE)


def phrase(text: str, words: Mapping[str, str], language: str | None, where: str) -> Phrase:
    """The phrase that a catalogue writes, such as "{my} {} [dry] skin".

    `{}` stands for one of the words, `{number}` for a number, another name in braces for a piece of the language's
    grammar; what is in brackets may be absent. Raises `InputError` for anything else in braces or brackets.
    """
    grammar = languages().get(language or "", {})
    words = {word.lower(): value for word, value in words.items()}
    # A profile is cut at these signs, and read without spaces where the language has none between words.
    words = {_CUT.sub("" if grammar.get("glued") else " ", word): value for word, value in words.items()} | words
    one = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    pieces = {**grammar.get("pieces", {}), **({"": f"(?P<word>{one})"} if words else {"number": _NUMBER})}
    parts = re.findall(r"\{[^{}]*\}|\s+|.", text.lower())
    brackets = "".join(part for part in parts if part in ("[", "]"))
    whole = brackets == "[]" * (len(brackets) // 2) and len(brackets) <= 2 * _MOST_OPTIONAL
    named = [part[1:-1] for part in parts if len(part) > 1 and not part.isspace()]
    known = all(name in pieces for name in named) and named.count("" if words else "number") == 1
    allowed = f"a phrase with {{{'' if words else 'number'}}} once; beside it {choices(pieces)} in braces"
    require(whole and known, where, text, f"{allowed}, and up to {_MOST_OPTIONAL} parts in brackets, not nested")
    glued, out = grammar.get("glued", False), ""
    signs = {"[": "(?:", "]": ")?", "'": "['’]"}
    for part in parts:
        if part.isspace():
            out += r"\s*" if glued else r"\s+"
        else:
            out += pieces[part[1:-1]] if len(part) > 1 else signs.get(part, re.escape(part))
    if not glued:  # whole words
        out = rf"(?<!\w){out}(?!\w)"
    return Phrase(_compiled(out), words, {})


def ages(language: str | None, place: Literal["profile", "text"]) -> tuple[Phrase, ...]:
    """What states an age in a language; without one, a number as a part of a profile."""
    if language is None:
        return (Phrase(_compiled(r"(?P<years>[1-9]\d)"), {}, {}),) if place == "profile" else ()
    age = languages()[language]["age"]
    am = languages()[language]["pieces"]["am"]
    patterns = [_compiled(pattern.replace("{am}", am)) for pattern in age[place]]
    return tuple(Phrase(pattern, age["words"], age["within"]) for pattern in patterns)


def parse_profile(
    profile: str | None, attributes: Sequence[Attribute], language: str | None = None
) -> tuple[dict[str, Value], list[str]]:
    """What a `profile_info` states, by attribute, and its parts that are not used. A part is recognised by its value.

    Not used are parts that are not understood, and those that contradict an earlier part. A word that two attributes
    know, such as 민감 (a skin type or a concern), is decided by their order in the catalogue.
    """
    # Commas separate values of one place, and places where nothing else does.
    places = re.split(r"[/|]" if re.search(r"[/|]", profile or "") else r"[,·、・]", profile or "")
    parts = [(place, part.strip()) for place, text in enumerate(places) for part in re.split(r"[,·、・]", text)]
    parts = [(place, part) for place, part in parts if part]
    meanings = [_meanings(part, attributes, language) for _, part in parts]
    _settle([place for place, _ in parts], meanings, len(places), [one.name for one in attributes])
    found: dict[str, Value] = {}
    unused = []
    for (_, part), meaning in zip(parts, meanings, strict=True):
        if not meaning or any(found.setdefault(key, value) != value for key, value in meaning.items()):
            unused.append(part)
    return found, unused


def _meanings(part: str, attributes: Sequence[Attribute], language: str | None) -> dict[str, Value]:
    """The possible meanings of a part of a profile, by attribute."""
    glued = languages().get(language or "", {}).get("glued")
    word = ("" if glued else " ").join(part.lower().split())
    found = {}
    for attribute in attributes:
        for one in attribute.profile:
            match = one.pattern.fullmatch(word)
            if match and attribute.allows(one.value(match)):
                found[attribute.name] = one.value(match)
                break
    return found


def _settle(at: Sequence[int], meanings: Sequence[dict[str, Value]], places: int, names: Sequence[str]) -> None:
    """Resolves the parts that two attributes know; `at` has the place of each part.

    They are of the earlier attribute in its own place, where there are as many places as attributes and no other place
    has it; else, without a certain one of the earlier attribute but with another of the later, the first is. All others
    are of the later attribute.
    """
    for place, (first, second) in ((names.index(one), (one, two)) for one, two in combinations(names, 2)):
        either = [part for part, meaning in enumerate(meanings) if {first, second} <= set(meaning)]
        sure = {at[part] for part, meaning in enumerate(meanings) if first in meaning and part not in either}
        firsts = [part for part in either if at[part] == place and places == len(names) and sure <= {place}]
        if not firsts and not sure and sum(second in meaning for meaning in meanings) > 1:
            firsts = either[:1]
        for part in either:
            del meanings[part][second if part in firsts else first]


def profile_of_text(text: str, attributes: Sequence[Attribute], language: str | None = None) -> dict[str, Value]:
    """What the writer of a review states of themselves, by attribute; other phrases are not understood."""
    found: dict[str, set[Value]] = {}
    for part in re.split(r"[!?~\n…。！？]+|\.(?!\d)", clean_text(text).lower()):
        sentence = " ".join(part.split())  # patterns that skip spaces would backtrack over long runs of them
        for attribute in attributes:
            for one in attribute.text:
                own = map(one.value, _own(one.pattern.finditer(sentence), sentence, language))
                found.setdefault(attribute.name, set()).update(filter(attribute.allows, own))
    # Two different values come from a story, which this does not understand.
    return {name: next(iter(values)) for name, values in found.items() if len(values) == 1}


def _own(found: Iterable[re.Match[str]], sentence: str, language: str | None) -> list[re.Match[str]]:
    """The matches before which the sentence mentions nobody else, or the writer again after that."""
    matches = list(found)
    if not matches or language is None:
        return matches
    # Sorted lists and bisection: one sentence of a review may be a megabyte.
    grammar = languages()[language]
    others = [other.end() for other in _compiled(grammar["others"]).finditer(sentence)]
    selves = [own.start() for own in _compiled(grammar["self"]).finditer(sentence)]
    own = []
    for match in matches:
        last_other = bisect_right(others, match.start()) - 1
        last_self = bisect_right(selves, match.start()) - 1
        if last_other < 0 or (last_self >= 0 and selves[last_self] >= others[last_other]):
            own.append(match)
    return own
