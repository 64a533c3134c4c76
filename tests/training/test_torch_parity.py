"""The same numbers as PyTorch: from the same weights, the same batches and the same negatives, with dropout off.

Ours is the real `train_step`. PyTorch's side is `recsys_jax_benchmark.pytorch.reference` with `torch.optim.Adam`
and, for losses that the reference lacks, PyTorch's own functions. An error is relative and over a whole tensor:
|ours - PyTorch's| divided by |PyTorch's|, euclidean norms. `pytest -s` prints the largest of each kind.
"""

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flax.traverse_util import flatten_dict
from jax.flatten_util import ravel_pytree
from torch_weights import PARAMETERS, STATISTICS, as_ours, tree

from recsys_jax.config import DeepConfig
from recsys_jax.data.dataset import assemble, read_schema
from recsys_jax.data.features import Features
from recsys_jax.data.tables import Table
from recsys_jax.models.towers import TwoTower, encode_customers, encode_products
from recsys_jax.models.trained import two_tower
from recsys_jax.training.batches import Prepared, TrainData, prepare
from recsys_jax.training.step import Batch, Numbers, TrainState, adam, init_state, loss_of, train_step
from recsys_jax_benchmark.pytorch import reference

MALL = Path(__file__).parents[2] / "data" / "amoremall"
CUSTOMERS, PURCHASES, POPULAR = 40, 53, 20  # an epoch is a batch of 32 and one of 21
STEPS = 100

RECIPES = {
    "triplet": DeepConfig(),
    "triplet, hard": DeepConfig(negatives="hard", margin=0.5),
    "triplet, semi-hard": DeepConfig(negatives="semi-hard", margin=0.2),
    "infonce": DeepConfig(loss="infonce"),
    "infonce, log-q": DeepConfig(loss="infonce", log_q=True),
    "infonce, popularity": DeepConfig(loss="infonce", popularity_bias=True),
    "softmax": DeepConfig(loss="softmax"),
    "softmax, popularity": DeepConfig(loss="softmax", popularity_bias=True),
}

# The purchases of a batch, and its length: a run fills the last batch of an epoch up to 32 and masks what it added.
PADDED = [(32, 32), (21, 32), (2, 32)]

STEP = jax.jit(train_step, static_argnames=("model", "loss", "optimiser"))


def sizes(pairs):
    return pytest.mark.parametrize(("size", "length"), pairs, ids=[f"{size} of {length}" for size, length in pairs])


def recipes(*names):
    return pytest.mark.parametrize("name", names)


@dataclass(frozen=True)
class Mall:
    """The same rows as the reference reads them (`theirs`, by side) and as we encode them (`prepared`)."""

    theirs: dict[str, dict[str, torch.Tensor]]
    prepared: Prepared
    pairs: np.ndarray
    bought: np.ndarray
    popular: np.ndarray
    brands: int

    @property
    def ours(self) -> dict[str, Features]:
        return {"customer": self.prepared.customers, "product": self.prepared.products}

    def model(self, config: DeepConfig) -> TwoTower:
        return two_tower(config, self.prepared.customer_space, self.prepared.product_space)

    def data(self, config: DeepConfig, dtype: Any) -> TrainData:
        data = self.prepared.data(config)
        return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, data)

    @cached_property
    def twos(self) -> list[np.ndarray]:
        """Batches of two purchases that differ in every attribute, and of which neither customer bought the other's."""

        def unlike(side, a, b):
            return all(column[a] != column[b] for column in self.theirs[side].values())

        return [
            np.stack([one, two])
            for one, two in combinations(self.pairs, 2)
            if unlike("customer", one[0], two[0])
            and unlike("product", one[1], two[1])
            and not self.bought[one[0], two[1]]
            and not self.bought[two[0], one[1]]
        ]


