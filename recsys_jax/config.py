"""Recipes: how a model is built and trained.

A command's options, a TOML table and the config of a run are the fields of these classes, and are checked here alone.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import partial
from math import inf, isnan
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, get_args, get_type_hints

from recsys_jax.errors import InputError, choices, require, require_seed, shown, spelt

Loss = Literal["triplet", "infonce", "softmax"]
Negatives = Literal["random", "hard", "semi-hard"]
Language = Literal["en", "ko"]
"""What people are told in."""
Tell = Callable[[str], None]


@dataclass(frozen=True)
class WideConfig:
    """Wide: a vector per attribute value, fitted to the full softmax by L-BFGS: convex, with one best fit.

    An L2 penalty is the inverse variance of what it holds back, in log-odds: 100 stands for 0.1 up or down, inf leaves
    it out. One that is left out (None) is chosen on inner folds.
    """

    recipe: ClassVar[str] = "wide"
    seeded: ClassVar[bool] = False
    """Whether another seed trains another model."""

    own_l2: float | None = None
    """L2 penalty on the product's own weights."""
    attribute_l2: float | None = None
    """L2 penalty on the weights of customer attributes for product attributes, such as a brand."""
    factor_l2: float | None = None
    """L2 penalty on the weights of customer attributes for item factors."""
    item_factors: int = 16
    """Leading directions of which products the same customers buy, as further product attributes."""
    inner_folds: int = 4
    """Folds of the training customers on which penalties are chosen."""
    output_dim: int = 64
    """The most dimensions of the space in which customers and products meet."""
    seed: int = 0
    """Deals the customers into inner folds; nothing else is random."""

    def __post_init__(self) -> None:
        """Refuses what makes no sense with a sentence."""
        _require_types(self)
        _require(self, "above 0, or inf", lambda l2: l2 is None or l2 > 0, "own_l2", "attribute_l2", "factor_l2")
        _require(self, "1 or more", lambda count: count >= 1, "item_factors")
        _require(self, "2 or more", lambda count: count >= 2, "inner_folds")
        _require(self, "3 or more", lambda count: count >= 3, "output_dim")
        require_seed(self.seed)

    # What is a choice in the deep recipe.
    popularity_bias: ClassVar[bool] = True
    id_embedding: ClassVar[bool] = True
    negatives_among: ClassVar[Literal["products", "purchased", "none"]] = "none"
    extra_customers: ClassVar[int] = 0
    small_steps: ClassVar[bool] = False
    least_dim: ClassVar[int] = 3
    """The fewest dimensions that the fit may choose, of `output_dim` at the most."""

    def sizes(self, width: int) -> dict[str, Any]:
        """The sizes of the `TwoTower` whose vectors have `width` dimensions: two bring the sums to unit length."""
        return {"wide_dim": width - 2, "deep": False}


@dataclass(frozen=True)
class DeepConfig:
    """Deep: the published towers with a hidden layer, trained in batches by Adam."""

    recipe: ClassVar[str] = "deep"
    seeded: ClassVar[bool] = True

    loss: Loss = "triplet"
    """triplet: one negative per row; infonce: in-batch negatives; softmax: the whole catalogue."""
    negatives: Negatives = "random"
    """Triplet negatives: any product not bought, or the nearest wrong one among the batch's products."""
    margin: float = 1.0
    """How much nearer than the negative the positive should be, in Euclidean distance (triplet)."""
    temperature: float = 0.1
    """Divides the cosines (infonce, softmax)."""
    log_q: bool = False
    """Log-Q correction for popular products being in-batch negatives more often (infonce)."""
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
        for name, allowed in (("loss", get_args(Loss)), ("negatives", get_args(Negatives))):
            _require(self, choices(allowed, found=getattr(self, name)), allowed.__contains__, name)
        _require(self, "1 or more", lambda size: size >= 1, "epochs", "embedding_dim", "hidden_dim", "output_dim")
        # The batch's own mean and variance normalise: a batch of one always comes out as zeros, whatever went in.
        _require(self, "2 or more", lambda size: size >= 2, "batch_size")
        _require(self, "from 0 to below 1", lambda p: 0 <= p < 1, "dropout", "attribute_dropout", "id_dropout")
        _require(self, "above 0", lambda x: 0 < x < inf, "temperature", "learning_rate")
        _require(self, "0 or more", lambda x: 0 <= x < inf, "margin", "number_jitter", "extra_customers")
        require_seed(self.seed)
        if self.loss != "triplet":
            _require(self, "with the triplet loss alone", lambda negatives: negatives == "random", "negatives")
        if self.loss != "infonce":
            _require(self, "with the infonce loss alone", lambda log_q: not log_q, "log_q")
        if self.loss == "triplet":
            _require(self, "with the infonce or softmax loss", lambda bias: not bias, "popularity_bias")

    @property
    def small_steps(self) -> bool:
        """Whether to hand a step's operations to other threads takes longer than the work: as measured."""
        return self.batch_size * self.hidden_dim <= 2**14

    @property
    def least_dim(self) -> int:
        """`output_dim`: no other number is chosen."""
        return self.output_dim

    @property
    def negatives_among(self) -> Literal["products", "purchased", "none"]:
        """Among which products the loss draws each row's negatives; "none": it compares with the whole catalogue."""
        if self.loss == "softmax":
            return "none"
        return "products" if self.loss == "triplet" and self.negatives == "random" else "purchased"

    def sizes(self, width: int) -> dict[str, Any]:
        """The sizes of the `TwoTower`, whose vectors have `width` dimensions."""
        own = {"embedding_dim": self.embedding_dim, "hidden_dim": self.hidden_dim, "dropout": self.dropout}
        return {**own, "output_dim": width}


