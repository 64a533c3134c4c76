"""A trained model at work, measured: a file of customers made a file of recommendations, and single requests."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from recsys_jax_benchmark.process import OURS, Failure, Limits, Measured, Memory, Progress, in_process, in_turns, record
from recsys_jax_benchmark.training import Job

PYTORCH = "PyTorch"
# Products for each customer, and how many requests are timed.
K, CALLS = 10, 5000
# Scores that are no further apart may change places.
TOLERANCE = 1e-5
# The first customers, whose recommendations are compared: a million would take the PyTorch job minutes.
CHECKED = 8192
# Customers at once in the PyTorch job: the fastest of 32 to 4,096 with 100,000 products, and little memory.
BATCH = 64
# Who the model is trained on. Any weights will do.
BUYERS, EPOCHS = 1000, 2


@dataclass(frozen=True)
class Size:
    """How many customers are recommended the best of how many products."""

    customers: int = 50_000
    products: int = 100_000


class Answer(NamedTuple):
    """What was recommended."""

    customers: np.ndarray  # their ids (n,)
    products: np.ndarray  # the ids of the best products (n, k)
    scores: np.ndarray  # their scores (n, k)


def make(limits: Limits, folder: Path, size: Size) -> Iterator[None]:
    """A process that writes what jobs read: products, a model in our form and as a checkpoint, files of customers."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    from recsys_jax import DeepConfig, fit, load_dataset, save_checkpoint, save_model
    from recsys_jax.synthetic.populations import population, write_population

    write_population(population(BUYERS, size.products, seed=0), folder / "shop")
    model = fit(load_dataset(folder / "shop"), DeepConfig(epochs=EPOCHS))
    save_model(model, folder / "run")
    save_checkpoint(model, folder / "model.pth")
    # Of one product alone: nobody asks what these customers bought, and to draw it takes its time.
    customers = arrow.table(population(size.customers, 1, seed=1).customers)
    parquet.write_table(customers, folder / "customers.parquet")
    parquet.write_table(customers[:CHECKED], folder / "checked.parquet")
    yield


def _ours(customers: Path, out: Path, limits: Limits) -> None:
    """The script that a person runs."""
    from recsys_jax.cli.serving import score
    from recsys_jax.console.terminal import keep_what_is_compiled

    keep_what_is_compiled()
    score.main(score.Options(customers, out, customers.parent / "run", top_n=K))