@pytest.fixture(scope="module")
def mall():
    """The shipped products and random customers, a third of whom bought twice: some negatives in a batch are none."""
    rng = np.random.default_rng(0)
    rows = reference.read_rows(MALL / "products.json")
    # Different in what the tower sees: which of two equal products is nearer would be decided by rounding alone.
    different = {(row["category"], row["brand_name"], row["price"]): i for i, row in enumerate(rows)}
    popular = rng.permutation(list(different.values()))[:POPULAR]
    bought = np.zeros((CUSTOMERS, len(rows)), bool)
    for owner in np.arange(PURCHASES) % CUSTOMERS:
        bought[owner, rng.choice(popular[~bought[owner, popular]])] = True
    people = [
        {
            "user_id": f"u{i}",
            "persona_name": "someone",
            "age": int(rng.integers(15, 80)),
            "gender": str(rng.choice(list(reference.GENDERS))),
            "skin_type": str(rng.choice(list(reference.SKIN_TYPES))),
            "skin_concern": str(rng.choice(list(reference.SKIN_CONCERNS))),
            "purchased_product_id": [rows[j]["product_id"] for j in np.flatnonzero(bought[i])],
        }
        for i in range(CUSTOMERS)
    ]
    schema, brands = read_schema(MALL), reference.brands(rows)
    products = Table.of(rows, "products")
    dataset = assemble(schema, products, [row["product_id"] for row in rows], Table.of(people, "customers"), MALL)

    def stacked(items):
        return {name: torch.stack([item[name] for item in items]) for name in items[0]}

    return Mall(
        {
            "customer": stacked([reference.customer_features(person) for person in people]),
            "product": stacked([reference.product_features(row, brands) for row in rows]),
        },
        prepare(dataset, DeepConfig()),
        rng.permutation(dataset.purchases),
        bought,
        popular,
        len(brands),
    )


@pytest.fixture(scope="module")
def largest():
    """The largest error of each kind, printed at the end."""
    found = defaultdict(float)
    yield found
    print("\n\nlargest relative error")
    for title, value in found.items():
        print(f"{title:<66}{value:.1e}")


class Theirs:
    """PyTorch's model, optimizer and losses."""

    def __init__(self, mall: Mall, config: DeepConfig, dtype: torch.dtype):
        torch.manual_seed(0)
        self.model, self.config, self.mall = reference.TwoTower(mall.brands, dropout=0.0), config, mall
        for module in self.model.modules():
            if isinstance(module, torch.nn.BatchNorm1d):  # at its ones and zeros, a mistake would not show
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.normal_(0.0, 0.3)
                module.running_mean.normal_(0.5, 0.3)
                module.running_var.uniform_(0.2, 2.0)
        self.model.to(dtype).train()
        self.rows = {
            side: {name: column.to(dtype) if column.is_floating_point() else column for name, column in part.items()}
            for side, part in mall.theirs.items()
        }
        counts = mall.bought.sum(axis=0)
        self.popularity = torch.tensor(((counts + 1) / (counts + 1).sum()).astype(np.float32), dtype=dtype)
        self.adam = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate)

    def encode(self, side, rows):
        features = {name: column[torch.as_tensor(rows)] for name, column in self.rows[side].items()}
        return getattr(self.model, f"encode_{side}")(features)

    @torch.no_grad()
    def keep_away_from_kinks(self, side, rows):
        """Moves the hidden layer so that every unit is on for some of the rows and off for others, by wide gaps.

        Near zero, rounding alone switches a ReLU. And where a unit is on for all rows, the gradient of its bias is zero
        but for rounding, which Adam makes a step of up to full length. In both cases even PyTorch in float32 and in
        float64 part ways at once.
        """
        linear = getattr(self.model, f"{side}_mlp")[0]
        # Normalised, two rows are +-1 whatever they were; what epsilon leaves of the gradient behind is lost in
        # rounding unless their variance is small.
        linear.weight *= 0.1 if len(rows) == 2 else 20.0
        seen = []
        with linear.register_forward_hook(lambda module, arguments, out: seen.append(out)):
            self.encode(side, rows)
        ordered = seen[0].sort(dim=0).values
        outer = (len(rows) - 1) // 4
        middle = ordered[outer : len(rows) - outer]
        widest = middle.diff(dim=0).argmax(dim=0, keepdim=True)
        linear.bias -= (middle.gather(0, widest) + middle.gather(0, widest + 1))[0] / 2

    def losses(self, pairs, negatives):
        """The loss of each row that has one."""
        config, customers, products = self.config, pairs[:, 0], pairs[:, 1]
        anchors = self.encode("customer", customers)
        sign = int(config.popularity_bias) - int(config.log_q)
        if config.loss == "softmax":
            catalogue = self.encode("product", np.arange(len(self.popularity)))
            logits = anchors @ catalogue.T / config.temperature + sign * self.popularity.log()
            return F.cross_entropy(logits, torch.as_tensor(products).long(), reduction="none")
        positives = self.encode("product", products)
        triplet = torch.nn.TripletMarginLoss(margin=config.margin, reduction="none")
        if config.loss == "triplet" and config.negatives == "random":
            return triplet(anchors, positives, self.encode("product", negatives[customers]))

        wrong = torch.as_tensor(~self.mall.bought[customers][:, products])  # [i, j]: is j a negative of i?
        if config.loss == "infonce":
            logits = anchors @ positives.T / config.temperature + sign * self.popularity[products].log()
            own = torch.eye(len(pairs), dtype=torch.bool)
            return F.cross_entropy(
                logits.masked_fill(~wrong & ~own, -torch.inf), torch.arange(len(pairs)), reduction="none"
            )
        chosen = []
        for row, anchor in enumerate(anchors):
            far = F.pairwise_distance(anchor, positives)
            candidates = wrong[row].nonzero()[:, 0]
            farther = candidates[far[candidates] > far[row]]
            between = farther[far[farther] < far[row] + config.margin]
            if not len(candidates):
                continue
            if config.negatives == "hard":
                chosen.append((row, candidates[far[candidates].argmin()]))
            elif len(between):
                chosen.append((row, between[far[between].argmin()]))
            else:
                chosen.append((row, candidates[far[candidates].argmax()]))
        own, other = torch.tensor(chosen).unbind(dim=1)
        return triplet(anchors[own], positives[own], positives[other])

    def step(self, pairs, negatives):
        """One step of Adam; gives the sum of the rows' losses before it."""
        rows = self.losses(pairs, negatives)
        self.adam.zero_grad()
        rows.mean().backward()
        self.adam.step()
        return float(rows.detach().double().sum())

    def parameters(self):
        return as_ours(dict(self.model.named_parameters()))

    def gradients(self):
        return as_ours({name: parameter.grad for name, parameter in self.model.named_parameters()})

    def moments(self):
        return {
            f"{ours}/{path}": array
            for ours, name in (("mu", "exp_avg"), ("nu", "exp_avg_sq"))
            for path, array in as_ours({n: self.adam.state[p][name] for n, p in self.model.named_parameters()}).items()
        }

    def statistics(self):
        return as_ours({name: tensor for name, tensor in self.model.named_buffers() if name in STATISTICS})


