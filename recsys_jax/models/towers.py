"""The two towers as one pure Flax module, each with a wide path, a deep path, or both."""

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt16

from recsys_jax.data.schema import TowerInput
from recsys_jax.models.basis import KNOTS, hats
from recsys_jax.models.settings import full_precision, own_settings, plain_settings

Variables = Mapping[str, Any]


def _dense(name: str, width: int, fan_in: int) -> nn.Dense:
    """A layer whose weight and bias are U(-1/sqrt(fan_in), 1/sqrt(fan_in)), as `torch.nn.Linear` draws them."""
    init = partial(_uniform, fan_in**-0.5)
    return nn.Dense(width, kernel_init=init, bias_init=init, name=name)


def _uniform(bound: float, key: Array, shape: Any, dtype: Any = jnp.float32) -> Array:
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def _root(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The square root of 0 or more, with the gradient 0 instead of infinity at 0."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


class BatchNorm(nn.Module):
    """Batch normalisation as in PyTorch: the batch's biased variance normalises, the unbiased one is remembered.

    Flax's own remembers the biased variance, which differs by n / (n - 1): 3 % in a batch of 32.
    """

    momentum: float = 0.9
    """The share of the old running statistics that is kept: PyTorch's `momentum` is 1 minus this."""
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self, x: Float[Array, "n d"], *, train: bool, mask: Bool[Array, " b"] | None = None, passes: int = 1
    ) -> Float[Array, "n d"]:
        """Normalises each column; rows where `mask` is false are padding and do not count.

        The n rows are `passes` batches of b, one after the other. Each is normalised by statistics of its own, and
        the running ones move on by one after the other, as if each had come alone.
        """
        width = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (width,))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (width,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (width,))
        if not train:
            return (x - running_mean.value) * (jax.lax.rsqrt(running_var.value + self.epsilon) * scale) + bias
        # Sums, and no dimension of length 1: as matrix products, or with such a dimension, XLA takes twice as long.
        rows = x if passes == 1 else x.reshape(passes, -1, width)
        weight = jnp.ones(rows.shape[-2]) if mask is None else mask.astype(x.dtype)
        count = weight.sum()
        share = weight[:, None] / count
        mean = jnp.sum(share * rows, axis=-2, keepdims=True)
        centred = rows - mean
        var = jnp.sum(share * jnp.square(centred), axis=-2, keepdims=True)
        unbiased = var * (count / jnp.maximum(count - 1.0, 1.0))
        for one_mean, one_var in zip(mean.reshape(passes, width), unbiased.reshape(passes, width), strict=True):
            running_mean.value = self.momentum * running_mean.value + (1 - self.momentum) * one_mean
            running_var.value = self.momentum * running_var.value + (1 - self.momentum) * one_var
        return (centred * (jax.lax.rsqrt(var + self.epsilon) * scale) + bias).reshape(x.shape)


class DeepPath(nn.Module):
    """Embeddings and numbers -> Linear -> ReLU -> BatchNorm -> Dropout -> Linear -> unit length."""

    inputs: tuple[TowerInput, ...]
    embedding_dim: int
    hidden_dim: int
    output_dim: int
    dropout: float

    @nn.compact
    def __call__(
        self,
        features: Mapping[str, Array],
        noise: UInt16[Array, "n h"] | None,
        mask: Bool[Array, " b"] | None,
        passes: int,
    ) -> Float[Array, "n d"]:
        """Unit vectors (n, output_dim); the arguments are those of `Tower`."""
        parts = []
        for name, kind, size in self.inputs:
            part = features[name]
            if kind != "numeric":
                table = self.param(f"{name}_emb", nn.initializers.normal(1.0), (size, self.embedding_dim))
                if kind == "categorical":
                    part = table[part]
                else:  # the mean over the values a row has, (n, m, e) -> (n, e); zero where it has none
                    present = (part >= 0)[..., None]
                    total = jnp.where(present, table[jnp.maximum(part, 0)], 0.0).sum(axis=1)
                    part = total / jnp.maximum(present.sum(axis=1), 1)
            parts.append(part)
        x = jnp.concatenate(parts, axis=-1)
        x = nn.relu(_dense("hidden", self.hidden_dim, x.shape[-1])(x))
        x = BatchNorm(name="norm")(x, train=noise is not None, mask=mask, passes=passes)
        if noise is not None and self.dropout:
            # 16 random bits a unit: half of what a float would take, and the rate is right to 1 / 65,536.
            x = jnp.where(noise >= min(round(self.dropout * 2**16), 2**16 - 1), x / (1.0 - self.dropout), 0.0)
        x = _dense("output", self.output_dim, self.hidden_dim)(x)
        # x / max(|x|, 1e-12), written so that its gradient is finite at zero.
        return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-24))


