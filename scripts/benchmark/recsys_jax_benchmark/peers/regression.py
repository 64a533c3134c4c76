"""Multinomial logistic regression of the product on the customer's attributes, by PyTorch and by scikit-learn.

Both find the least of mean(logsumexp(logits) - logit of the product) + penalty / 2n |weights|², by L-BFGS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .task import THREADS, Floats, Task, distinct

Setting = Mapping[str, Any]
STEPS = 100  # of L-BFGS, at most: scikit-learn's own default
STILL = 1e-3  # it ends where no entry of the gradient is more than this part of the mean share of a product


def settings(task: Task) -> list[Setting]:
    """Penalties; each is fitted to the end, so there is one epoch."""
    return [{"penalty": penalty, "every": 1, "most": 1} for penalty in (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)]


def train_torch(task: Task, setting: Setting, watch: Callable[[int, Callable[[], Floats]], bool]) -> None:
    """By `torch.optim.LBFGS`: customers with the same attributes are one row, and sums of purchases are taken once."""
    import torch

    torch.set_num_threads(THREADS)
    count, products = len(task.pairs), task.products.shape[0]
    kinds, kind = distinct(task.customers.toarray())
    bought = np.zeros((kinds.shape[1], products), np.float32)  # how often, by attribute and product
    rows, product = kinds[kind[task.pairs[:, 0]]], task.pairs[:, 1]
    for column in range(kinds.shape[1]):
        bought[column] = np.bincount(product, rows[:, column], minlength=products)
    x, wanted = torch.from_numpy(kinds), torch.from_numpy(bought / count)
    shares = torch.from_numpy(np.bincount(kind[task.pairs[:, 0]], minlength=len(kinds)).astype(np.float32) / count)
    means = torch.from_numpy(np.bincount(product, minlength=products).astype(np.float32) / count)
    weights, bias = torch.zeros_like(wanted, requires_grad=True), torch.zeros_like(means, requires_grad=True)
    lbfgs = torch.optim.LBFGS(
        [weights, bias],
        max_iter=STEPS,
        tolerance_grad=STILL / products,
        tolerance_change=0.0,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Any:
        lbfgs.zero_grad()
        lost = shares @ torch.logsumexp(torch.addmm(bias, x, weights), 1) - (wanted * weights).sum() - means @ bias
        lost = lost + setting["penalty"] / (2 * count) * (weights**2).sum()
        lost.backward()
        return lost

    lbfgs.step(loss)  # type: ignore[no-untyped-call]
    watch(1, lambda: task.asked @ weights.detach().numpy() + bias.detach().numpy())


def train_sklearn(task: Task, setting: Setting, watch: Callable[[int, Callable[[], Floats]], bool]) -> None:
    """By `LogisticRegression`, a row for each purchase."""
    from sklearn.linear_model import LogisticRegression

    still = STILL / task.products.shape[0]
    model = LogisticRegression(C=1 / setting["penalty"], max_iter=STEPS, tol=still)
    model.fit(task.customers[task.pairs[:, 0]], task.pairs[:, 1])
    watch(1, lambda: task.asked @ model.coef_.T + model.intercept_)
