"""What a peer is given, read from split.npz, and how its answer is measured; nothing of ours is imported."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]

INNER_FOLDS = 4
THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))
SIDES, PARTS = ("customers", "products"), ("indptr", "indices", "data", "shape")
"""The arrays of split.npz that are the attributes: customers_data and so on."""


class InputError(Exception):
    """What is wrong with the input, as a sentence."""


class Diverged(Exception):
    """The peer's numbers are no longer finite."""


@dataclass(frozen=True)
class Split:
    """Attributes of all customers and products, who bought what, and what is asked for."""

    customers: Any  # CSR, one row per customer
    products: Any  # CSR, one row per product
    train: Ints  # (n, 2): customer row, product row
    queries: Ints  # (m, 2) likewise, of other customers
    inner: Ints  # the inner fold of each training customer, -1 for the others
    owned: Ints  # (o, 2): customer row, product row, of what customers who are asked bought before and is not ranked


def read_split(folder: Path) -> Split:
    """The split.npz of the folder, as `split.write_split` wrote it. Raises `InputError` where it is no such file."""
    path = folder / "split.npz"
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; FOLDER is a folder with a split.npz")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = dict(file)
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: this is no file of numpy.savez without objects ({error})") from None
    for name in ("train", "queries", "inner", "owned", *(f"{side}_{part}" for side in SIDES for part in PARTS)):
        if name not in arrays:
            raise InputError(f"{path}: the array {name} is missing; found: {', '.join(arrays) or 'none'}")

    def matrix(side: str) -> Any:
        indptr, indices, data, shape = (arrays[f"{side}_{part}"] for part in PARTS)
        return sparse.csr_matrix((data, indices, indptr), shape=tuple(map(int, shape)), dtype=np.float32)

    pairs = (arrays[name] for name in ("train", "queries", "inner", "owned"))
    return Split(matrix("customers"), matrix("products"), *pairs)


@dataclass(frozen=True)
class Task:
    """What a peer may train on, and who is asked about: by attributes alone, each kind of customer once."""

    customers: Any  # CSR, the attributes of the training customers
    products: Any  # CSR, the attributes of the products that occur in training; no others are ranked
    pairs: Ints  # (n, 2): row of `customers`, row of `products`
    asked: Any  # CSR, the attributes that occur among the queries' customers
    rows: Ints  # for each query the row of `asked`
    targets: Ints  # for each query the row of `products`, -1 where it does not occur in training
    owned: Any  # CSR, for each query the products that are not ranked

    @classmethod
    def of(cls, split: Split, train: Ints, queries: Ints) -> Task:
        """The task to answer the queries after training on the pairs of `train`."""
        people, customer = np.unique(train[:, 0], return_inverse=True)
        candidates, product = np.unique(train[:, 1], return_inverse=True)
        place = np.full(split.products.shape[0], -1)
        place[candidates] = np.arange(len(candidates))
        asked, rows = np.unique(queries[:, 0], return_inverse=True)
        kinds, kind = distinct(split.customers[asked].toarray())
        there = np.isin(split.owned[:, 0], asked) & (place[split.owned[:, 1]] >= 0)
        owned = np.searchsorted(asked, split.owned[there, 0]), place[split.owned[there, 1]]
        shape = len(asked), len(candidates)
        return cls(
            split.customers[people],
            split.products[candidates],
            np.stack([customer, product], 1),
            sparse.csr_matrix(kinds),
            kind[rows],
            place[queries[:, 1]],
            sparse.csr_matrix((np.ones(len(owned[0]), np.int32), owned), shape=shape)[rows],
        )


def outer_task(split: Split) -> Task:
    """All training customers answer for the held-out ones."""
    return Task.of(split, split.train, split.queries)


def inner_task(split: Split) -> Task:
    """The training customers outside inner fold 0 answer for those in it; the queries play no part."""
    held = split.inner[split.train[:, 0]] == 0
    return Task.of(split, split.train[~held], split.train[held])


def distinct(rows: Floats) -> tuple[Floats, Ints]:
    """The rows without repetition, and for each row where it is among them."""
    found, where = np.unique(rows, axis=0, return_inverse=True)
    return found, where.ravel()


def score_products(customers: Floats, products: Floats, bias: Floats) -> Floats:
    """Customers times products plus bias. Products that are alike score exactly alike, whatever the order of adding."""
    unlike, where = distinct(np.column_stack([products, bias]).astype(np.float64))
    scores: Floats = customers.astype(np.float64) @ unlike[:, :-1].T + unlike[:, -1]
    return scores[:, where]


def ranks(scores: Floats, rows: Ints, targets: Ints, owned: Any = None) -> tuple[Ints, Ints]:
    """For each query how many products score strictly better than its target, and how many as much, itself included.

    What is `owned` is not ranked. A target of -1 was not to be had: every product is better.
    """
    better = np.full(len(rows), scores.shape[1], np.int32)
    if owned is not None:
        better -= np.asarray(owned.sum(axis=1)).ravel().astype(np.int32)
    equal = np.ones(len(rows), np.int32)
    known = np.flatnonzero(targets >= 0)
    for start in range(0, len(known), 4096):
        block = known[start : start + 4096]
        found = scores[rows[block]]
        if owned is not None:
            found = found.astype(np.float64)
            found[owned[block].nonzero()] = -np.inf
        own = found[np.arange(len(block)), targets[block]][:, None]
        better[block] = (found > own).sum(1)
        equal[block] = (found == own).sum(1)
    return better, equal


def mrr(better: Ints, equal: Ints) -> float:
    """The mean over the queries of 1 / rank, in expectation where ties are broken at random."""
    total = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, int((better + equal).max()) + 1))])
    return float(((total[better + equal] - total[better]) / equal).mean())


def measure(task: Task, scores: Floats) -> float:
    """The MRR of the scores of each kind of customer asked for. Raises `Diverged` where one is not finite."""
    if not np.isfinite(scores).all():
        raise Diverged
    return mrr(*ranks(scores, task.rows, task.targets, task.owned))


def popularity(task: Task) -> Floats:
    """Everybody is given what sold most."""
    counts = np.bincount(task.pairs[:, 1], minlength=task.products.shape[0]).astype(float)
    return np.broadcast_to(counts, (task.asked.shape[0], len(counts)))
