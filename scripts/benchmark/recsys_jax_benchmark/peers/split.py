"""The bridge to the peers: a fold as its split.npz, and its ranks as answers to our queries."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.sparse import csr_array

from recsys_jax import Dataset, DeepConfig, InputError, stopping
from recsys_jax.data.features import Features, FeatureSpace
from recsys_jax.data.files import replace_file
from recsys_jax.data.schema import Numeric
from recsys_jax.data.splits import Fold, customer_folds
from recsys_jax.evaluation.engine import Answers
from recsys_jax.evaluation.methods import Progress
from recsys_jax.evaluation.report import METRICS, K
from recsys_jax.models import metrics
from recsys_jax.training.batches import prepare
from recsys_jax_benchmark.peers.task import INNER_FOLDS, PARTS, SIDES

NAMES = {"lightfm": "LightFM", "rectools": "RecTools DSSM"}  # in tables
COMMAND = [sys.executable, "-m", "recsys_jax_benchmark.peers"]
BINS = 8  # ranges that a number is divided into, each with about as many of the training rows


def write_split(folder: Path, dataset: Dataset, fold: Fold, seed: int = 0) -> None:
    """Writes the fold as FOLDER/split.npz, as `read_split` reads it.

    Vocabularies and ranges come from the training part. A customer that is both learned from and asked, as in a split
    by time, has a row for each: it is asked by its attributes, as anybody new. `seed` deals the training customers
    into inner folds. Raises `InputError` where the candidates aren't all products, or with very few customers.
    """
    if fold.candidates is not None:
        raise InputError("peers: found the protocol new-products; allowed: those that rank all products")
    prepared = prepare(dataset, DeepConfig(), fold.train)
    train, queries = dataset.purchases[fold.train], dataset.purchases[fold.queries]
    buyers, buyer = np.unique(train[:, 0], return_inverse=True)
    asked, row = np.unique(queries[:, 0], return_inverse=True)
    rows = np.concatenate([buyers, asked])  # the training customers first
    encoded = prepared.customer_space.encode(dataset.customers.select(rows.tolist()))
    customers = attribute_matrix(prepared.customer_space, encoded, len(buyers))
    bought = np.unique(train[:, 1])
    order = np.concatenate([bought, np.setdiff1d(np.arange(len(dataset.product_ids)), bought)])
    encoded = {name: column[order] for name, column in prepared.products.items()}
    products = attribute_matrix(prepared.product_space, encoded, len(bought))
    place = np.argsort(order)
    inner = np.full(len(rows), -1, np.int32)
    inner[: len(buyers)] = customer_folds(len(buyers), INNER_FOLDS, seed)
    earlier = dataset.purchases[fold.train & (not fold.repeats)]
    earlier = earlier[np.isin(earlier[:, 0], asked)]
    owned = np.searchsorted(asked, earlier[:, 0]) + len(buyers), place[earlier[:, 1]]
    arrays: dict[str, Any] = {
        "owned": np.stack(owned, axis=1).astype(np.int32),
        "train": np.stack([buyer, place[train[:, 1]]], axis=1).astype(np.int32),
        "queries": np.stack([row + len(buyers), place[queries[:, 1]]], axis=1).astype(np.int32),
        "inner": inner,
    }
    for side, matrix in zip(SIDES, (customers, products), strict=True):
        arrays |= {f"{side}_{part}": getattr(matrix, part) for part in PARTS}
    replace_file(folder / "split.npz", lambda stream: np.savez(stream, **arrays))


def attribute_matrix(space: FeatureSpace, features: Features, learned: int) -> csr_array:
    """A column per value of each feature, 1 where a row has it; of a number, per range and one where it is missing.

    The ranges are quantiles of the first `learned` rows, the training ones.
    """
    rows, columns, start = [], [], 0
    for fitted in space:
        values = features[fitted.feature.name]
        if isinstance(fitted.feature, Numeric):
            x = values[:, 0]
            missing = values[:, 1] > 0 if values.shape[1] > 1 else np.zeros(len(x), bool)
            stated = x[:learned][~missing[:learned]]
            edges = np.unique(np.quantile(stated, np.arange(1, BINS) / BINS)) if len(stated) else np.zeros(0)
            column = np.where(missing, len(edges) + 1, np.searchsorted(edges, x, side="right"))[:, None]
            size = len(edges) + 2
        else:
            column, size = values.reshape(len(values), -1), fitted.input.size
        where = np.nonzero(column >= 0)
        rows.append(where[0])
        columns.append(column[where] + start)
        start += size
    row, at = np.concatenate(rows), np.concatenate(columns)
    count = len(next(iter(features.values())))
    return csr_array((np.ones(len(row), np.float32), (row, at)), shape=(count, start))


def ask(peer: str, folder: Path, progress: Progress, given: Mapping[str, Any] | None = None) -> Answers:
    """Runs the peer on the folder: it tunes, trains and ranks; it trains a setting that is `given`, untuned.

    The seconds of its answer are of all that, or of the training alone where a setting is given. Raises `InputError`
    with its last words.
    """
    answer = folder / f"peer-{peer}.npz"
    answer.unlink(missing_ok=True)
    said, done, total = [], 0, 0
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with stopping.child(
        [*COMMAND, peer, str(folder), *(["--setting", json.dumps(given)] if given else [])],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if found := re.match(r" *(\d+)/(\d+) +(inner MRR [\d.]+)", line):
                done, total = int(found[1]), int(found[2])
                progress(done, total + 1, f"setting {done}/{total}, {found[3]}")  # all purchases are one more
            else:
                progress(done, total + 1, line.strip()[:40])
    (folder / f"peer-{peer}.log").write_text("".join(said), encoding="utf-8")
    if process.returncode or not answer.is_file():
        last = next((line.strip() for line in reversed(said) if line.strip()), "no word")
        raise InputError(f"{peer} ended with status {process.returncode}: {last.removeprefix('error: ')}")
    return answer_of(peer, folder, given)


def answer_of(peer: str, folder: Path, given: Mapping[str, Any] | None = None) -> Answers:
    """What the peer has written to the folder."""
    with np.load(folder / f"peer-{peer}.npz", allow_pickle=False) as file:
        better, equal, record = file["better"], file["equal"], json.loads(str(file["settings"]))
    chosen = ", ".join(f"{name} {value}" for name, value in record["chosen"].items() if name not in ("every", "most"))
    seconds = float(record["training_seconds" if given else "seconds"])
    return Answers(of_ranks((better, equal)), notes=(chosen,), seconds=seconds)


def of_ranks(ranked: metrics.Ranks) -> dict[str, Float64[np.ndarray, "1 n"]]:
    """The metrics that methods are compared by, of queries whose targets stand at these places.

    >>> found = of_ranks((np.array([0, 1]), np.array([1, 1])))
    >>> found["mrr"].tolist(), found["hit@10"].tolist()
    ([[1.0, 0.5]], [[1.0, 1.0]])
    """
    each = metrics.reciprocal_rank(ranked), metrics.ndcg_at_k(ranked, k=K), metrics.hit_at_k(ranked, k=K)
    return {name: np.asarray(values[None], np.float64) for name, values in zip(METRICS, each, strict=True)}
