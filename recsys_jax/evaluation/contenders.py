"""The methods that a comparison asks in one fold: recipes, the towers as searched for, and baselines."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from recsys_jax.config import Config, DeepConfig
from recsys_jax.data.dataset import Dataset
from recsys_jax.data.splits import Fold
from recsys_jax.errors import Diverged
from recsys_jax.evaluation.baselines import baselines
from recsys_jax.evaluation.comparison import METRICS, Answers, K
from recsys_jax.evaluation.scorers import Scorer, Shared, model_scorer
from recsys_jax.evaluation.tasks import Task
from recsys_jax.evaluation.tuning import search
from recsys_jax.models.trained import TrainedModel
from recsys_jax.training.fit import fit, fit_seeds

__all__ = ["SEARCH", "Contender", "Say", "baseline_contenders", "contenders"]

SEARCH = "towers, searched"
"""The name of the towers whose hyper-parameters were searched for."""

Say = Callable[[str], None]
"""Called with a word on how far a contender is."""

Contender = Callable[[Say], Answers]
"""Learns, and answers the queries of its fold."""


def contenders(
    dataset: Dataset,
    fold: Fold,
    configs: Mapping[str, Config],
    *,
    seeds: Sequence[int],
    trials: int = 0,
    seed: int = 0,
) -> dict[str, Contender]:
    """By name, what trains each config on a fold; with `trials`, the search too. Nothing is done before it is called.

    Args:
        dataset: whose purchases are split.
        fold: what is learned from and asked.
        configs: by name; the linear ones train with the first seed, as theirs is one best fit.
        seeds: of the towers in this fold, the same ones for every config.
        trials: of the search; 0 leaves it out.
        seed: of the search.
    """
    task = Task.of(dataset, fold, (K,))

    def recipe(name: str, config: Config) -> Contender:
        def run(say: Say) -> Answers:
            began = time.perf_counter()
            models = _trained(dataset, fold, config, seeds, name, say)
            return _answers(models, dataset, task, config, seeds, time.perf_counter() - began)

        return run

    def searched(say: Say) -> Answers:
        began = time.perf_counter()
        found = search(
            dataset, fold.train, trials, seed=seed, progress=lambda done, total, word: say(f"{done}/{total}, {word}")
        )
        models = _trained(dataset, fold, found.config, seeds, SEARCH, say)
        answers = _answers(models, dataset, task, found.config, seeds, time.perf_counter() - began)
        return replace(answers, notes=(found.note,))

    out = {name: recipe(name, config) for name, config in configs.items()}
    return {**out, SEARCH: searched} if trials else out


def baseline_contenders(dataset: Dataset, fold: Fold) -> dict[str, Contender]:
    """By name, the baselines that are rivals: all of `baselines` but chance and the opposite of popularity."""
    task = Task.of(dataset, fold, (K,))

    def asked(scorer: Scorer, began: float) -> Answers:
        notes = (scorer.note,) if isinstance(scorer, Shared) and scorer.note else ()
        values = {metric: found[None] for metric, found in _asked(task, scorer).items()}
        return Answers(values, notes=notes, seconds=time.perf_counter() - began)

    began = time.perf_counter()
    scorers = baselines(dataset, fold)
    took = time.perf_counter() - began
    return {
        name: lambda _, scorer=scorer: asked(scorer, time.perf_counter() - took)  # type: ignore[misc]
        for name, scorer in scorers.items()
        if name not in ("random", "inverse popularity")
    }


def _trained(
    dataset: Dataset, fold: Fold, config: Config, seeds: Sequence[int], name: str, say: Say
) -> list[TrainedModel]:
    """A model of each seed; one of the linear recipe. Raises `Diverged` where a loss is not finite."""
    if not isinstance(config, DeepConfig):
        one = replace(config, seed=seeds[0])
        return [fit(dataset, one, train=fold.train)]

    def progress(done: int, total: int, _: str) -> None:
        say(f"epoch {done}/{total}")

    try:
        if len(seeds) == 1:
            return [fit(dataset, replace(config, seed=seeds[0]), train=fold.train, progress=progress)]
        return fit_seeds(dataset, config, seeds, train=fold.train, progress=progress)
    except Diverged as error:
        raise Diverged(f"{name}: {error}") from None


def _answers(
    models: Sequence[TrainedModel], dataset: Dataset, task: Task, config: Config, seeds: Sequence[int], seconds: float
) -> Answers:
    began = time.perf_counter()
    each = [_asked(task, model_scorer(model, dataset)) for model in models]
    values = {metric: np.stack([found[metric] for found in each]) for metric in METRICS}
    own = tuple(seeds) if isinstance(config, DeepConfig) else ()
    return Answers(values, own, seconds=seconds + time.perf_counter() - began)


def _asked(task: Task, scorer: Scorer) -> dict[str, Float64[np.ndarray, " n"]]:
    values, _ = task.values(scorer, with_lists=False)
    return {metric: values[metric] for metric in METRICS}
