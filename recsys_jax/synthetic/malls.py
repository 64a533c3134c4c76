"""A synthetic mall with Korean reviews and known preferences.

Within a category, customers prefer products by brand and price level, which are product features; the skin type that
they state correlates with the category. The planted preferences are written as the truth, so that tests know how well a
recommender could do. No pipeline reads the truth.
"""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.random import PCG64, Generator
from numpy.typing import NDArray

from recsys_jax.data.files import write_file
from recsys_jax.errors import require_seed
from recsys_jax.personas.catalogue import shipped
from recsys_jax.personas.profiles import Value, profile_of_text

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Words = dict[str, Any]
Pools = Sequence[list[str]]


class Writer(NamedTuple):
    """Who writes a review."""

    age: int
    gender: str
    skin_type: str


CATEGORIES = (97, 98, 99, 101, 103)  # skincare, makeup, perfume, accessories, men
PERSONAS = ("Dry_Winter", "Anti_Aging", "Gift_Buyer", "Loyal_Repurchase", "Sensitive_Calming", "Detail_Reviewer")

# Reviews of each persona (rows, as in PERSONAS) in each category.
REVIEWS = np.array(
    [[3, 33, 7, 7, 4], [3, 4, 6, 1, 3], [3, 0, 0, 0, 1], [14, 9, 20, 24, 24], [22, 6, 2, 4, 16], [15, 7, 3, 24, 12]]
)
# Prices of each category at 0, 25, 50, 75 and 100 %.
PRICES = (
    (28000, 50850, 76625, 120375, 202500),
    (14400, 36000, 45000, 63450, 100800),
    (9000, 32500, 42000, 56000, 84750),
    (2700, 5515, 15100, 24188, 80000),
    (17640, 28500, 47250, 62600, 112500),
)
PAIRS = (2, 2, 1, 0, 2)  # pairs of products of each category with the same brand and price
ODD_PRICES = 11  # products whose price is no multiple of 100
RATINGS = {4.5: 2, 4.6: 3, 4.7: 18, 4.8: 32, 4.9: 35, 5.0: 3}
LENGTHS = ((0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1), (20, 38, 124, 168, 331, 552, 752, 796, 840))
MEDIAN_LENGTHS = (346, 503, 178, 419, 214)
COPIES = 2  # texts that occur twice

# Each persona's ideal price within its category's range (0 cheapest, 1 dearest), the width of the preference, and the
# weight of brands. Chosen so that a ranking by the truth is clearly better than one by counts.
PRICE_IDEAL = np.array([0.55, 0.85, 0.95, 0.1, 0.35, 0.7])
PRICE_WIDTH = 0.15
BRAND_STRENGTH = 2.0

# Writers state age, gender and skin type. The skin type correlates with the category, so that attributes predict it
# better than the persona does: the most frequent one of each category, and its share.
WOMEN = 0.7
SKIN_OF_CATEGORY = ("sensitive", "dry", "normal", "combination", "oily")
SKIN_SHARE = 0.8
PROFILES = 0.9  # share of reviews with a profile
SKIN_WORDS = {"dry": "건성", "oily": "지성", "combination": "복합성", "sensitive": "민감성", "normal": "중성"}
SKIN_TYPES = tuple(SKIN_WORDS)
AGE_RANGES = ((35, 49), (35, 49), (20, 44), (25, 37), (20, 44), (25, 37))  # for each of PERSONAS

# Shares of a review's sentences on its persona's theme and on the category; the others are neutral.
THEME, CATEGORY = 0.6, 0.2
MOOD = 0.3  # share of sentences that end with the writer's own sign; more would dominate the embeddings


@dataclass(frozen=True)
class Mall:
    """The mall: `products` as in its file, with reviews, and `truth`: the writers and the planted preferences."""

    products: list[dict[str, Any]]
    truth: dict[str, Any]