class WidePath(nn.Module):
    r"""$o + \sum_f E_f[x_f]$: a vector per attribute value; a number's is interpolated between knots."""

    inputs: tuple[TowerInput, ...]
    dim: int

    @nn.compact
    def __call__(self, features: Mapping[str, Array]) -> Float[Array, "n d"]:
        """Sums (n, dim) of n rows of features."""
        zeros, small = nn.initializers.zeros, nn.initializers.normal(_SMALL)
        count = len(next(iter(features.values())))
        total = jnp.broadcast_to(self.param("offset", zeros, (self.dim,)), (count, self.dim))
        for name, kind, size in self.inputs:
            x = features[name]
            table = self.param(f"{name}_emb", small, (KNOTS if kind == "numeric" else size, self.dim))
            if kind == "numeric":
                knots = self.param(f"{name}_knots", lambda *_: jnp.linspace(0.0, 1.0, KNOTS), (KNOTS,))
                part = hats(x[:, 0], knots) @ table
                if size == 2:  # flagged as missing: a vector of its own
                    part = jnp.where(x[:, 1:] > 0, self.param(f"{name}_missing", zeros, (self.dim,)), part)
            else:
                rows = x[:, None] if x.ndim == 1 else x
                part = jnp.sum(jnp.where((rows >= 0)[..., None], table[rows], 0.0), axis=1)
            total = total + part
        return total


_SMALL = 0.01  # With zeros on both sides, both gradients would be zero and nothing would ever move.


class Tower(nn.Module):
    r"""One side: its deep path's unit vector; or, with a wide path, what both paths give side by side, y, in a ball.

    A ball of radius r is brought to unit length by $(y / r, \sqrt{1 - |y / r|^2})$. The last number goes into one of
    two dimensions, a different one on each side: it meets a zero, so the dot product of two unit vectors is that of the
    y, divided by both radii. What lies outside the ball is moved to its surface.
    """

    deep: DeepPath | None
    wide: WidePath | None = None
    side: int = 0
    """0: customers, 1: products."""

    @nn.compact
    def __call__(
        self,
        features: Mapping[str, Array],
        *,
        noise: UInt16[Array, "n h"] | None = None,
        mask: Bool[Array, " b"] | None = None,
        passes: int = 1,
    ) -> Float[Array, "n d"]:
        """Unit vectors of n rows of features.

        Random bits, `noise`, make this a pass of training: they decide which hidden units drop out, and the statistics
        of the batch normalise, in which the rows of `mask` count. `passes`: how many batches the rows are.
        """
        parts = [] if self.wide is None else [self.wide(features)]
        if self.deep is not None:
            vector = self.deep(features, noise, mask, passes)
            if self.wide is None:
                return vector
            # Zero on one side: the start is the wide path alone, and yet its gradient is not zero.
            scale = self.param("deep_scale", nn.initializers.constant(1.0 - self.side), ())
            parts.append(scale * vector)
        y = jnp.concatenate(parts, axis=1)
        radius = self.param("radius", nn.initializers.ones, ())
        if self.deep is not None:  # the ball of the wide path, with room for the deep one's vector
            radius = jnp.hypot(radius, scale)
        y = y / jnp.maximum(radius, _root(jnp.sum(y * y, axis=1, keepdims=True)))
        rest = _root(jnp.maximum(1.0 - jnp.sum(y * y, axis=1, keepdims=True), 0.0))
        none = jnp.zeros_like(rest)
        return jnp.concatenate([y, *((rest, none) if self.side == 0 else (none, rest))], axis=1)


