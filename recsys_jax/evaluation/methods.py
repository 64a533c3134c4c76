"""Methods: each learns from a fold's training purchases and then ranks for customers, a recipe like a baseline."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from recsys_jax.config import Config, DeepConfig, Tell, WideConfig, parse_recipe, to_table
from recsys_jax.data.dataset import Dataset
from recsys_jax.data.files import read_toml, toml_tables
from recsys_jax.data.splits import Fold, customer_folds
from recsys_jax.errors import Diverged, InputError, installing
from recsys_jax.evaluation.queries import Queries, Scorer, Scores, attribute_rows
from recsys_jax.models.settings import own_settings
from recsys_jax.models.trained import Ensemble, TrainedModel, bucket
from recsys_jax.retrieval import scoring
from recsys_jax.training.fit import fit, fit_seeds

TUNED = {"deep": "deep, tuned", "wide": "wide, tuned"}  # the names of recipes whose hyper-parameters were tuned
PUBLISHED = "deep, as published"  # the name of the published recipe
# Deep with what helps it most: the whole catalogue as negatives, popularity, and a vector for each product.
SOFTMAX = DeepConfig(loss="softmax", popularity_bias=True, id_embedding=True, epochs=10, batch_size=1024)
# Where tuning starts, and the hyper-parameters that are tuned. The penalties of wide are not: each fit chooses them.
STARTS: dict[str, Config] = {"deep": SOFTMAX, "wide": WideConfig()}
SPACES = {
    "deep": ("learning_rate", "temperature", "dropout", "epochs", "output_dim", "id_dropout"),
    "wide": ("item_factors", "output_dim"),
}
INNER = 5  # one training customer in so many is held out to tune by
ROWS = 4_000_000  # the most purchases, times passes, that the published recipe trains on: some quarter of a minute

Recipe = Literal["deep", "wide"]
Progress = Callable[[float, float, str], None]
"""Called with how much is done, also in parts, of how much, and a short description of the current state."""


@dataclass(frozen=True)
class Learned:
    """What a method learned in a fold."""

    scorers: Callable[[Dataset], Sequence[Scorer]]
    """What ranks the products for a dataset's customers: one scorer for each seed."""
    ensemble: Callable[[Dataset], Scorer] | None = None
    """The mean score of the models of all seeds, where that is asked for, too."""
    columns: tuple[str, ...] = ()
    """The columns of the customers that a model reads, for any dataset with them; none where no model does."""


@dataclass(frozen=True)
class Method:
    """Something that ranks products for customers."""

    learn: Callable[[Dataset, Fold, int, Progress], Learned]
    """Learns from the training purchases of a fold, whose number among the folds is given; tells how far it is."""
    seeds: tuple[int, ...] = ()
    """Of its models in the first fold; none where seeds change nothing, or are not ours to choose."""


def fixed(scores: Scores) -> Method:
    """A method that has nothing to learn: the scores of every product for the customers in the given rows."""
    return Method(
        lambda dataset, fold, number, progress: Learned(lambda view: [Scorer(scores, np.arange(len(view.customers)))])
    )


def trained(models: Sequence[TrainedModel], *, ensemble: bool = False) -> Method:
    """Models that are trained already, which differ in their seed."""
    seeds = tuple(model.config.seed for model in models)
    return Method(lambda dataset, fold, number, progress: _learned(models, ensemble), seeds)


def recipe(config: Config, seeds: Sequence[int] | None = None, *, ensemble: bool = False) -> Method:
    """A model of each seed, by default of the config's; fold i trains with the seeds + i.

    A recipe with one best fit is trained with the first of the seeds alone. With `ensemble`, the mean of the models'
    scores is measured as well. Raises `InputError` for a seed that is not allowed.
    """
    own = tuple(replace(config, seed=seed).seed for seed in ([config.seed] if seeds is None else seeds))

    def learn(dataset: Dataset, fold: Fold, number: int, progress: Progress) -> Learned:
        return _learned(_fit(dataset, fold, config, own, number, progress), ensemble)

    return Method(learn, own if config.seeded else ())


def tuned(trials: int, seeds: Sequence[int], *, seed: int = 0, recipe: Recipe = "deep") -> Method:
    """A recipe with hyper-parameters tuned in each fold, on its training part alone; see `tune`."""

    def learn(dataset: Dataset, fold: Fold, number: int, progress: Progress) -> Learned:
        def tuning(done: float, total: float, word: str) -> None:
            progress(done, trials + 1, f"{done}/{total}, {word}")

        def training(done: float, total: float, word: str) -> None:
            """The models of all seeds count as one more trial."""
            progress(trials + done / total, trials + 1, word)

        found = tune(dataset, fold.train, trials, seed=seed, recipe=recipe, progress=tuning)
        models = _fit(dataset, fold, found.config, seeds, number, training)
        note = ", ".join(f"{name} {getattr(found.config, name):.3g}" for name in SPACES[recipe])
        return _learned(models, note=note)

    return Method(learn, tuple(seeds) if STARTS[recipe].seeded else ())


