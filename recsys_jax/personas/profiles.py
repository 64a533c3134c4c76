"""Age, gender, skin type and concern of reviewers, from a `profile_info` or from the text of a review."""

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recsys_jax.personas.encoders import clean_text

SKIN_TYPES = ("dry", "oily", "combination", "sensitive", "normal")
SKIN_CONCERNS = ("moisture", "wrinkle", "gift", "repurchase", "calming", "texture")


@dataclass(frozen=True)
class Profile:
    """What a reviewer states; None where nothing is stated."""

    age: int | None = None
    gender: str | None = None
    skin_type: str | None = None
    skin_concern: str | None = None


def _table(listed: Mapping[str, str]) -> dict[str, str]:
    return {word: value for value, words in listed.items() for word in [value.lower(), *words.split()]}


_GENDERS = _table({"F": "여성 여자 여 female", "M": "남성 남자 남 male"})
_SKIN_TYPES = _table(
    {
        "dry": "건성 건조한 건조 건조함",
        "oily": "지성 수부지 수부지성 수분부족지성 수분부족형지성",
        "combination": "복합성 복합",
        "sensitive": "민감성 민감한 예민한 민감 예민",
        "normal": "중성 일반 보통",
    }
)
_SKIN_CONCERNS = _table(
    {
        "moisture": "수분 보습 건조 건조함 속건조 당김",
        "wrinkle": "주름 탄력 노화 안티에이징",
        "gift": "선물",
        "repurchase": "재구매",
        "calming": "진정 트러블 홍조 여드름 민감 예민 자극 아토피",
        "texture": "모공 피부결 결 각질 블랙헤드 피지 제형",
    }
)
# Early, mid or late in a decade of age; by default mid.
_WITHIN_DECADE = {"초": 2, "중": 5, "후": 7}


def parse_profile(profile: str | None) -> tuple[Profile, list[str]]:
    """The profile in a `profile_info`, and the parts that are not used. A part is recognised by its value.

    Not used are parts that are not understood, and those that contradict an earlier part. A word that can be a skin
    type or a concern, such as 민감, is decided by the order "age / gender / skin type / concern".

    >>> parse_profile("40대/남성/복합성/주름")
    (Profile(age=45, gender='M', skin_type='combination', skin_concern='wrinkle'), [])
    >>> parse_profile("비공개/여성/민감/주름,모공")
    (Profile(age=None, gender='F', skin_type='sensitive', skin_concern='wrinkle'), ['비공개', '모공'])
    """
    # Commas separate values of one place, and places where nothing else does.
    places = re.split(r"[/|]" if re.search(r"[/|]", profile or "") else r"[,·]", profile or "")
    parts = [(place, part.strip()) for place, text in enumerate(places) for part in re.split(r"[,·]", text)]
    parts = [(place, part) for place, part in parts if part]
    meanings = [_meanings(part.lower()) for _, part in parts]
    _settle([place for place, _ in parts], meanings, len(places))
    found: dict[str, Any] = {}
    unused = []
    for (_, part), meaning in zip(parts, meanings, strict=True):
        if not meaning or any(found.setdefault(key, value) != value for key, value in meaning.items()):
            unused.append(part)
    return Profile(**found), unused


def _meanings(word: str) -> dict[str, Any]:
    """The possible meanings of a part of a profile, by attribute."""
    age = re.fullmatch(r"(?:만\s*)?([1-9])([0-9])\s*(대|세|살)?\s*(초|중|후)?반?(?:\s*이상)?", word)
    joined = re.sub(r"\s", "", word)
    # 악건성, 건성 피부 and 건성 타입 are 건성; 민감 피부 is a skin type, no concern.
    skin = re.sub(r"^[악약극초중](?=건성|지성|민감)|(?:피부)?(?:타입)?$", "", joined)
    values = {
        "age": age and int(age[1]) * 10 + (_WITHIN_DECADE[age[4] or "중"] if age[3] == "대" else int(age[2])),
        "gender": _GENDERS.get(joined),
        "skin_type": _SKIN_TYPES.get(skin),
        "skin_concern": _SKIN_CONCERNS.get(joined),
    }
    return {key: value for key, value in values.items() if value is not None}


def _settle(at: Sequence[int], meanings: Sequence[dict[str, Any]], places: int) -> None:
    """Resolves the parts that can be a skin type or a concern; `at` has the place of each part.

    Skin types are those in the third of four places where no other place has one; else, without a certain skin type
    but with another concern, the first. All others are concerns.
    """
    either = [part for part, meaning in enumerate(meanings) if {"skin_type", "skin_concern"} <= set(meaning)]
    sure = {at[part] for part, meaning in enumerate(meanings) if "skin_type" in meaning and part not in either}
    types = [part for part in either if at[part] == 2 and places == 4 and sure <= {2}]
    if not types and not sure and sum("skin_concern" in meaning for meaning in meanings) > 1:
        types = either[:1]
    for part in either:
        del meanings[part]["skin_concern" if part in types else "skin_type"]