Config = WideConfig | DeepConfig
"""Any recipe."""

RECIPES: Mapping[str, type[Config]] = {kind.recipe: kind for kind in (DeepConfig, WideConfig)}
"""By name."""
for _kind in RECIPES.values():  # a field that there is none of is told as any other mistake is
    _kind.__init__ = spelt(_kind.__init__)  # type: ignore[method-assign]

FORMER_RECIPES: Mapping[str, str] = {"linear": "wide", "towers": "deep"}
"""The names of recipes by those that they had before."""

FORMER_FIELDS: Mapping[str, str] = {
    "own_penalty": "own_l2",
    "attribute_penalty": "attribute_l2",
    "taste_penalty": "factor_l2",
    "tastes": "item_factors",
}
"""The names of fields by those that they had before, all of the wide recipe."""


class LinearConfig(WideConfig):
    """The former name of `WideConfig`, which it makes; former names of fields are understood."""

    def __new__(cls, **values: Any) -> Any:
        """A `WideConfig`."""
        return WideConfig(**{FORMER_FIELDS.get(name, name): value for name, value in values.items()})


def parse_recipe(table: object, where: str, tell: Tell = lambda sentence: None) -> Config:
    """The recipe that a table describes: its name under `recipe`, and any of its fields; `where` names it in errors.

    `"inf"` stands for infinity, which JSON lacks; `tell` is called with a line on former names, where there are any.
    Raises `InputError` for an unknown recipe or field, or a value that the field does not admit.

    >>> parse_recipe({"recipe": "wide", "item_factors": 4}, "my.toml").item_factors
    4
    """
    if not isinstance(table, Mapping):
        raise InputError(f'{where}: found {shown(table)}; allowed: a table with recipe = "deep" or "wide"')
    asked = table.get("recipe")
    recipe = FORMER_RECIPES.get(asked, asked) if isinstance(asked, str) else ""
    if recipe not in RECIPES:
        found = "none" if asked is None else shown(asked)
        raise InputError(f"{where}: recipe: found {found}; allowed: {choices(RECIPES, found=asked)}")
    kind = RECIPES[recipe]
    hints = get_type_hints(kind)
    allowed = [field.name for field in fields(kind)]
    names = {key: FORMER_FIELDS.get(key, key) for key in table if key != "recipe"}
    values: dict[str, Any] = {}
    for key, name in names.items():
        if name not in allowed:
            raise InputError(
                f"{where}: found the field {shown(key)}; allowed with recipe = {recipe!r}: "
                f"{choices(allowed, limit=99, found=key)}"
            )
        value = table[key]
        values[name] = inf if value == "inf" and hints[name] not in (Loss, Negatives) else _number(value, hints[name])
    renamed = [f"{old} is now called {new}" for old, new in {asked: recipe, **names}.items() if old != new]
    if renamed:
        tell(f"{where}: {', '.join(renamed)}")
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def to_table(config: Config) -> dict[str, Any]:
    """What `parse_recipe` reads: the recipe's name and its fields, as TOML and JSON have them.

    >>> to_table(WideConfig(own_l2=inf))["own_l2"]
    'inf'
    """
    values = {name: "inf" if value == inf else value for name, value in asdict(config).items()}
    return {"recipe": config.recipe, **values}


def words(config: Config) -> list[str]:
    """The recipe as a command line has it: its name, and the fields that differ from its defaults.

    >>> words(DeepConfig(loss="infonce", log_q=True))
    ['deep', '--loss', 'infonce', '--log-q']
    """
    out = [config.recipe]
    for name, value in _changed(config):
        flag = name.replace("_", "-")
        out += [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    return out


def describe(config: Config) -> str:
    """The recipe in words: what differs from its defaults.

    >>> describe(WideConfig(own_l2=30.0))
    'wide (own_l2 30)'
    >>> describe(DeepConfig(loss="softmax", epochs=10))
    'deep (loss softmax, epochs 10)'
    """
    changed = [(name, value) for name, value in _changed(config) if name != "seed"]
    said = [f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in changed]
    return f"{config.recipe} ({', '.join(said)})" if said else config.recipe


def _changed(config: Config) -> list[tuple[str, Any]]:
    standard = asdict(type(config)())
    return [(name, value) for name, value in asdict(config).items() if value != standard[name]]


def _number(value: object, hint: Any) -> object:
    """A whole number where the field is a float: TOML tells 1 from 1.0, a number does not."""
    if float in (hint, *get_args(hint)) and isinstance(value, int) and not isinstance(value, bool):
        with suppress(OverflowError):
            return float(value)
    return value


_KINDS: Mapping[Any, tuple[str, Any]] = {
    int: ("a whole number", Integral),
    float: ("a number", Real),
    bool: ("true or false", bool),
    float | None: ("a number, or none", Real | None),
}


def _require_types(config: Config) -> None:
    """Raises `InputError` for an option of another type, before anything is compared."""
    for name, hint in get_type_hints(type(config)).items():
        if hint in _KINDS:
            allowed, kind = _KINDS[hint]
            _require(config, allowed, partial(_is_of, kind), name)


def _is_of(kind: Any, value: Any) -> bool:
    if isinstance(value, bool):
        return kind is bool
    with suppress(OverflowError):  # a whole number may be too large to be a float
        return isinstance(value, kind) and (value is None or not isnan(float(value)))
    return False


def _require(config: Config, allowed: str, holds: Callable[[Any], bool], *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        require(holds(value), name, value, allowed)