def mall(seed: int) -> Mall:
    """The mall of 93 products and 277 reviews, with its truth.

    >>> len(mall(0).products)
    93
    """
    rng, words = generator(seed), sentence_bank()
    catalogue = [_category(index, words, rng) for index in range(len(CATEGORIES))]
    ratings = rng.permutation(np.repeat(list(RATINGS), list(RATINGS.values())))
    # Two products of the mall, one makeup and one perfume, have two reviews instead of three.
    reviews = [np.full(len(prices), 3) for _, _, prices in catalogue]
    for index, counts in enumerate(reviews):
        counts[rng.integers(len(counts))] -= counts.sum() - REVIEWS[:, index].sum()
    utilities = _utilities(catalogue, len(words["brands"]), rng)

    products: list[dict[str, Any]] = []
    slots, writers = [], []
    for index, (names, brands, prices) in enumerate(catalogue):
        slot = np.repeat(np.arange(len(prices)), reviews[index])
        writers.append(_draw_writers(utilities[index], REVIEWS[:, index], slot, rng))
        slots.append(slot + len(products))
        for (name, _), brand, price in zip(names, brands, prices, strict=True):
            head = {"product_id": _uuid(rng), "product_name": name, "price": int(price)}
            kind = {"brand_name": list(words["brands"])[brand], "category": CATEGORIES[index], "sub_category": 0}
            products.append({**head, **kind, "rating": float(ratings[len(products)]), "reviews": []})
    items = [name[1] for names, _, _ in catalogue for name in names]
    product, persona = np.concatenate(slots), np.concatenate(writers)
    category = np.repeat(np.arange(len(CATEGORIES)), [len(slot) for slot in slots])
    profiles = [_writer(int(who), int(at), rng) for who, at in zip(persona, category, strict=True)]
    texts = _texts((product, persona, category), items, profiles, words, rng)
    for row, text, said in zip(product, texts, profiles, strict=True):
        profile = _profile(said) if rng.random() < PROFILES else ""
        head = {"reviewer": "", "rating": 0, "content": text, "date": ""}
        products[row]["reviews"].append({**head, "profile_info": profile})
    ids = [entry["product_id"] for entry in products]
    place = np.arange(len(product)) - np.searchsorted(product, product)
    expected = _expected(utilities, reviews)
    # Six decimals are the same on every machine.
    shares = np.round(expected / expected.sum(axis=1, keepdims=True), 6).tolist()
    truth = {
        "seed": seed,
        "personas": [
            {"product_id": ids[row], "review": int(at), "persona": PERSONAS[who], "skin_type": said.skin_type}
            for row, at, who, said in zip(product, place, persona, profiles, strict=True)
        ],
        "skin_types": {
            str(code): {skin: SKIN_SHARE if skin == own else (1 - SKIN_SHARE) / 4 for skin in SKIN_TYPES}
            for code, own in zip(CATEGORIES, SKIN_OF_CATEGORY, strict=True)
        },
        "preferences": {who: dict(zip(ids, row, strict=True)) for who, row in zip(PERSONAS, shares, strict=True)},
    }
    return Mall(products, truth)


def _category(index: int, words: Words, rng: Generator) -> tuple[list[tuple[str, str]], Ints, Ints]:
    """One category's (name, what reviews call it) pairs, brand numbers and prices, in a random order."""
    words_here = words["categories"][str(CATEGORIES[index])]
    counts = np.array([row[index] for row in words["brands"].values()])
    size = int(counts.sum())
    odd = ODD_PRICES * (index + 1) // len(CATEGORIES) - ODD_PRICES * index // len(CATEGORIES)
    while True:
        starts = np.sort(rng.choice(_pair_places(size), PAIRS[index], replace=False))
        prices = _prices(PRICES[index], size, starts, odd, rng)
        brands = _brands(counts, starts, rng)
        # By chance, two more products may share brand and price, or rounding may move a price past its neighbour.
        if len(set(zip(brands, prices, strict=True))) == size - PAIRS[index] and (np.diff(prices) >= 0).all():
            break
    pairs = [(line, product.split("|")) for line in words_here["lines"] for product in words_here["products"]]
    chosen = [pairs[row] for row in rng.permutation(len(pairs))[:size]]
    order = rng.permutation(size)
    names = [(f"{line} {name} {amount}", item) for line, (name, item, amount) in chosen]
    return names, brands[order], prices[order]