def _torch(customers: Path, out: Path, limits: Limits) -> None:
    """As people write it: portions of the file as data frames, columns by `map`, all scores of a portion, `topk`."""
    import pandas as pd
    import pyarrow as arrow
    import pyarrow.parquet as parquet
    import torch

    from recsys_jax_benchmark.pytorch import reference

    torch.set_num_threads(limits.threads)

    def tensor(column: Any, kind: type = np.int64) -> torch.Tensor:
        return torch.tensor(column.to_numpy(kind), device=limits.torch_device)

    model, brands = reference.load(customers.with_name("model.pth"))
    model.to(limits.torch_device)
    columns = ["product_id", "category", "brand_name", "price"]
    goods = pd.read_parquet(customers.parent / "shop" / "products.parquet", columns=columns)
    ids = goods["product_id"].to_numpy()
    with torch.inference_mode():
        products = model.encode_product(
            {
                "category": tensor(goods["category"].map(reference.CATEGORIES)),
                "brand": tensor(goods["brand_name"].map(brands)),
                "price": tensor((goods["price"] / 200000.0).clip(upper=1.0), np.float32),
            }
        )
        writer = None
        for batch in parquet.ParquetFile(customers).iter_batches(BATCH):
            people = batch.to_pandas()
            vectors = model.encode_customer(
                {
                    "skin_type": tensor(people["skin_type"].map(reference.SKIN_TYPES)),
                    "skin_concern": tensor(people["skin_concern"].map(reference.SKIN_CONCERNS)),
                    "gender": tensor(people["gender"].map(reference.GENDERS)),
                    "age": tensor(people["age"] / 50.0, np.float32),
                }
            )
            cosines, rows = (vectors @ products.T).topk(K)
            best = pd.DataFrame(
                {
                    "user_id": people["user_id"].repeat(K),
                    "place": np.tile(np.arange(1, K + 1, dtype=np.int32), len(people)),
                    "product_id": ids[rows.flatten().cpu().numpy()],
                    "score": ((1.0 + cosines) / 2.0).flatten().cpu().numpy(),
                }
            )
            table = arrow.Table.from_pandas(best, preserve_index=False)
            writer = writer or parquet.ParquetWriter(out, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()


METHODS: dict[str, Callable[[Path, Path, Limits], None]] = {PYTORCH: _torch, OURS: _ours}


def read(path: Path) -> Answer:
    """The recommendations in a file. Raises `Failure` where they are not the best `K` of each customer in turn."""
    import pyarrow.parquet as parquet

    table = parquet.read_table(path)
    places, customers, products, scores = (
        np.array(table.column(name).to_pylist()) for name in ("place", "user_id", "product_id", "score")
    )
    ranks = np.arange(1, K + 1)
    if len(places) % K or (places.reshape(-1, K) != ranks).any() or (customers != customers[::K].repeat(K)).any():
        raise Failure(f"{path.name}: these are not places 1 to {K} of one customer after the other")
    return Answer(customers[::K], products.reshape(-1, K), scores.reshape(-1, K))


def check(found: Answer, reference: Answer) -> str | None:
    """What is wrong with an answer, or None.

    A product has the score that it has in the reference; one that is not there is no better than the reference's
    last, and the other way round. So the products are the same, except where scores are that close.
    """
    if found.products.shape != reference.products.shape or (found.customers != reference.customers).any():
        return "the customers, or how many products each gets, are others"
    if not np.isfinite(found.scores).all():
        return "a score is not a finite number"
    if (np.sort(found.products, axis=1)[:, 1:] == np.sort(found.products, axis=1)[:, :-1]).any():
        return "a product was recommended twice to one customer"
    if np.diff(found.scores, axis=1).max(initial=0.0) > TOLERANCE:
        return "a product stands before a better one"
    same = found.products[:, :, None] == reference.products[:, None, :]  # (n, k, k)
    far = np.where(same, abs(found.scores[:, :, None] - reference.scores[:, None, :]), 0.0)
    new = np.where(same.any(axis=2), -np.inf, found.scores - reference.scores[:, -1:])
    gone = np.where(same.any(axis=1), -np.inf, reference.scores - found.scores[:, -1:])
    for what, by in (("a score is off", far), ("a wrong product is better", new), ("a product missed is better", gone)):
        if by.max() > TOLERANCE:
            customer = found.customers[np.unravel_index(by.argmax(), by.shape)[0]]
            return f"customer {customer}: {what} by {by.max():.2g}; allowed: {TOLERANCE:g}"
    return None


def jobs(size: Size, methods: Sequence[str], repeats: int, limits: Limits, progress: Progress) -> Measured:
    """Per method: seconds of the whole process of every repeat, customers per second, and bytes.

    Compilers' caches hold what the job left there that was checked, as with a job that runs each night. Raises
    `Failure` where the jobs do not recommend the same, before anything is timed: ours is compared with PyTorch's
    whoever is timed.
    """
    import pyarrow.parquet as parquet

    before = 1 + len(METHODS)
    total = before + repeats * len(methods)
    found: Measured = {}
    with TemporaryDirectory(prefix="benchmark-jobs-") as temporary:
        folder = Path(temporary)
        limits = replace(limits, cache=folder / "cache")
        progress(0, total, f"making {size.customers:,} customers and {size.products:,} products")
        prepare(folder, size, limits)
        answers: dict[str, Answer] = {}
        for number, method in enumerate(METHODS):
            progress(1 + number, total, f"{method}, checking")
            out = folder / f"checked-{number}.parquet"
            _run(method, folder / "checked.parquet", out, limits)
            answers[method] = read(out)
        if wrong := check(answers[OURS], answers[PYTORCH]):
            raise Failure(f"the jobs of {OURS} and {PYTORCH} do not recommend the same, so nothing is timed: {wrong}")
        for number, repeat, method in in_turns(methods, repeats):
            progress(before + number, total, f"{method}, repeat {repeat + 1}")
            out = folder / "out.parquet"
            spent, most = _run(method, folder / "customers.parquet", out, limits)
            rows = parquet.ParquetFile(out).metadata.num_rows
            if rows != size.customers * K:
                raise Failure(f"the job, {method}: {rows:,} recommendations; {size.customers * K:,} were wanted")
            record(found, method, time_s=spent, customers_per_s=size.customers / spent, peak_bytes=most)
    return found


def prepare(folder: Path, size: Size, limits: Limits) -> None:
    """Lets `make` write into the folder."""
    with in_process("making the job's files", make, folder, size, limits=limits) as ask:
        ask()


def _run(method: str, customers: Path, out: Path, limits: Limits) -> tuple[float, int]:
    """Seconds from the start of a process to its written file, and its peak memory."""
    began = time.monotonic()
    with in_process(f"the job, {method}", job_child, method, customers, out, limits=limits) as ask:
        written, most = ask()
    return written - began, most


def job_child(limits: Limits, method: str, customers: Path, out: Path) -> Iterator[tuple[float, int]]:
    """The process of one job."""
    METHODS[method](customers, out, limits)
    yield time.monotonic(), Memory(limits.device).peak()


# Single requests.

Request = Callable[[Mapping[str, Any], Sequence[str]], list[dict[str, Any]]]
"""Dictionaries of the best products for a customer's attributes, without those that he bought."""


def _our_requests(job: Job, checkpoint: Path, limits: Limits, **wishes: Any) -> Request:
    from recsys_jax import Recommender

    rec = Recommender.from_torch(checkpoint, products=job.dataset)
    rec.warmup(top_n=K)
    return lambda person, bought: rec.recommend(attributes=person, purchased_products=bought, top_n=K, **wishes)


def _pytorch_requests(job: Job, checkpoint: Path, limits: Limits) -> Request:
    """As people serve it: what does not change is made once, then a tensor per attribute and the tower per request."""
    import torch

    from recsys_jax_benchmark.pytorch import reference

    torch.set_num_threads(limits.threads)
    products = reference.read_rows(job.products)
    brand_map = reference.brands(products)
    torch.manual_seed(0)  # what it recommends does not matter, only that all recommend the same
    model = reference.TwoTower(len(brand_map)).eval()
    reference.save(model, brand_map, checkpoint)
    return answers(model, brand_map, products)


def answers(model: Any, brand_map: Mapping[str, int], products: Sequence[Mapping[str, Any]]) -> Request:
    """Requests as people serve them: the products are embedded once."""
    import torch

    from recsys_jax_benchmark.pytorch import reference

    row_of = {product["product_id"]: row for row, product in enumerate(products)}
    with torch.inference_mode():
        vectors = model.encode_product(
            reference.stack([reference.product_features(product, brand_map) for product in products])
        )

    @torch.inference_mode()
    def request(person: Mapping[str, Any], bought: Sequence[str]) -> list[dict[str, Any]]:
        scores = (1 + vectors @ model.encode_customer(reference.stack([reference.customer_features(person)]))[0]) / 2
        scores[[row_of[product_id] for product_id in bought]] = -torch.inf
        best, rows = scores.topk(min(K, len(products) - len(bought)))
        return [
            {"product_id": products[row]["product_id"], "price": products[row]["price"], "score": score}
            for row, score in zip(rows.tolist(), best.tolist(), strict=True)
        ]

    return request


WISHES: dict[str, dict[str, Any]] = {
    "at_most brand=2": {"at_most": {"brand": 2}},
    "diversity 0.3": {"diversity": 0.3},
    "explain": {"explain": True},
}
REQUESTS: dict[str, Callable[..., Request]] = {
    PYTORCH: _pytorch_requests,
    OURS: _our_requests,
    **{f"{OURS}, {name}": partial(_our_requests, **wishes) for name, wishes in WISHES.items()},
}
"""The last are ours again, with what a list may be asked for beside."""


def requests(job: Job, repeats: int, limits: Limits, checkpoint: Path, progress: Progress) -> Measured:
    """Seconds of the median request and of the one of a hundred that takes longest, in every repeat.

    Raises `Failure` where the methods recommend differently. Both read the checkpoint; the first of them, PyTorch,
    makes it.
    """
    found: Measured = {}
    answers: dict[str, Answer] = {}
    for turn, method in enumerate(REQUESTS):
        progress(turn, len(REQUESTS), method)
        with in_process(f"requests, {method}", requests_child, method, job, checkpoint, limits=limits) as ask:
            answers[method] = ask()
            for _ in range(repeats):
                p50, p99 = ask()
                record(found, method, p50_s=p50, p99_s=p99)
    if wrong := check(answers[OURS], answers[PYTORCH]):
        raise Failure(f"requests: {OURS} and {PYTORCH} do not recommend the same: {wrong}")
    return found


def requests_child(limits: Limits, method: str, job: Job, checkpoint: Path) -> Iterator[Any]:
    """A process that answers all customers that the model was trained on, and then is timed, again and again."""
    people = json.loads(job.customers.read_text("utf-8"))
    names = ("age", "gender", "skin_type", "skin_concern")
    asked = [({name: one[name] for name in names}, [one["purchased_product_id"]]) for one in people]
    request = REQUESTS[method](job, checkpoint, limits)
    found = [request(*each) for each in asked]
    products, scores = (np.array([[one[name] for one in best] for best in found]) for name in ("product_id", "score"))
    yield Answer(np.arange(len(asked)), products, scores)
    while True:
        times = np.empty(CALLS)
        for call in range(CALLS):
            person, bought = asked[call % len(asked)]
            began = time.perf_counter()
            request(person, bought)
            times[call] = time.perf_counter() - began
        yield float(np.median(times)), float(np.quantile(times, 0.99))