# "I am": what must follow a word for it to describe the writer. 이라면 (if one is) and 이라도 (even for) do not.
_AM = (
    r"(?:입니다|이에요|예요|이예요|인데|이라(?!면|도|는)|라서|여서|이어서|이고|이면서|이지만|이다|임(?=\s|$)|"
    r"인\s*(?:저는|저도|저에게|저한테|저로서|제가|제\s|내가|나는|나도))"
)
_OTHER = re.compile(
    r"엄마|어머니|아빠|아버지|부모님|남편|신랑|와이프|아내|남자친구|여자친구|남친|여친|동생|언니|누나|오빠|아들|친구|할머니|"
    r"할아버지|지인|이모|고모|조카|사람|아기|우리\s*아이|아이(?:가|는|\s*피부)|(?<![가-힣])(?:딸|형)(?:[이은님도\s]|한테)|"
    r"분(?:들|께|은|이)"
)
_SELF = re.compile(r"(?<![가-힣])(?:저는|저도|전|제가|제|내|나는|난|저)(?=\s)")
_AGE = re.compile(
    r"(?<![\d~\-])([1-7])0\s*대\s*(초|중|후)?반?(?:의|인)?\s*(?:(?:여성|여자|남성|남자|주부|직장인|아줌마)\s*)?"
    rf"(?:{_AM}|[이가]?\s*(?:되니|되고|되면서|되어|됐|넘|접어)|[에을를]\s*(?:접어|들어서|넘))"
)
_AGE_WORD = re.compile(
    rf"(서른|마흔|쉰)(?:\s*살)?(?:{_AM}|[이가을에]?\s*(?:되니|되고|넘|접어))|만?\s*([1-7]\d)\s*[살세]{_AM}"
)
_GENDER = re.compile(rf"(?<![가-힣])(여성|여자|남성|남자){_AM}")
_TYPE = r"(건성|지성|복합성|민감성|중성|수부지)"
_SKIN = re.compile(
    rf"{_TYPE}\s*(?:피부)?\s*(?:타입)?\s*(?:{_AM}|으로\s*살)|{_TYPE}\s*피부라(?!면|도)|(?<![가-힣])(?:제|내)\s*{_TYPE}\s*피부|"
    rf"(?:건조|민감|예민)한\s*(?:피부|편)(?:{_AM}|라(?!면|도))|"
    r"피부가\s*(?:많이|좀|워낙|조금|엄청|너무)?\s*(?:민감|예민)(?:해서|한데|하다\s*보니|해요|합니다)"
)


def profile_of_text(text: str) -> Profile:
    """Age, gender and skin type that the writer states of themselves; other phrases are not understood.

    >>> profile_of_text("30대 후반이고 건성이라 겨울이 힘들어요")
    Profile(age=37, gender=None, skin_type='dry', skin_concern=None)
    >>> profile_of_text("엄마는 건성이라 건성용 제품만 써요")
    Profile(age=None, gender=None, skin_type=None, skin_concern=None)
    """
    found: dict[str, set[Any]] = {"age": set(), "gender": set(), "skin_type": set()}
    for part in re.split(r"[.!?~\n…]+", clean_text(text)):
        sentence = " ".join(part.split())  # patterns that skip spaces would backtrack over long runs of them
        for match in _own(_AGE, sentence):
            found["age"].add(int(match[1]) * 10 + _WITHIN_DECADE[match[2] or "중"])
        for match in _own(_AGE_WORD, sentence):
            found["age"].add(int(match[2]) if match[2] else {"서른": 30, "마흔": 40, "쉰": 50}[match[1]])
        found["gender"] |= {_GENDERS[match[1]] for match in _own(_GENDER, sentence)}
        for match in _own(_SKIN, sentence):
            word = match[1] or match[2] or match[3] or ("건성" if "건조" in match[0] else "민감성")
            found["skin_type"].add(_SKIN_TYPES[word])
    # Two different values come from a story, which this does not understand.
    return Profile(**{key: next(iter(values)) for key, values in found.items() if len(values) == 1})


def _own(pattern: re.Pattern[str], sentence: str) -> list[re.Match[str]]:
    """The matches before which the sentence mentions nobody else, or the writer again after that."""
    matches = list(pattern.finditer(sentence))
    if not matches:
        return []
    # Sorted lists and bisection: one sentence of a review may be a megabyte.
    others = [other.end() for other in _OTHER.finditer(sentence)]
    selves = list(_SELF.finditer(sentence))
    own = []
    for match in matches:
        last_other = bisect_right(others, match.start()) - 1
        last_self = bisect_right(selves, match.start(), key=lambda own_word: own_word.end()) - 1
        if last_other < 0 or (last_self >= 0 and selves[last_self].start() >= others[last_other]):
            own.append(match)
    return own