def _pair_places(size: int) -> list[int]:
    """Indices of the sorted prices where two neighbours may be equal without moving a quartile."""
    fixed = {0, size - 1} | {int(q * (size - 1)) + up for q in (0.25, 0.5, 0.75) for up in (0, 1)}
    return [place for place in range(1, size - 2, 2) if not fixed & {place, place + 1}]


def _prices(quartiles: tuple[int, ...], size: int, starts: Ints, odd: int, rng: Generator) -> Ints:
    """Sorted prices with the given minimum, quartiles and maximum, `odd` of them no multiple of 100."""
    places = np.arange(size) + np.where(np.isin(np.arange(size), [0, size - 1]), 0, rng.uniform(-0.4, 0.4, size))
    prices = np.interp(places / (size - 1), np.linspace(0, 1, 5), quartiles)
    prices[starts + 1] = prices[starts]
    prices = np.round(prices, -2)
    prices[[0, -1]] = np.array(quartiles)[[0, -1]]
    for quantile, wanted in zip((0.25, 0.5, 0.75), quartiles[1:4], strict=True):
        below, share = divmod(quantile * (size - 1), 1)
        low = int(below)
        # The quantile lies between two prices: the nearer one is set to give it exactly.
        if share > 0.5:
            prices[low + 1] = np.round((wanted - (1 - share) * prices[low]) / share, -2)
        else:
            prices[low] = np.round((wanted - share * prices[low + 1]) / (1 - share), -2)
    free = [place for place in range(1, size - 1) if place not in {*starts, *(starts + 1)}]
    odd -= int((prices % 100 > 0).sum())
    chosen = np.array(free)[rng.permutation(len(free))[:odd]]
    prices[chosen] += 10 * rng.integers(1, 10, len(chosen))
    return prices.astype(np.int64)


def _brands(counts: Ints, starts: Ints, rng: Generator) -> Ints:
    """A brand number for each of the sorted prices; the two products of a pair get the same brand."""
    left, brands = counts.copy(), np.full(counts.sum(), -1)
    for first in starts:
        brand = rng.choice(np.flatnonzero(left >= 2))
        brands[[first, first + 1]] = brand
        left[brand] -= 2
    brands[brands < 0] = rng.permutation(np.repeat(np.arange(len(counts)), left))
    return brands


def _utilities(catalogue: Sequence[tuple[Any, Ints, Ints]], brands: int, rng: Generator) -> list[Floats]:
    """Each persona's utility of each product of each category: by brand, and a bell around its ideal price level."""
    of_brand = rng.standard_normal((len(PERSONAS), brands)) * BRAND_STRENGTH
    levels = [np.searchsorted(np.sort(prices), prices) / (len(prices) - 1) for _, _, prices in catalogue]
    return [
        of_brand[:, brand] - 0.5 * ((level - PRICE_IDEAL[:, None]) / PRICE_WIDTH) ** 2
        for (_, brand, _), level in zip(catalogue, levels, strict=True)
    ]


def _expected(utilities: Sequence[Floats], reviews: Sequence[Ints], rounds: int = 2000) -> Floats:
    """The expected number of reviews by each persona of each product.

    In each category exp(utility), scaled by row and column until it sums to the reviews of each persona and product.
    """
    parts = []
    for index, (utility, columns) in enumerate(zip(utilities, reviews, strict=True)):
        rows = REVIEWS[:, index]
        part = np.where(rows[:, None] > 0, np.exp(utility), 0)
        for _ in range(rounds):
            part *= (rows / np.maximum(part.sum(axis=1), 1e-300))[:, None]
            part *= columns / part.sum(axis=0)
        parts.append(part)
    return np.concatenate(parts, axis=1)