class Ours:
    """Our state, started from PyTorch's weights, and the real step."""

    def __init__(self, theirs: Theirs):
        params, statistics = theirs.parameters(), theirs.statistics()
        self.config = replace(theirs.config, dropout=0.0)
        self.model = theirs.mall.model(self.config)
        self.data = theirs.mall.data(self.config, params["customer/deep/norm/bias"].dtype)
        params, statistics = (jax.tree.map(jnp.asarray, tree(flat)) for flat in (params, statistics))
        self.recipe = {"loss": loss_of(self.config), "optimiser": adam}
        numbers = self.config.learning_rate, self.config.margin, self.config.temperature
        self.numbers = Numbers(*numbers, attribute_dropout=None, id_dropout=None)  # in 64 bits
        started = adam(self.config.learning_rate).init(params)
        self._unravel = ravel_pytree(params)[1]  # Adam's moments are one vector each
        self.state = TrainState(params, statistics, started, jnp.int32(0), jnp.zeros(2, jnp.uint32))

    def step(self, pairs, negatives, length):
        rows = np.zeros((length, 2), np.int32)  # as in a run, row 0 pads
        rows[: len(pairs)] = pairs
        columns = rows[:, 0], rows[:, 1], negatives[rows[:, 0]], np.arange(length) < len(pairs)
        batch = Batch(*map(jnp.asarray, columns))
        self.state, total = STEP(self.state, batch, self.data, self.numbers, model=self.model, **self.recipe)
        return float(total)

    def parameters(self):
        return flat(self.state.params)

    def gradients(self):
        """After the first step: Adam's first moment is then a tenth of the gradient."""
        assert int(self.state.step) == 1
        return {path: array / (1 - 0.9) for path, array in flat(self._unravel(self.state.opt_state[0].mu)).items()}

    def moments(self):
        adam = self.state.opt_state[0]
        return flat({"mu": self._unravel(adam.mu), "nu": self._unravel(adam.nu)})

    def statistics(self):
        return flat(self.state.batch_stats)


def flat(nested):
    return {path: np.asarray(array) for path, array in flatten_dict(nested, sep="/").items()}


def moved(now, before):
    return {path: array.astype(np.float64) - before[path] for path, array in now.items()}


def errors(ours, theirs):
    """By name, the relative error; both must have the same names, and PyTorch's no tensor of zeros."""
    if not isinstance(theirs, dict):
        ours, theirs = {"": ours}, {"": theirs}
    assert set(ours) == set(theirs)
    out = {}
    for name, other in theirs.items():
        mine, expected = np.asarray(ours[name], np.float64), np.asarray(other, np.float64)
        assert mine.shape == expected.shape
        assert np.linalg.norm(expected) > 0, f"{name}: nothing to compare"
        out[name] = float(np.linalg.norm(mine - expected) / np.linalg.norm(expected))
    return out


