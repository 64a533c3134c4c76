"""Distinctive words of clusters of reviews, and the evidence in a cluster for given keywords."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, Int

from recsys_jax.personas.profiles import languages

_HANGUL, _KANJI, _KANA = "가-힣", "々〆㐀-䶿一-鿿", "ぁ-ヿ"
# Japanese is cut by its scripts, since there are no spaces: a run of kanji or of katakana is a word, and one of
# hiragana is grammar. Of other letters, two are no word.
_WORD = re.compile(rf"[{_HANGUL}]+|[{_KANJI}]+|[ァ-ヴー]{{2,}}|(?:(?![{_HANGUL}{_KANJI}{_KANA}])[^\W\d_])+(?:['’]\w+)?")
_OTHER_LETTERS = re.compile(rf"(?![{_HANGUL}{_KANJI}{_KANA}])\w")
# A Korean word, with what denies it: 끈적이지 않고.
_FORM = re.compile(rf"[{_HANGUL}]+(?:(?<=지)\s+[않못][{_HANGUL}]*)?")
_LEAST_SCORE, _LEAST_SHARE = 1.0, 0.01
# English words after which a keyword is denied, with up to three words between: "doesn't really seem to work".
_DENIED = re.compile(r"(?:\b(?:not|never|cannot)|n['’]?t)\s+(?:[a-z]+\s+){0,3}$")
CENTRAL = 10
"""Reviews that count as the most central ones of a cluster."""


@cache
def _stop_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset([*ENGLISH_STOP_WORDS, *(word for one in languages().values() for word in one["stop"].split())])


@cache
def _endings(kind: str) -> re.Pattern[str]:
    return re.compile(languages()["ko"][kind], re.VERBOSE)


def _korean(word: str) -> tuple[str, str]:
    """The stem of a Korean word, empty for a verb of one syllable, and its particle.

    >>> _korean("피부에서는"), _korean("촉촉하게"), _korean("샀어요"), _korean("향이")
    (('피부', '에서는'), ('촉촉', ''), ('', ''), ('향', '이'))
    """
    noun = _endings("particles").sub("", word)
    if len(noun) > 1 and noun != word:
        return noun, word[len(noun) :]
    verb = _endings("verbs").sub("", word)
    if verb != word:
        return (verb if len(verb) > 1 else ""), ""
    return noun, word[len(noun) :]


def _words(texts: Sequence[str]) -> list[set[str]]:
    """The words of each text that may tell it apart: Korean ones without endings, none of the stop words."""
    stop, korean = _stop_words(), re.compile(f"[{_HANGUL}]")
    found = [set(_WORD.findall(re.sub(r"https?://\S+", " ", text.lower()))) for text in texts]
    stems = {word: _korean(word) for word in set().union(*found) if korean.match(word)}
    # A syllable is a word where it has particles of several kinds: 향이, 향은, 향을; but 나이 and 효과 are whole.
    particles: dict[str, set[str]] = {}
    for stem, particle in stems.values():
        particles.setdefault(stem, set()).add(particle)

    def plain(word: str) -> str:
        if word in stop:
            return ""
        if word not in stems:
            word = re.sub(r"['’]\w+$", "", word) if not re.search(r"n['’]t$", word) else ""
            short = 1 if re.match(f"[{_KANJI}]", word) else 3
            return word if len(word) >= short and word not in stop else ""
        stem = stems[word][0]
        if len(stem) == 1 and len(particles[stem] - {""}) < 3:
            stem = word if len(word) > 1 else ""
        return stem if stem not in stop else ""

    plains = {word: plain(word) for word in set().union(*found)}
    return [{plains[word] for word in one} - {""} for one in found]


def distinctive_keywords(
    texts: Sequence[str], labels: Int[np.ndarray, " n"], clusters: int, count: int = 10
) -> list[tuple[str, ...]]:
    """The words of each cluster with the highest log-odds ratio against the other clusters, in standard errors.

    Counted are reviews with the word. The standard error keeps a word in three of three reviews from beating one in
    forty of fifty; below 1, or in fewer than two reviews or 1 % of the cluster's, a word tells nothing apart. With a
    single cluster, or without words, there are none.
    """
    words = _words(texts)
    total = Counter(word for found in words for word in found)
    listed = []
    for cluster in range(clusters):
        inside = Counter(word for found, label in zip(words, labels, strict=True) if label == cluster for word in found)
        size = int((labels == cluster).sum())
        scores = {}
        for word, hits in inside.items():
            # Half a review is added to each count, so that none is zero.
            table = np.array([hits, size - hits, total[word] - hits, len(texts) - size - total[word] + hits]) + 0.5
            score = np.log(table[0] * table[3] / (table[1] * table[2])) / np.sqrt((1 / table).sum())
            if hits >= max(2, _LEAST_SHARE * size) and score > _LEAST_SCORE:
                scores[word] = score
        listed.append(tuple(sorted(scores, key=lambda word: (-scores[word], word))[:count]))
    return listed


def as_said(texts: Sequence[str], keywords: Sequence[str]) -> tuple[str, ...]:
    """Keywords as the texts say them most: of a Korean stem that is no noun the most frequent form.

    >>> as_said(["향이 산뜻하게 퍼져요", "산뜻하게 끈적이지 않고"], ["산뜻", "끈적이지", "향"])
    ('산뜻하게', '끈적이지 않고', '향')
    """
    begins = tuple(keywords)
    said: dict[str, Counter[str]] = {keyword: Counter() for keyword in keywords}
    for form, count in Counter(form for text in texts for form in _FORM.findall(text)).items():
        if form.startswith(begins):
            word = form.split()[0]
            stem, particle = _korean(word)
            for keyword in {stem, word} & said.keys():
                noun = form == keyword or (particle and particle[0] not in "하되")
                said[keyword][keyword if noun else form] += count
    return tuple(min(forms, key=lambda form: (-forms[form], form), default=word) for word, forms in said.items())


def nouns(texts: Sequence[str], keywords: Sequence[str]) -> tuple[bool, ...]:
    """Whether the texts say each keyword as a noun: of Korean ones, with a particle that nouns alone have.

    >>> nouns(["아기를 데려와서 걱정이 없어요", "works"], ["데려와서", "걱정", "works"])
    (False, True, True)
    """
    begins, marked = tuple(keywords), _endings("marks")
    forms = {form for text in texts for form in re.findall(f"[{_HANGUL}]+", text) if form.startswith(begins)}
    said = {_korean(form)[0] for form in forms if marked.search(form)}
    return tuple(not re.match(f"[{_HANGUL}]", word) or word in said for word in keywords)


def mentions(texts: Sequence[str], keyword: str) -> Bool[np.ndarray, " n"]:
    """Whether each text says a keyword, of which a stem is enough, and does not deny it.

    A keyword of letters that stand apart, such as Latin ones, begins a word; one of Korean or Japanese is found within.

    >>> mentions(["It works", "It does not work", "Homework"], "work").tolist()
    [True, False, False]
    >>> mentions(["It does not work", "It works as advertised"], "not work").tolist()
    [True, False]
    """
    word, lowered = keyword.lower(), [text.lower() for text in texts]
    if not _OTHER_LETTERS.match(word):
        return np.array([word in text for text in lowered], bool)
    pattern = re.compile(rf"(?<!\w){re.escape(word)}")
    whole = _DENIED.search(f"{word} ") is not None

    def said(text: str) -> bool:
        places = (match.start() for match in pattern.finditer(text))
        return any(whole or not _DENIED.search(text[max(0, place - 60) : place]) for place in places)

    return np.array([word in text and said(text) for text in lowered], bool)


def keyword_evidence(
    texts: Sequence[str],
    labels: Int[np.ndarray, " n"],
    distances: Float[np.ndarray, " n"],
    clusters: int,
    keywords: Sequence[Sequence[str]],
) -> tuple[Float[np.ndarray, "clusters lists"], Float[np.ndarray, "clusters lists"]]:
    """The use of each list of keywords in each cluster: in standard deviations above chance, and in its centre.

    A review's score is the sum of its keywords' weights, log(n / reviews with the keyword). A cluster's mean score is
    compared with that of as many reviews drawn at random, so that common keywords or a small cluster alone are no
    evidence. The second is the share of the `CENTRAL` different reviews nearest to the centre that use a keyword.
    """
    scores, used = np.zeros((len(texts), len(keywords))), np.zeros((len(texts), len(keywords)), bool)
    for column, listed in enumerate(keywords):
        found = np.array([mentions(texts, word) for word in listed], bool).reshape(-1, len(texts)).T
        used[:, column] = found.any(axis=1)
        scores[:, column] = found.astype(float) @ np.log(len(texts) / np.maximum(found.sum(axis=0), 1))
    scores = (scores - scores.mean(axis=0)) / np.maximum(scores.std(axis=0), 1e-12)
    sizes = np.bincount(labels, minlength=clusters)
    means = np.stack([scores[labels == cluster].mean(axis=0) for cluster in range(clusters)])
    # The variance of a mean of `size` of n values drawn without replacement.
    n = len(texts)
    evidence = means / np.sqrt((1 / sizes - 1 / n) * n / (n - 1))[:, None]
    centres = [used[central(texts, labels, distances, cluster, CENTRAL)].mean(axis=0) for cluster in range(clusters)]
    return evidence, np.stack(centres)


def central(
    texts: Sequence[str], labels: Int[np.ndarray, " n"], distances: Float[np.ndarray, " n"], cluster: int, count: int
) -> list[int]:
    """The rows of the cluster's most central reviews, nearest first; of a text that is repeated, one."""
    rows = np.flatnonzero(labels == cluster)
    first: dict[str, int] = {}
    for row in rows[np.argsort(distances[rows], kind="stable")].tolist():
        first.setdefault(texts[row], row)
        if len(first) == count:
            break
    return list(first.values())