def _draw_writers(utility: Floats, counts: Ints, slot: Ints, rng: Generator) -> Ints:
    """The persona of each review's writer, by Metropolis swaps of writers, which keep both margins."""
    writers = rng.permutation(np.repeat(np.arange(len(PERSONAS)), counts))
    swaps = 200 * len(slot)
    pairs, chances = rng.integers(len(slot), size=(swaps, 2)), np.log(1 - rng.random(swaps))
    for (one, two), chance in zip(pairs.tolist(), chances.tolist(), strict=True):
        now = utility[writers[one], slot[one]] + utility[writers[two], slot[two]]
        then = utility[writers[two], slot[one]] + utility[writers[one], slot[two]]
        if chance < then - now:
            writers[[one, two]] = writers[[two, one]]
    return writers


def _writer(persona: int, category: int, rng: Generator) -> Writer:
    """The profile of a review's writer: an age of the persona, a skin type that correlates with the category."""
    others = [name for name in SKIN_TYPES if name != SKIN_OF_CATEGORY[category]]
    skin = SKIN_OF_CATEGORY[category] if rng.random() < SKIN_SHARE else others[rng.integers(len(others))]
    age = int(rng.integers(*AGE_RANGES[persona], endpoint=True))
    return Writer(age, "F" if rng.random() < WOMEN else "M", skin)


def _profile(said: Writer) -> str:
    return f"{said.age // 10}0대/{'여성' if said.gender == 'F' else '남성'}/{SKIN_WORDS[said.skin_type]}"


def _texts(
    reviews: tuple[Ints, Ints, Ints], items: list[str], profiles: Sequence[Writer], words: Words, rng: Generator
) -> list[str]:
    """A text for each review, on its writer's theme and without contradicting the writer's profile."""
    product, persona, category = reviews
    lengths = _lengths(category, rng).tolist()
    texts: list[str] = []
    for row, said in enumerate(profiles):
        theme, there = words["personas"][PERSONAS[persona[row]]], words["categories"][str(CATEGORIES[category[row]])]
        # Opening, theme, category and neutral sentences; a short review is on its theme alone.
        every = [[], theme["short"], [], []]
        if lengths[row] >= 60:
            of_theme, neutral = theme["sentences"] + theme["short"], words["neutral"]["sentences"]
            every = [theme["profile"], of_theme, there["sentences"], neutral]
        pools = [[line for line in pool if _fits(line, said)] for pool in every]
        texts.append(_text(pools, items[product[row]], lengths[row], set(texts), words, rng))
    # A few writers post one text under two products: among texts of nearly equal length, to keep the lengths.
    kinds = np.unique([_profile(said) for said in profiles], return_inverse=True)[1]
    order = np.lexsort((lengths, kinds, persona, category))
    alike = [
        (one, two)
        for one, two in pairwise(order.tolist())
        if (category[one], persona[one], kinds[one]) == (category[two], persona[two], kinds[two])
        and product[one] != product[two]
        and 100 < lengths[one] <= lengths[two] <= lengths[one] + 16
    ]
    taken: set[int] = set()
    for at in rng.permutation(len(alike)):
        one, two = alike[at]
        if len(taken) < 2 * COPIES and not taken & {one, two}:
            texts[two] = texts[one]
            taken |= {one, two}
    return texts


