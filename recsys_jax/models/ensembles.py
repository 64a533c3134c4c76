"""Several models that score together: their mean score, as that of one model with longer vectors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from recsys_jax.data.tables import Table
from recsys_jax.errors import InputError
from recsys_jax.models.trained import TrainedModel

__all__ = ["Ensemble"]


@dataclass(frozen=True)
class Ensemble:
    """Models of the same products whose mean score counts; it is scored and searched as a single model is.

    A score is (1 + cosine) / 2, so the mean of S scores has the mean of S cosines, which is one dot product: that of
    the S vectors of each side, one after the other, divided by sqrt(S). These are unit vectors again.

    Raises `InputError` where there is no model, or where they are not of the same products.
    """

    models: Sequence[TrainedModel]

    def __post_init__(self) -> None:
        if not self.models:
            raise InputError("models: found none; allowed: one or more")
        if any(model.product_ids != self.models[0].product_ids for model in self.models):
            raise InputError("models: found models of different products; allowed: models of the same, in one order")

    def embed_customers(self, table: Table) -> Float32[np.ndarray, "n d"]:
        """Unit vectors of the customers in a table, as long as those of all models together."""
        return _together([model.embed_customers(table) for model in self.models])

    @property
    def product_embeddings(self) -> Float32[np.ndarray, "p d"]:
        """Unit vectors of the products, as long as those of all models together."""
        return _together([model.product_embeddings for model in self.models])

    @property
    def product_bias(self) -> Float32[np.ndarray, " p"]:
        """What is added to the score of each product for its popularity: the mean over the models."""
        return np.asarray(np.mean([model.product_bias for model in self.models], axis=0), np.float32)


def _together(each: Sequence[Float32[np.ndarray, "n _"]]) -> Float32[np.ndarray, "n d"]:
    return np.concatenate(each, axis=1) / np.float32(np.sqrt(len(each)))