def model_scorer(model: TrainedModel | Ensemble, dataset: Dataset, note: str = "") -> Scorer:
    """Scores as the recommender ranks by them, without boosts and exclusions; each combination of attributes once."""
    products, bias = model.product_embeddings, model.product_bias
    known = (model.models[0] if isinstance(model, Ensemble) else model).customers.names
    left = [feature.name for feature in dataset.schema.customers.features if feature.name not in known]
    if left:
        note = ", ".join(
            filter(None, [note, f"without {' and '.join(left)}, which no training customer of the fold states"])
        )
    first, group = attribute_rows(dataset)
    customers = model.embed_customers(dataset.customers.select(first.tolist()))

    @own_settings()
    def of_groups(groups: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n p"]:
        padded = np.pad(customers[groups], ((0, bucket(len(groups)) - len(groups)), (0, 0)))  # few lengths to compile
        return np.asarray(scoring.scores(padded, products) + bias)[: len(groups)]

    return Scorer(of_groups, group, note)


def _learned(models: Sequence[TrainedModel], ensemble: bool = False, note: str = "") -> Learned:
    return Learned(
        lambda view: [model_scorer(model, view, note) for model in models],
        (lambda view: model_scorer(Ensemble(models), view)) if ensemble else None,
        tuple(dict.fromkeys(fitted.feature.column for fitted in models[0].customers)),
    )


def _fit(
    dataset: Dataset, fold: Fold, config: Config, seeds: Sequence[int], number: int, progress: Progress
) -> list[TrainedModel]:
    """The models of the seeds, of which a recipe with one best fit takes the first, in a fold."""
    own = [(seed + number) % 2**32 for seed in (seeds if config.seeded else seeds[:1])]
    options: dict[str, Any] = {"train": fold.train, "progress": progress}
    if len(own) == 1:
        return [fit(dataset, replace(config, seed=own[0]), **options)]
    return fit_seeds(dataset, config, own, **options)


# The recipes of a comparison


def built_in(purchases: int) -> dict[str, Config]:
    """The recipes by name where no file names others; on many purchases the published one makes fewer passes.

    >>> built_in(200)["deep, as published"].epochs, built_in(80_000)["deep, as published"].epochs
    (500, 50)
    """
    most = DeepConfig().epochs
    return {
        "wide": WideConfig(),
        "deep, softmax": SOFTMAX,
        PUBLISHED: DeepConfig(epochs=min(most, max(1, ROWS // max(purchases, 1)))),
    }


def both(default: Config, purchases: int, seed: int, epochs: int | None = None) -> dict[str, Config]:
    """A recipe of each kind, by its name: the dataset's own and a built-in one, with the seed and epochs asked for.

    Raises `InputError` for a seed or epochs that are not allowed.

    >>> both(WideConfig(item_factors=4), 200, seed=3, epochs=9)["deep"].epochs
    9
    """
    found = {one.recipe: one for one in [*built_in(purchases).values(), default]}
    tables = {name: {**to_table(one), "seed": seed} for name, one in found.items()}
    changed = {
        name: one | ({"epochs": epochs} if epochs is not None and "epochs" in one else {})
        for name, one in tables.items()
    }
    return {name: parse_recipe(one, "run") for name, one in changed.items()}


def read_configs(path: Path, tell: Tell = lambda sentence: None) -> dict[str, Config]:
    """The recipes in a TOML file, as `parse_configs` reads them. Raises `InputError` where it is absent or no TOML."""
    return parse_configs(read_toml(path), str(path), tell)


def parse_configs(content: Mapping[str, object], where: str, tell: Tell = lambda sentence: None) -> dict[str, Config]:
    """The recipes in a parsed document; `where` names it in errors, `tell` is called with a line on each former name.

    Raises `InputError` for no table, an unknown recipe or field, or a value that the field does not admit.

    >>> parse_configs({"small": {"recipe": "wide", "item_factors": 4}}, "my.toml")["small"].item_factors
    4
    """
    if not content:
        raise InputError(f'{where}: found no table; allowed: one or more, such as ["my recipe"] with recipe = "deep"')
    for name, table in content.items():
        if isinstance(table, Mapping) and "seed" in table:
            raise InputError(
                f"{where}, [{name}]: found seed; allowed: --seed and --seeds, one list of seeds for all recipes"
            )
    return {name: parse_recipe(table, f"{where}, [{name}]", tell) for name, table in content.items()}


def read_config(path: Path, tell: Tell = lambda sentence: None) -> Config:
    """The one recipe in a TOML file: a table of any name, such as `[training]`, with a seed where it likes.

    Raises `InputError` where the file is absent, no TOML, or has not one table, or where the table is no recipe.
    """
    content = read_toml(path)
    if len(content) != 1:
        raise InputError(f"{path}: found {len(content)} entries; allowed: one table, such as [training]")
    [(name, table)] = content.items()
    return parse_recipe(table, f"{path}, [{name}]", tell)


def configs_text(configs: Mapping[str, Config]) -> str:
    """The TOML that `read_configs` reads: a table of each recipe, without its seed and what is left to training.

    >>> print(configs_text({"few": WideConfig(own_l2=30.0, item_factors=4)}))
    [few]
    recipe = "wide"
    own_l2 = 30.0
    item_factors = 4
    inner_folds = 4
    output_dim = 64
    <BLANKLINE>
    """
    return toml_tables({name: {**to_table(config), "seed": None} for name, config in configs.items()})


# Hyper-parameter tuning


@dataclass(frozen=True)
class Tuned:
    """The best hyper-parameters that were tried."""

    config: Config
    score: float
    """Its MRR on the inner hold-out."""
    tried: tuple[tuple[Config, float], ...]
    """All that were tried, in turn, with their MRR."""


def training_part(dataset: Dataset, train: Bool[np.ndarray, " n"]) -> Dataset:
    """The dataset without the customers and the purchases that may not be learned from."""
    buyers, row = np.unique(dataset.purchases[train, 0], return_inverse=True)
    return replace(
        dataset,
        customers=dataset.customers.select(buyers.tolist()),
        customer_ids=[dataset.customer_ids[buyer] for buyer in buyers],
        purchases=np.stack([row.reshape(-1), dataset.purchases[train, 1]], axis=1).astype(dataset.purchases.dtype),
        dates=None,
        repeats=np.empty((0, 2)),
    )


def tune(
    dataset: Dataset,
    train: Bool[np.ndarray, " n"],
    trials: int,
    *,
    seed: int = 0,
    recipe: Recipe = "deep",
    progress: Callable[[int, int, str], None] | None = None,
) -> Tuned:
    """Hyper-parameters of a recipe by Optuna's TPE sampler, from `STARTS` on; the best by inner MRR.

    One in `INNER` of the customers of `train`, the purchases that may be learned from, is held out, dealt by `seed`,
    which is the sampler's and the models' seed, too; nothing here is handed any other customer. `progress` is called
    with the trials done, of how many, and the best MRR so far. Raises `InputError` where Optuna is missing, for fewer
    than one trial, or with fewer training customers than `INNER`.
    """
    try:
        import optuna
    except ImportError:
        raise InputError(f"hyper-parameter tuning needs Optuna: {installing('tuning')}") from None
    if trials < 1:
        raise InputError(f"trials: found {trials}; allowed: 1 or more")
    part = training_part(dataset, train)
    held = customer_folds(len(part.customer_ids), INNER, seed)[part.purchases[:, 0]] == 0
    inner = Fold(~held, held)
    queries = Queries.of(part, inner, (1,))
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would tell of each trial
    try:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
        study.enqueue_trial({name: getattr(STARTS[recipe], name) for name in SPACES[recipe]})
        tried: list[tuple[Config, float]] = []
        for number in range(trials):
            trial = study.ask()
            config = replace(STARTS[recipe], seed=seed, **_SUGGESTED[recipe](trial))
            again = dict(tried).get(config)  # whole numbers come twice
            score = _score(part, inner, queries, config) if again is None else again
            study.tell(trial, score)
            tried.append((config, score))
            if progress is not None:
                progress(number + 1, trials, f"inner MRR {max(score for _, score in tried):.4f}")
    finally:
        optuna.logging.set_verbosity(verbosity)
    best, score = max(tried, key=lambda one: one[1])  # ties go to the first
    return Tuned(best, score, tuple(tried))


def _suggested_wide(trial: Any) -> dict[str, Any]:
    return {
        "item_factors": trial.suggest_int("item_factors", 1, 64, log=True),
        "output_dim": trial.suggest_categorical("output_dim", [16, 32, 64, 128]),
    }


def _suggested_deep(trial: Any) -> dict[str, Any]:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 3e-4, 3e-2, log=True),
        "temperature": trial.suggest_float("temperature", 0.03, 1.0, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        "epochs": trial.suggest_int("epochs", 2, 30, log=True),
        "output_dim": trial.suggest_categorical("output_dim", [16, 32, 64]),
        "id_dropout": trial.suggest_float("id_dropout", 0.0, 0.5),
    }


_SUGGESTED = {"deep": _suggested_deep, "wide": _suggested_wide}


def _score(part: Dataset, inner: Fold, queries: Queries, config: Config) -> float:
    """The MRR on the inner hold-out; 0 where training diverged."""
    try:
        model = fit(part, config, train=inner.train)
    except Diverged:
        return 0.0
    return float(queries.reciprocal_ranks(model_scorer(model, part)).mean())