def _lengths(category: Ints, rng: Generator) -> Ints:
    """The length of each review: the overall quantiles exactly, each category's median nearly."""
    sorted_lengths = np.interp(np.linspace(0, 1, len(category)), *LENGTHS).round().astype(int)
    noise, shift = rng.standard_normal(len(category)), np.zeros(len(CATEGORIES))
    best, best_error = sorted_lengths, np.inf
    for step in range(400):
        lengths = sorted_lengths[np.argsort(np.argsort(shift[category] + noise))]
        medians = np.array([np.median(lengths[category == index]) for index in range(len(CATEGORIES))])
        error = np.log(np.array(MEDIAN_LENGTHS) / medians)
        if np.abs(error).max() < best_error:
            best, best_error = lengths, np.abs(error).max()
        shift += error / (1 + step / 20)
    return best


@cache
def _said(sentence: str) -> dict[str, Value]:
    return profile_of_text(sentence, shipped().attributes, shipped().language)


def _fits(sentence: str, writer: Writer) -> bool:
    """Whether a sentence is compatible with the writer's skin type and decade of age."""
    said = _said(sentence)
    if "age" in said and int(said["age"]) // 10 != writer.age // 10:
        return False
    return said.get("skin_type") in (None, writer.skin_type)


def _text(pools: Pools, item: str, length: int, used: set[str], words: Words, rng: Generator) -> str:
    """The best of several attempts at an unused text of about this length."""
    best = ""
    for _ in range(60):
        text = _attempt(pools, item, length, words, rng)
        if text not in used and abs(len(text) - length) < abs(len(best) - length):
            best = text
        if abs(len(best) - length) <= 1:
            break
    return best


def _attempt(pools: Pools, item: str, length: int, words: Words, rng: Generator) -> str:
    opening, *rest = pools
    theme, there, neutral = ([pool[at] for at in rng.permutation(len(pool))] for pool in rest)
    mood = (".", ".", "!", "~", "..", " ㅎㅎ", "^^")[rng.integers(7)]
    # Some writers break lines now and then, with either kind of line end.
    gaps = (" ", " ", "\r\n", "\n") if rng.random() < 0.4 else (" ",)
    emoji = words["neutral"]["emoji"]
    close = " " + emoji[rng.integers(len(emoji))] if rng.random() < 0.08 else ""
    text, before = "", ""
    while len(text) + len(close) < length and (theme or there or neutral):
        before, kind = text, rng.random()
        if not text and opening and rng.random() < 0.35:
            sentence = opening[rng.integers(len(opening))]
        else:
            first = theme if kind < THEME else there if kind < THEME + CATEGORY else neutral
            sentence = (first or theme or neutral or there).pop()
        slots = {slot: options[rng.integers(len(options))] for slot, options in words["slots"].items()}
        gap = gaps[rng.integers(len(gaps))] if text else ""
        text += gap + sentence.format(item=item, **slots) + (mood if rng.random() < MOOD else ".")
    if before and length - len(before + close) < len(text + close) - length:
        text = before
    return text.strip() + close


def write_mall(made: Mall, folder: Path) -> list[Path]:
    """Writes `products.json`, `truth.json` and the `dataset.toml` that describes them; returns their paths."""
    paths = [folder / name for name in ("dataset.toml", "products.json", "truth.json")]
    write_file(paths[0], files("recsys_jax.data").joinpath("amoremall.toml").read_bytes())
    for path, content in zip(paths[1:], (made.products, made.truth), strict=True):
        write_file(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    return paths


def generator(seed: int) -> Generator:
    """The random generator, the same on every machine. Raises `InputError` for a seed that is not allowed."""
    require_seed(seed)
    return Generator(PCG64(seed))


def _uuid(rng: Generator) -> str:
    digits = rng.bytes(16).hex()
    return "-".join((digits[:8], digits[8:12], "4" + digits[13:16], "a" + digits[17:20], digits[20:]))


@cache
def sentence_bank() -> dict[str, Any]:
    """Brands, product names and sentences, from `texts.toml`."""
    return tomllib.loads(files("recsys_jax.synthetic").joinpath("texts.toml").read_text(encoding="utf-8"))