def agree(largest, title, ours, theirs, bound):
    found = errors(ours, theirs)
    largest[f"{title} (bound {bound:.0e})"] = max(largest[f"{title} (bound {bound:.0e})"], *found.values())
    assert not {name: error for name, error in found.items() if not error <= bound}, f"{title}: above {bound}"


def plan(mall, size, *, same=False):
    """The purchases and negatives of each step. Of two purchases, each product is the other customer's negative."""
    rng = np.random.default_rng(size)
    for _ in range(STEPS):
        negatives = np.array([rng.choice(mall.popular[~own[mall.popular]]) for own in mall.bought], np.int32)
        pairs = rng.permutation(mall.pairs)[:size]
        if size == 2:
            pairs = mall.twos[0 if same else rng.integers(len(mall.twos))]
            negatives[pairs[:, 0]] = pairs[::-1, 1]
        yield pairs, negatives


def train_both(theirs, ours, batches, length, first):
    """Both through all batches, with a look at both after the first; gives the losses of all steps."""
    curves = []
    for step, (pairs, negatives) in enumerate(batches):
        curves.append((ours.step(pairs, negatives, length), theirs.step(pairs, negatives)))
        if step == 0:
            first(*curves[0])
    return np.array(curves).T


def test_every_parameter_of_either_has_its_place(mall):
    theirs = Theirs(mall, DeepConfig(), torch.float32)
    counters = {name for name, _ in theirs.model.named_buffers() if name.endswith("num_batches_tracked")}
    assert set(theirs.model.state_dict()) == set(PARAMETERS) | set(STATISTICS) | counters
    config = DeepConfig()
    start = partial(init_state, mall.model(config), optimiser=adam, seed=0)
    state = jax.eval_shape(start, mall.data(config, np.float32))
    for ours, wanted in ((state.params, theirs.parameters()), (state.batch_stats, theirs.statistics())):
        ours = flatten_dict(ours, sep="/")
        assert {path: x.shape for path, x in ours.items()} == {path: x.shape for path, x in wanted.items()}


def test_both_read_the_same_rows(mall):
    for side, columns in mall.theirs.items():
        assert set(mall.ours[side]) == set(columns)
        for name, column in columns.items():
            np.testing.assert_array_equal(mall.ours[side][name].reshape(-1), column.numpy())


@sizes([*PADDED, (21, 21), (2, 2)])
@pytest.mark.parametrize("train", [False, True], ids=["as when serving", "as in training"])
def test_the_towers_give_the_same_vectors(mall, largest, train, size, length):
    theirs = Theirs(mall, DeepConfig(), torch.float32)
    ours, pairs = Ours(theirs), np.zeros((length, 2), np.int32)
    pairs[:size] = mall.pairs[:size]
    theirs.model.train(train)
    variables = {"params": ours.state.params, "batch_stats": ours.state.batch_stats}
    for column, (side, encode) in enumerate((("customer", encode_customers), ("product", encode_products))):
        rows = {name: jnp.asarray(values[pairs[:, column]]) for name, values in mall.ours[side].items()}
        if train:
            vectors = encode_in_training(ours.model, variables, rows, jnp.arange(length) < size, f"encode_{side}s")
        else:
            vectors = encode(ours.model, variables, rows)
        with torch.no_grad():
            wanted = theirs.encode(side, pairs[:size, column])
        agree(largest, "float32, forward", vectors[:size], wanted.numpy(), 1e-5)


@partial(jax.jit, static_argnames=("model", "method"))
def encode_in_training(model, variables, rows, mask, method):
    noise = jnp.zeros((len(mask), model.hidden_dim), jnp.uint16)  # nothing drops out
    return model.apply(variables, rows, noise=noise, mask=mask, method=method, mutable=["batch_stats"])[0]


@sizes(PADDED)
@recipes("triplet", "infonce, log-q", "softmax, popularity")
def test_in_float64_they_agree_far_beyond_float32(mall, largest, name, size, length):
    """From the start that PyTorch draws. Nothing but the formulas can differ, so even what steps added is compared."""
    # Behind the normalisation of two rows some gradients cancel to nothing, and Adam divides what rounding left of them
    # by its epsilon.
    rows, bound = ("two rows", 1e-5) if size == 2 else ("batches", 1e-7)
    with jax.enable_x64(True):
        theirs = Theirs(mall, RECIPES[name], torch.float64)
        ours, start = Ours(theirs), theirs.parameters()

        def change():
            return moved(ours.parameters(), start), moved(theirs.parameters(), start)

        def first(*losses):
            agree(largest, "float64, 1 step: loss", *losses, 1e-11)
            agree(largest, "float64, 1 step: running statistics", ours.statistics(), theirs.statistics(), 1e-11)
            agree(largest, "float64, 1 step: gradients", ours.gradients(), theirs.gradients(), 1e-11)
            agree(largest, "float64, 1 step: Adam's moments", ours.moments(), theirs.moments(), 1e-11)
            agree(largest, f"float64, {rows}, 1 step: change of parameters", *change(), bound)

        losses = train_both(theirs, ours, plan(mall, size), length, first)
        agree(largest, f"float64, {rows}, 100 steps: losses", *losses, bound)
        statistics = ours.statistics(), theirs.statistics()
        agree(largest, f"float64, {rows}, 100 steps: running statistics", *statistics, bound)
        agree(largest, f"float64, {rows}, 100 steps: change of parameters", *change(), bound)


