"""Hyper-parameters of the towers, searched for on customers held out of the training part alone."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from recsys_jax.config import DeepConfig
from recsys_jax.data.dataset import Dataset
from recsys_jax.data.splits import Fold, customer_folds
from recsys_jax.errors import Diverged, InputError
from recsys_jax.evaluation.configurations import SOFTMAX
from recsys_jax.evaluation.scorers import model_scorer
from recsys_jax.evaluation.tasks import Task
from recsys_jax.training.fit import fit

__all__ = ["SEARCHED", "Found", "search", "training_part"]

INNER = 5
"""One training customer in so many is held out to judge by."""

SEARCHED = ("learning_rate", "temperature", "dropout", "epochs", "output_dim", "id_dropout")
"""The fields that are searched for; the others are those of `SOFTMAX`."""


@dataclass(frozen=True)
class Found:
    """The best of a search."""

    config: DeepConfig
    score: float
    """Its MRR on the inner hold-out."""
    tried: tuple[tuple[DeepConfig, float], ...]
    """All that were tried, in turn, with their MRR."""

    @property
    def note(self) -> str:
        """What was chosen, in a line."""
        chosen = asdict(self.config)
        return ", ".join(f"{name} {chosen[name]:.3g}" for name in SEARCHED)


def training_part(dataset: Dataset, train: Bool[np.ndarray, " n"]) -> Dataset:
    """The dataset without the customers and the purchases that may not be learned from."""
    buyers, row = np.unique(dataset.purchases[train, 0], return_inverse=True)
    return replace(
        dataset,
        customers=dataset.customers.select(buyers.tolist()),
        customer_ids=[dataset.customer_ids[buyer] for buyer in buyers],
        purchases=np.stack([row.reshape(-1), dataset.purchases[train, 1]], axis=1).astype(dataset.purchases.dtype),
        dates=None,
    )


def search(
    dataset: Dataset,
    train: Bool[np.ndarray, " n"],
    trials: int,
    *,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> Found:
    """Tries settings of the towers by Optuna's TPE sampler, the first being `SOFTMAX`; the best by inner MRR.

    One in `INNER` of the customers with training purchases is held out, dealt by `seed`, which is the sampler's and
    the models' seed, too; the search is handed a dataset that has no others. `progress` is called with the trials done,
    of how many, and the best MRR so far.

    Args:
        dataset: whose purchases are split.
        train: the purchases that may be learned from (n,).
        trials: how many settings are tried.
        seed: see above.
        progress: see above.

    Raises:
        InputError: where Optuna is missing, for fewer than one trial, or with fewer training customers than `INNER`.
    """
    try:
        import optuna
    except ImportError:
        raise InputError("the search needs Optuna: pip install 'recsys_jax[tuning]'") from None
    if trials < 1:
        raise InputError(f"trials: found {trials}; allowed: 1 or more")
    part = training_part(dataset, train)
    held = customer_folds(len(part.customer_ids), INNER, seed)[part.purchases[:, 0]] == 0
    inner = Fold(~held, held)
    task = Task.of(part, inner, (1,))
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would tell of each trial
    try:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
        study.enqueue_trial({name: getattr(SOFTMAX, name) for name in SEARCHED})
        tried: list[tuple[DeepConfig, float]] = []
        for number in range(trials):
            trial = study.ask()
            config = replace(SOFTMAX, seed=seed, **_suggested(trial))
            score = _score(part, inner, task, config)
            study.tell(trial, score)
            tried.append((config, score))
            if progress is not None:
                progress(number + 1, trials, f"inner MRR {max(score for _, score in tried):.4f}")
    finally:
        optuna.logging.set_verbosity(verbosity)
    best, score = max(tried, key=lambda one: one[1])  # the first of equals
    return Found(best, score, tuple(tried))


def _suggested(trial: Any) -> dict[str, Any]:
    """The next setting to try, by field."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 3e-4, 3e-2, log=True),
        "temperature": trial.suggest_float("temperature", 0.03, 1.0, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        "epochs": trial.suggest_int("epochs", 2, 30, log=True),
        "output_dim": trial.suggest_categorical("output_dim", [16, 32, 64]),
        "id_dropout": trial.suggest_float("id_dropout", 0.0, 0.5),
    }


def _score(part: Dataset, inner: Fold, task: Task, config: DeepConfig) -> float:
    """The MRR on the inner hold-out; 0 where training diverged."""
    try:
        model = fit(part, config, train=inner.train)
    except Diverged:
        return 0.0
    values, _ = task.values(model_scorer(model, part), with_lists=False)
    return float(values["mrr"].mean())
