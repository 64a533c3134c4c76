"""What trained models are used for, measured: single requests, and many seeds trained at once.

`requests` and `seeds` are the benchmark's side; run with `-m`, this is one contender's process.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from recsys_jax_benchmark.process import Failure, Limits, Process, serve
from recsys_jax_benchmark.training import OURS, Job

__all__ = ["ALONE", "REQUESTERS", "TOGETHER", "differ", "requests", "seeds"]

PYTORCH = "PyTorch"
REQUESTERS = (PYTORCH, OURS)
TOP, CALLS = 10, 5000
ALONE, TOGETHER = "one model", "at once"

Request = Callable[[Mapping[str, Any], Sequence[str]], list[dict[str, Any]]]
"""Dictionaries of the best products for a customer's attributes, without those that he bought."""

Ranked = Sequence[tuple[str, float]]
"""Products' ids and scores, best first."""


def _ours(job: Job) -> Request:
    from recsys_jax import Recommender

    rec = Recommender.from_torch(job.out, products=job.dataset)
    rec.warmup(top_n=TOP)
    return lambda person, bought: rec.recommend(**person, purchased_products=bought, top_n=TOP)


def _pytorch(job: Job) -> Request:
    """As people serve it: what does not change is made once, then a tensor per attribute and the tower per request."""
    import torch

    from recsys_jax_benchmark import torch_reference as twin

    torch.set_num_threads(job.threads)
    products, out = twin.read_rows(Path(job.products)), Path(job.out)
    if not out.exists():  # what it recommends does not matter, only that all recommend the same
        torch.manual_seed(job.seed)
        twin.save(twin.TwoTower(len(twin.brands(products))), twin.brands(products), out)
    model, brand_map = twin.load(out)
    model.eval()
    row_of = {product["product_id"]: row for row, product in enumerate(products)}
    with torch.inference_mode():
        vectors = model.encode_product(twin.stack([twin.product_features(product, brand_map) for product in products]))

    @torch.inference_mode()
    def request(person: Mapping[str, Any], bought: Sequence[str]) -> list[dict[str, Any]]:
        scores = (1 + vectors @ model.encode_customer(twin.stack([twin.customer_features(person)]))[0]) / 2
        scores[[row_of[product_id] for product_id in bought]] = -torch.inf
        best, rows = scores.topk(min(TOP, len(products) - len(bought)))
        return [
            {"product_id": products[row]["product_id"], "price": products[row]["price"], "score": score}
            for row, score in zip(rows.tolist(), best.tolist(), strict=True)
        ]

    return request


def requests(job: Job, contenders: Sequence[str], repeats: int, progress: Callable[..., None]) -> Any:
    """Seconds of the median request and of the one of a hundred that takes longest, in every repeat.

    Raises `Failure` where the contenders recommend differently. `job.out` is a checkpoint that all of them read; the
    first of them, PyTorch, makes it.
    """
    found: dict[str, dict[str, list[float | None]]] = {}
    answers: dict[str, list[Ranked]] = {}
    for turn, contender in enumerate(contenders):
        progress(turn, len(contenders), contender)
        with _started(job, contender) as process:
            answers[contender] = process.ask("answer")
            times = [process.ask("measure") for _ in range(repeats)]
        found[contender] = {"p50_s": [one[0] for one in times], "p99_s": [one[1] for one in times]}
    for contender in contenders:
        for one, other in zip(answers[contender], answers[contenders[0]], strict=True):
            if differ(one, other):
                raise Failure(f"requests: {contender} recommends {one}, {contenders[0]} {other}")
    return found


def differ(one: Ranked, other: Ranked) -> bool:
    """Whether two rankings differ by more than rounding: in a score, or in a product that no other comes near to."""
    # Who competes for the last place is not known.
    names = any(a[0] != b[0] for a, b in zip(one[:-1], other, strict=False) if _apart(b, other))
    return names or len(one) != len(other) or max(abs(a[1] - b[1]) for a, b in zip(one, other, strict=True)) > 1e-5


def _apart(place: tuple[str, float], ranking: Ranked) -> bool:
    """Whether no other product has almost the same score, and could stand there as well."""
    return sum(abs(place[1] - other[1]) < 1e-5 for other in ranking) == 1


def seeds(job: Job, count: int, repeats: int, progress: Callable[..., None]) -> Any:
    """Seconds that one model takes to train, and that `count` of them take at once, each without compiling."""
    found: dict[str, dict[str, list[float | None]]] = {}
    for turn, (name, number) in enumerate(((ALONE, 1), (TOGETHER, count))):
        progress(turn, 2, name)
        with _started(replace(job, trainings=number), name) as process:
            process.ask("train")
            found[name] = {"time_s": [process.ask("train") for _ in range(repeats)]}
    return found


def _started(job: Job, contender: str) -> Process:
    own = replace(job, contender=contender)
    limits = Limits(job.threads, job.device, cache=Path(job.out).parent / f"cache, {contender}")
    return Process(f"models, {contender}", "recsys_jax_benchmark.models", json.dumps(asdict(own)), limits=limits)


def _child() -> None:
    job = Job(**json.loads(sys.argv[1]))
    if job.contender in REQUESTERS:
        _serve_requests(job)
    else:
        _serve_trainings(job)


def _serve_requests(job: Job) -> None:
    people = json.loads(Path(job.customers).read_text("utf-8"))
    names = ("age", "gender", "skin_type", "skin_concern")
    asked = [({name: one[name] for name in names}, [one["purchased_product_id"]]) for one in people]
    request = (_ours if job.contender == OURS else _pytorch)(job)

    def answer() -> list[Ranked]:
        return [[(one["product_id"], one["score"]) for one in request(*each)] for each in asked]

    def measure() -> tuple[float, float]:
        times = np.empty(CALLS)
        for call in range(CALLS):
            person, bought = asked[call % len(asked)]
            began = time.perf_counter()
            request(person, bought)
            times[call] = time.perf_counter() - began
        return float(np.median(times)), float(np.quantile(times, 0.99))

    serve({"answer": answer, "measure": measure})


def _serve_trainings(job: Job) -> None:
    from recsys_jax import DeepConfig, fit, load_dataset
    from recsys_jax.console.terminal import share_processors
    from recsys_jax.training.loop import fit_seeds

    config = DeepConfig(epochs=job.epochs)
    share_processors(config, job.trainings)
    dataset = load_dataset(job.dataset, job.customers)

    def train() -> float:
        began = time.perf_counter()
        if job.trainings == 1:
            fit(dataset, config)
        else:
            fit_seeds(dataset, config, range(job.trainings))
        return time.perf_counter() - began

    serve({"train": train})


if __name__ == "__main__":
    _child()