class TwoTower(nn.Module):
    """A customer tower and a product tower that map into one space; as published: the deep path alone."""

    customer_inputs: tuple[TowerInput, ...]
    product_inputs: tuple[TowerInput, ...]
    embedding_dim: int = 16
    hidden_dim: int = 64
    output_dim: int = 32
    """Of the deep path."""
    dropout: float = 0.2
    wide_dim: int = 0
    """Of the wide path; 0: there is none."""
    deep: bool = True
    """Whether there is a deep path."""

    def setup(self) -> None:
        """Makes the towers; Flax calls it."""
        sizes = (self.embedding_dim, self.hidden_dim, self.output_dim, self.dropout)
        self.customer, self.product = (
            Tower(
                DeepPath(inputs, *sizes) if self.deep else None,
                WidePath(inputs, self.wide_dim) if self.wide_dim else None,
                side,
            )
            for side, inputs in enumerate((self.customer_inputs, self.product_inputs))
        )

    def __call__(
        self, customers: Mapping[str, Array], products: Mapping[str, Array]
    ) -> tuple[Float[Array, "n d"], Float[Array, "p d"]]:
        """Both sides' unit vectors, as when serving."""
        return self.customer(customers), self.product(products)

    def encode_customers(self, features: Mapping[str, Array], **kwargs: Any) -> Float[Array, "n d"]:
        """The customer tower alone; the arguments are those of `Tower`."""
        return self.customer(features, **kwargs)

    def encode_products(self, features: Mapping[str, Array], **kwargs: Any) -> Float[Array, "n d"]:
        """The product tower alone; the arguments are those of `Tower`."""
        return self.product(features, **kwargs)

    def shapes(self, customers: Mapping[str, Any], products: Mapping[str, Any]) -> dict[str, Any]:
        """The tree that `init` gives for a row of features each, as shapes and types: nothing is computed."""
        sides = (tuple((name, part.shape, part.dtype) for name, part in side.items()) for side in (customers, products))
        return jax.tree.map(lambda leaf: leaf, _shapes(self, *sides))  # type: ignore[no-any-return]


# Tracing takes longer than all else that loading a small model does, and who loads one again has the same shapes.
@lru_cache(maxsize=32)
@plain_settings()
def _shapes(model: TwoTower, *sides: tuple[tuple[str, tuple[int, ...], np.dtype], ...]) -> dict[str, Any]:
    rows = ({name: jax.ShapeDtypeStruct(shape, kind) for name, shape, kind in side} for side in sides)  # type: ignore[no-untyped-call]
    return jax.eval_shape(lambda *sides: model.init(jax.random.key(0), *sides), *rows)  # type: ignore[no-any-return]


def initial_variables(
    model: TwoTower, customers: Mapping[str, Any], products: Mapping[str, Any], *, seed: np.random.SeedSequence
) -> dict[str, Any]:
    """What `model.init` gives of a row of features each, from the same distributions, but drawn by NumPy.

    XLA would compile it for two seconds. Only the shapes of the rows matter.
    """
    tree = model.shapes(customers, products)
    rng = np.random.default_rng(seed)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        collection, side, *layers, name = (step.key for step in path)
        if name.endswith("_emb"):
            scale = np.float32(_SMALL if layers == ["wide"] else 1.0)
            return np.asarray(scale * rng.standard_normal(leaf.shape, np.float32))
        if name.endswith("_knots"):
            return np.linspace(0.0, 1.0, KNOTS, dtype=np.float32)
        if layers == ["deep", "norm"]:
            return np.full(leaf.shape, name in ("scale", "var"), np.float32)
        if layers[:1] == ["deep"]:
            bound = tree[collection][side]["deep"][layers[1]]["kernel"].shape[0] ** -0.5
            return np.asarray(rng.uniform(-bound, bound, leaf.shape), np.float32)
        start = {"radius": 1.0, "deep_scale": float(side == "customer"), "offset": 0.0}
        return np.full(leaf.shape, 0.0 if name.endswith("_missing") else start[name], np.float32)

    return jax.tree_util.tree_map_with_path(draw, tree)  # type: ignore[no-any-return]


@own_settings()
@partial(jax.jit, static_argnames="model")
@full_precision
def encode_customers(model: nn.Module, variables: Variables, features: Mapping[str, Array]) -> Float[Array, "n d"]:
    """Unit vectors of customers, as when serving: running statistics, no dropout."""
    return model.apply(variables, features, method="encode_customers")  # type: ignore[return-value]


@own_settings()
@partial(jax.jit, static_argnames="model")
@full_precision
def encode_products(model: nn.Module, variables: Variables, features: Mapping[str, Array]) -> Float[Array, "p d"]:
    """Unit vectors of products, as when serving: running statistics, no dropout."""
    return model.apply(variables, features, method="encode_products")  # type: ignore[return-value]
