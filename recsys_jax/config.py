"""How a model is built and trained: the options of `scripts/train.py` are these fields."""

from contextlib import suppress
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, get_args, get_type_hints

from recsys_jax.errors import InputError, choices

__all__ = ["Config", "LinearConfig", "TrainConfig"]

Loss = Literal["triplet", "infonce", "softmax"]
Negatives = Literal["random", "hard", "semi-hard"]


@dataclass(frozen=True)
class LinearConfig:
    """The recipe for recommending: linear towers by the full softmax. A penalty that is None is chosen on inner folds.

    A penalty is the inverse variance of what it holds back, in log-odds: 100 stands for 0.1 up or down, `inf` for none.
    """

    own_penalty: float | None = None
    """On what sets a product apart from others with the same attributes and tastes."""
    attribute_penalty: float | None = None
    """On the customers' liking of product attributes, such as a brand."""
    taste_penalty: float | None = None
    """On the customers' liking of tastes: products that the same customers buy."""
    tastes: int = 16
    """How many tastes the products are described by."""
    inner_folds: int = 4
    """Parts that the training customers are divided into to choose penalties."""
    output_dim: int = 64
    """The most dimensions of the space in which customers and products meet."""
    seed: int = 0
    """How the customers fall into inner folds; all else is the one best fit."""

    def __post_init__(self) -> None:
        """Refuses what makes no sense with a sentence."""
        _require_types(self)
        for name in ("own_penalty", "attribute_penalty", "taste_penalty"):
            penalty = getattr(self, name)
            _require(self, name, penalty is None or penalty > 0, "above 0, or inf")
        _require(self, "tastes", self.tastes >= 1, "1 or more")
        _require(self, "inner_folds", self.inner_folds >= 2, "2 or more")
        _require(self, "output_dim", self.output_dim >= 3, "3 or more")
        _require(self, "seed", 0 <= self.seed < 2**32, "from 0 to 4294967295")

    @property
    def popularity_bias(self) -> bool:
        """Whether popularity is part of the score: always."""
        return True

    @property
    def id_embedding(self) -> bool:
        """Whether each product has a vector of its own: always."""
        return True


@dataclass(frozen=True)
class TrainConfig:
    """The published recipe and its variations: towers with a hidden layer, trained in batches."""

    loss: Loss = "triplet"
    """triplet: one negative per row; infonce: the batch's other products; softmax: the whole catalogue."""
    negatives: Negatives = "random"
    """Triplet negatives: any product not bought, or the nearest wrong one among the batch's products."""
    margin: float = 1.0
    """How much nearer than the negative the positive should be, in euclidean distance (triplet)."""
    temperature: float = 0.1
    """Divides the cosines in infonce and softmax."""
    log_q: bool = False
    """Correct infonce for popular products being in-batch negatives more often."""
    popularity_bias: bool = False
    """Add log-popularity to the scores, so that the towers learn what differs from it (infonce, softmax)."""
    id_embedding: bool = False
    """Give each product an embedding of its own, besides its attributes."""
    id_dropout: float = 0.1
    """Share of rows that train with the embedding of an unknown product instead, so that new products work."""
    attribute_dropout: float = 0.0
    """Share of customers' attributes hidden in training: the missing row where there is one, else another's value."""
    number_jitter: float = 0.0
    """Noise on customers' numbers (age) in training, in standard deviations."""
    extra_customers: int = 0
    """Customers drawn anew for training: each attribute and the purchase from a random member of one persona."""
    epochs: int = 500
    """Passes over the purchases."""
    batch_size: int = 32
    """Purchases per step; the last, shorter batch of an epoch is trained on as it is."""
    learning_rate: float = 1e-3
    """Adam's step size."""
    embedding_dim: int = 16
    """Width of each categorical embedding."""
    hidden_dim: int = 64
    """Width of the hidden layer of each tower."""
    output_dim: int = 32
    """Width of the space in which customers and products meet."""
    dropout: float = 0.2
    """Share of hidden units dropped in training."""
    seed: int = 0
    """Everything random follows from it."""

    def __post_init__(self) -> None:
        """Refuses what makes no sense with a sentence."""
        _require_types(self)
        for name, words in (("loss", get_args(Loss)), ("negatives", get_args(Negatives))):
            _require(self, name, getattr(self, name) in words, choices(words))
        for name in ("epochs", "embedding_dim", "hidden_dim", "output_dim"):
            _require(self, name, getattr(self, name) >= 1, "1 or more")
        # The batch's own mean and variance normalise: a batch of one always comes out as zeros, whatever went in.
        _require(self, "batch_size", self.batch_size >= 2, "2 or more")
        for name in ("dropout", "attribute_dropout", "id_dropout"):
            _require(self, name, 0 <= getattr(self, name) < 1, "from 0 to below 1")
        for name in ("temperature", "learning_rate"):
            _require(self, name, 0 < getattr(self, name) < float("inf"), "above 0")
        for name in ("margin", "number_jitter", "extra_customers"):
            _require(self, name, 0 <= getattr(self, name) < float("inf"), "0 or more")
        _require(self, "seed", 0 <= self.seed < 2**32, "from 0 to 4294967295")
        _require(self, "negatives", self.loss == "triplet" or self.negatives == "random", "with the triplet loss alone")
        _require(self, "log_q", self.loss == "infonce" or not self.log_q, "with the infonce loss alone")
        softmax = self.loss in ("infonce", "softmax")
        _require(self, "popularity_bias", softmax or not self.popularity_bias, "with the infonce or softmax loss")

    @property
    def draws_negatives(self) -> bool:
        """Whether each row trains against a random product that its customer did not buy."""
        return self.loss == "triplet" and self.negatives == "random"


Config = LinearConfig | TrainConfig
"""Either recipe."""


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", float | None: "a number, or none"}


def _require_types(config: Config) -> None:
    """Raises `InputError` for an option of another type, before anything is compared."""
    for name, hint in get_type_hints(type(config)).items():
        if hint in _WORDS:
            _require(config, name, _is_of(getattr(config, name), hint), _WORDS[hint])


def _is_of(value: object, hint: Any) -> bool:
    if hint is bool or isinstance(value, bool):
        return hint is bool and isinstance(value, bool)
    if value is None:
        return bool(hint == float | None)
    if not isinstance(value, Integral if hint is int else Real):
        return False
    with suppress(OverflowError):  # a whole number may be too large to be a float
        float(value)
        return True
    return False


def _require(config: Config, name: str, ok: bool, allowed: str) -> None:
    if not ok:
        raise InputError(f"{name}: found {getattr(config, name)!r}; allowed: {allowed}")
