"""Sentences about figures in the reader's language: the texts of `findings.toml`, and names of methods and metrics."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from recsys_jax.config import Language
from recsys_jax.evaluation.bootstrap import Interval

_NUMBER = r"\d[\d,:. -]*\d|\d"


@cache
def _texts() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("findings.toml").read_text("utf-8"))


@dataclass(frozen=True)
class Sentences:
    """What is said in one language."""

    language: Language = "en"

    def __call__(self, key: str, **fields: object) -> str:
        """The text under a key such as "headline.better", with figures and names in its fields."""
        group, _, name = key.partition(".")
        return str(_texts()[group][name][self.language]).format(**fields)

    def interval(self, one: Interval, kind: Literal["difference", "plain", "signed"]) -> str:
        """A mean and its interval."""
        return self(f"interval.{kind}", one=one)

    def name(self, name: str) -> str:
        """What a method of `metrics.json`, or another name of this program, is called.

        >>> Sentences().name("naive Bayes"), Sentences("ko").name("naive Bayes")
        ('naive Bayes', '나이브 베이즈')
        """
        own = _texts()["names"].get(self.language, {})
        return str(own.get(name, own.get("popularity per", name) if name.startswith("popularity per ") else name))

    def title(self, protocol: str) -> str:
        """What a protocol is called, whatever numbers and dates are in its title in `metrics.json`.

        >>> Sentences("ko").title("cross-validation, 5 folds over customers")
        '5겹 교차검증(고객 단위)'
        """
        named = re.sub(_NUMBER, "{}", protocol)
        found = self.name(named)
        return protocol if found == named else found.format(*re.findall(_NUMBER, protocol))

    def metric(self, metric: str) -> str:
        """A metric's name as people write it.

        >>> Sentences().metric("ndcg@10"), Sentences().metric("category_hit@3"), Sentences("ko").metric("mrr")
        ('NDCG@10', 'Category Hit@3', 'MRR')
        """
        name, at, k = metric.partition("@")
        words = {"ndcg": "NDCG", "mrr": "MRR", "auc": "AUC", "hit": "Hit", "category_hit": "Category Hit"}
        return self.name(words.get(name, name)) + at + k


def reading(difference: Interval) -> Literal["better", "noise", "worse"]:
    """What the interval of a difference says of the first of the two, as a part of a key."""
    return ("better" if difference.low > 0 else "worse") if difference.clear else "noise"
