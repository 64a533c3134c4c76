"""What is asked in a fold, and the figures that a scorer reaches: one per query, and one list per customer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float64, Int

from recsys_jax.data.dataset import Dataset
from recsys_jax.data.splits import Fold
from recsys_jax.evaluation.lists import Lists, join_lists, top_lists
from recsys_jax.evaluation.scorers import Scorer, Shared
from recsys_jax.models import metrics

__all__ = ["Task"]


@dataclass(frozen=True)
class Task:
    """The queries of a fold, the candidates that are ranked for them, and what was bought in training."""

    queries: Int[np.ndarray, "n 2"]
    targets: Int[np.ndarray, " n"]
    """The place of each target among the candidates."""
    listed: Int[np.ndarray, " l"]
    """The customers with a query, each once."""
    candidates: Int[np.ndarray, " q"]
    categories: Int[np.ndarray, " q"] | None
    counts: Int[np.ndarray, " p"]
    """How often each product was bought in training."""
    ks: tuple[int, ...]

    @classmethod
    def of(cls, dataset: Dataset, fold: Fold, ks: Sequence[int]) -> "Task":
        """What a fold of the dataset asks; lists of the lengths `ks` are measured."""
        queries = dataset.purchases[fold.queries]
        total = len(dataset.product_ids)
        candidates = np.arange(total) if fold.candidates is None else np.flatnonzero(fold.candidates)
        place = np.full(total, -1)
        place[candidates] = np.arange(len(candidates))
        categories = dataset.categories
        codes = None if categories is None else np.unique(np.asarray(categories), return_inverse=True)[1][candidates]
        counts = np.bincount(dataset.purchases[fold.train, 1], minlength=total)
        return cls(queries, place[queries[:, 1]], np.unique(queries[:, 0]), candidates, codes, counts, tuple(ks))

    def values(
        self, scorer: Scorer, *, with_lists: bool = True
    ) -> tuple[dict[str, Float64[np.ndarray, " n"]], dict[int, Lists]]:
        """The metrics of each query, and the lists by length. What shares its scores and target is computed once."""
        groups = scorer.group if isinstance(scorer, Shared) else np.arange(self.listed[-1] + 1)
        score = scorer.of_groups if isinstance(scorer, Shared) else scorer
        asked, row = np.unique(groups[self.queries[:, 0]], return_inverse=True)
        products = len(self.candidates)
        pairs, back = np.unique(row.astype(np.int64) * products + self.targets, return_inverse=True)
        rows, targets = pairs // products, pairs % products  # ordered by row
        step = max(1, 2**22 // products)  # a block of scores of at most 32 MB
        parts, lists = [], []
        for start in range(0, len(asked), step):
            scores = score(asked[start : start + step])
            if products < scores.shape[1]:
                scores = scores[:, self.candidates]
            here = slice(*np.searchsorted(rows, [start, start + step]))
            parts.append(self._metrics(scores, rows[here] - start, targets[here], step))
            if with_lists:
                lists.append({k: top_lists(scores, k=k) for k in self.ks})
        values = {metric: np.concatenate([part[metric] for part in parts])[back] for metric in parts[0]}
        if not with_lists:
            return values, {}
        mine = np.searchsorted(asked, groups[self.listed])
        return values, {k: self._unnumbered(join_lists([one[k] for one in lists]).of(mine)) for k in self.ks}

    def _unnumbered(self, lists: Lists) -> Lists:
        """The lists in the numbering of all products."""
        return replace(lists, products=self.candidates[lists.products].astype(np.int32), total=len(self.counts))

    def _metrics(
        self, scores: Float[np.ndarray, "g q"], rows: Int[np.ndarray, " m"], targets: Int[np.ndarray, " m"], step: int
    ) -> dict[str, Float64[np.ndarray, " m"]]:
        ranked = metrics.ranks_in_rows(scores, rows, targets)
        out = {f"hit@{k}": metrics.hit_at_k(ranked, k=k) for k in self.ks}
        if self.categories is not None:
            # All targets of a category ask a row of scores the same.
            kinds = int(self.categories.max()) + 1
            pairs, back = np.unique(rows * kinds + self.categories[targets], return_inverse=True)
            found = [
                metrics.category_ranks(scores[part // kinds], (part % kinds)[:, None] == self.categories[None, :])
                for part in _chunks(pairs, step)
            ]
            better, equal, wanted = (np.concatenate(each)[back] for each in zip(*found, strict=True))
            out |= {f"category_hit@{k}": metrics.category_hit((better, equal, wanted), k=k) for k in self.ks}
        out["mrr"] = metrics.reciprocal_rank(ranked)
        out |= {f"ndcg@{k}": metrics.ndcg_at_k(ranked, k=k) for k in self.ks}
        counts = self.counts[self.candidates]
        out["auc"] = np.concatenate(
            [
                metrics.count_matched_auc(scores[rows[part]], targets[part], counts)
                for part in _chunks(np.arange(len(rows)), step)
            ]
        )
        return out


def _chunks(values: Int[np.ndarray, " n"], step: int) -> list[Int[np.ndarray, " m"]]:
    return [values[start : start + step] for start in range(0, len(values), step)]