@sizes(PADDED)
@recipes(*RECIPES)
def test_in_float32_they_agree(mall, largest, name, size, length):
    """After a step and, but for the batch of 2, after a hundred."""
    compare_in_float32(mall, largest, RECIPES[name], size, length, 1 if size == 2 else STEPS)


@pytest.mark.parametrize(
    ("name", "size", "length"),
    [("triplet", 21, 21), ("triplet", 2, 2), ("triplet", 2, 32), ("infonce, log-q", 2, 32), ("softmax", 2, 32)],
)
def test_in_float32_they_agree_without_padding_and_after_a_hundred_steps_on_two_rows(mall, largest, name, size, length):
    # The two rows are the same in all steps. At the usual rate they would soon be known by heart, and what is left of
    # their gradient is rounding.
    config = RECIPES[name] if size > 2 else replace(RECIPES[name], learning_rate=1e-4)
    compare_in_float32(mall, largest, config, size, length, STEPS)


def compare_in_float32(mall, largest, config, size, length, steps):
    pairs, products = (mall.twos[0], mall.twos[0][:, 1]) if size == 2 else (mall.pairs, mall.popular)
    theirs = Theirs(mall, config, torch.float32)
    theirs.keep_away_from_kinks("customer", np.unique(pairs[:, 0]))
    theirs.keep_away_from_kinks("product", np.arange(len(mall.bought[0])) if config.loss == "softmax" else products)
    ours = Ours(theirs)

    def first(*losses):
        agree(largest, "float32, 1 step: loss", *losses, 1e-5)
        agree(largest, "float32, 1 step: running statistics", ours.statistics(), theirs.statistics(), 1e-5)
        agree(largest, "float32, 1 step: gradients", ours.gradients(), theirs.gradients(), 1e-4)
        agree(largest, "float32, 1 step: Adam's moments", ours.moments(), theirs.moments(), 1e-4)
        agree(largest, "float32, 1 step: parameters", ours.parameters(), theirs.parameters(), 1e-4)

    losses = train_both(theirs, ours, islice(plan(mall, size, same=True), steps), length, first)
    if steps > 1:
        agree(largest, f"float32, {steps} steps: losses", *losses, 1e-4)
        agree(largest, f"float32, {steps} steps: running statistics", ours.statistics(), theirs.statistics(), 1e-4)
        agree(largest, f"float32, {steps} steps: parameters", ours.parameters(), theirs.parameters(), 1e-4)


@sizes([(32, 32), (2, 32)])
def test_in_float32_ours_is_as_near_to_float64_as_pytorchs(mall, largest, size, length):
    """One step from the start that PyTorch draws, where float32 cannot decide everything (see `keep_away_from_kinks`).

    The root mean square over 25 batches, of the tensor that is worst.
    """
    found = {}
    for pairs, negatives in islice(plan(mall, size), 25):
        exact, theirs = (Theirs(mall, DeepConfig(), dtype) for dtype in (torch.float64, torch.float32))
        ours = Ours(theirs)
        exact.step(pairs, negatives)
        theirs.step(pairs, negatives)
        ours.step(pairs, negatives, length)
        for kind in ("gradients", "parameters"):
            for whose, one in (("ours", ours), ("PyTorch's", theirs)):
                off = errors(getattr(one, kind)(), getattr(exact, kind)())
                found.setdefault((kind, whose), []).append(list(off.values()))
    worst = {key: np.sqrt(np.mean(np.square(each), axis=0)).max() for key, each in found.items()}
    largest |= {f"float32 to float64, {size} rows, {kind}: {whose}": x for (kind, whose), x in worst.items()}
    assert worst["gradients", "ours"] <= min(1e-4, 3 * worst["gradients", "PyTorch's"])
    assert worst["parameters", "ours"] <= 3 * worst["parameters", "PyTorch's"]
