"""Distinctive words of clusters of reviews, and the evidence in a cluster for given keywords."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

# Particles and endings that Korean appends to words; the longest that leaves two syllables is removed.
_ENDING = re.compile(
    "(이었어요|이었고|입니다|이에요|에서도|으로도|에서는|이라서|이라|이나|에서|에게|에도|에는|으로|까지|부터|처럼|보다|만큼|이랑|하고|"
    "예요|에요|네요|은|는|이|가|을|를|에|의|도|로|와|과|만|랑)$"
)
# Meaningful words of one syllable in reviews of cosmetics.
_SHORT = {"향", "립", "톤", "솜", "결", "팩"}
_COMMON = (
    "너무 정말 진짜 아주 매우 많이 조금 제품 사용 구매 느낌 생각 그리고 그래서 그런 근데 하지만 그냥 이번 이런 "
    "저런 있어 있는 있고 있습니다 있어요 있었 없어 없는 없고 같아요 같은 같습니다 좋아요 좋은 좋고 좋아 좋습니다 "
    "좋네요 좋았 합니다 해요 해서 했어요 했는데 하는 하고 되는 되어 되고 됩니다 더라고요 더라구요 것 수 때 더 잘 "
    "제가 저는 처음 사용하 사용해 사용했 구매했 구입 바로 정도 때문 특히 약간 살짝 역시 우선 일단 원래 다른 모두 "
    "바르 발라 쓰고 쓰는 써보 있어서 좋아서 좋았어요 하나 경우 이렇게 하게 않고 않아 않은 아니라 이거 그런지 요즘 "
    "다시 같이 한번 계속 보니 보면 하면 되면 있을 있게 없이 위해 대한 통해 가장 훨씬 무엇보 굉장히 전체적 전반적 "
    "추천 추천드립니다 만족"
)
_STOP = frozenset(_COMMON.split())


def _words(text: str) -> set[str]:
    found = set()
    for word in re.findall(r"[가-힣]+|[a-z]{3,}", re.sub(r"https?://\S+", " ", text.lower())):
        stem = _ENDING.sub("", word)
        stem = stem if len(stem) > 1 or stem in _SHORT else word
        if (len(stem) > 1 or stem in _SHORT) and stem not in _STOP and word not in _STOP:
            found.add(stem)
    return found


def distinctive_keywords(
    texts: Sequence[str], labels: Int[np.ndarray, " n"], clusters: int, count: int = 10
) -> list[tuple[str, ...]]:
    """The words of each cluster with the highest log-odds ratio against the other clusters, in standard errors.

    Counted are reviews with the word. The standard error keeps a word in three of three reviews from beating one in
    forty of fifty. With a single cluster, or without words, there are none.
    """
    words = [_words(text) for text in texts]
    total = Counter(word for found in words for word in found)
    listed = []
    for cluster in range(clusters):
        inside = Counter(word for found, label in zip(words, labels, strict=True) if label == cluster for word in found)
        size = int((labels == cluster).sum())
        scores = {}
        for word, hits in inside.items():
            # Half a review is added to each count, so that none is zero.
            table = np.array([hits, size - hits, total[word] - hits, len(texts) - size - total[word] + hits]) + 0.5
            odds = np.log(table[0] * table[3] / (table[1] * table[2]))
            if hits >= 2 and odds > 0:
                scores[word] = odds / np.sqrt((1 / table).sum())
        listed.append(tuple(sorted(scores, key=lambda word: (-scores[word], word))[:count]))
    return listed


def keyword_evidence(
    texts: Sequence[str], labels: Int[np.ndarray, " n"], clusters: int, keywords: Sequence[Sequence[str]]
) -> Float[np.ndarray, "clusters lists"]:
    """The use of each list of keywords in each cluster, in standard deviations above chance.

    A review's score is the sum of its keywords' weights, log(n / reviews with the keyword). A cluster's mean score is
    compared with that of as many reviews drawn at random, so that common keywords or a small cluster alone are no
    evidence.
    """
    lowered = [text.lower() for text in texts]
    scores = np.zeros((len(texts), len(keywords)))
    for column, listed in enumerate(keywords):
        found = np.array([[word.lower() in text for word in listed] for text in lowered], float)
        scores[:, column] = found @ np.log(len(texts) / np.maximum(found.sum(axis=0), 1))
    scores = (scores - scores.mean(axis=0)) / np.maximum(scores.std(axis=0), 1e-12)
    sizes = np.bincount(labels, minlength=clusters)
    means = np.stack([scores[labels == cluster].mean(axis=0) for cluster in range(clusters)])
    # The variance of a mean of `size` of n values drawn without replacement.
    n = len(texts)
    return means / np.sqrt((1 / sizes - 1 / n) * n / (n - 1))[:, None]
