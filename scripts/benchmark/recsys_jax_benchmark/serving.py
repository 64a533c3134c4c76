"""A trained model at work, measured: a file of customers made a file of recommendations, and single requests."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from recsys_jax_benchmark import training
from recsys_jax_benchmark.process import Failure, Limits, Measured, Process, Progress, in_turns, peak

OURS, PYTORCH = "recsys_jax", "PyTorch"
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


@dataclass(frozen=True)
class Job:
    """One process: the folder that `make` filled, the file of customers there, and the file to write."""

    method: str
    folder: str
    customers: str
    out: str
    threads: int
    device: str


class Answer(NamedTuple):
    """What a job wrote."""

    customers: np.ndarray
    """Their ids (n,)."""
    products: np.ndarray
    """The ids of the best products (n, k)."""
    scores: np.ndarray
    """Their scores (n, k)."""


def make(folder: Path, size: Size) -> None:
    """Writes what all jobs read: the products, a model in our form and as a checkpoint, and files of customers."""
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


def _ours(job: Job) -> None:
    """The script that a person runs."""
    from recsys_jax.cli import score
    from recsys_jax.console.terminal import keep_what_is_compiled

    keep_what_is_compiled()
    folder = Path(job.folder)
    score.main(score.Options(folder / job.customers, folder / job.out, folder / "run", top_n=K))


def _torch(job: Job) -> None:
    """As people write it: portions of the file as data frames, columns by `map`, all scores of a portion, `topk`."""
    import pandas as pd
    import pyarrow as arrow
    import pyarrow.parquet as parquet
    import torch

    from recsys_jax_benchmark.pytorch import reference

    torch.set_num_threads(job.threads)
    where, folder = "cuda" if job.device == "gpu" else "cpu", Path(job.folder)

    def tensor(column: Any, kind: type = np.int64) -> torch.Tensor:
        return torch.tensor(column.to_numpy(kind), device=where)

    model, brands = reference.load(folder / "model.pth")
    model.to(where)
    goods = pd.read_parquet(
        folder / "shop" / "products.parquet", columns=["product_id", *("category", "brand_name", "price")]
    )
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
        for batch in parquet.ParquetFile(folder / job.customers).iter_batches(BATCH):
            people = batch.to_pandas()
            customers = model.encode_customer(
                {
                    "skin_type": tensor(people["skin_type"].map(reference.SKIN_TYPES)),
                    "skin_concern": tensor(people["skin_concern"].map(reference.SKIN_CONCERNS)),
                    "gender": tensor(people["gender"].map(reference.GENDERS)),
                    "age": tensor(people["age"] / 50.0, np.float32),
                }
            )
            cosines, rows = (customers @ products.T).topk(K)
            best = pd.DataFrame(
                {
                    "user_id": people["user_id"].repeat(K),
                    "place": np.tile(np.arange(1, K + 1, dtype=np.int32), len(people)),
                    "product_id": ids[rows.flatten().cpu().numpy()],
                    "score": ((1.0 + cosines) / 2.0).flatten().cpu().numpy(),
                }
            )
            table = arrow.Table.from_pandas(best, preserve_index=False)
            writer = writer or parquet.ParquetWriter(folder / job.out, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()


METHODS: dict[str, Callable[[Job], None]] = {PYTORCH: _torch, OURS: _ours}


def read(path: Path) -> Answer:
    """The recommendations in a file. Raises `Failure` where they are not the best `K` of each customer in turn."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    table = parquet.read_table(path)
    places = table.column("place").to_numpy()
    if len(places) % K or (places.reshape(-1, K) != np.arange(1, K + 1)).any():
        raise Failure(f"{path.name}: the places are not 1 to {K} of one customer after the other")
    products = np.array(table.column("product_id").cast(arrow.string()).to_pylist())
    customers = np.array(table.column("user_id").to_pylist())
    scores = table.column("score").to_numpy().reshape(-1, K)
    if (customers.reshape(-1, K) != customers[::K, None]).any():
        raise Failure(f"{path.name}: places 1 to {K} are not one customer's")
    return Answer(customers[::K], products.reshape(-1, K), scores)


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

    Compilers' caches hold what the job left there that was checked, as with a job that runs each night; its own time,
    the first, is given where it had all customers to do. Raises `Failure` where the jobs do not recommend the same,
    before anything is timed.

    Args:
        size: how many customers and products.
        methods: who is timed; ours is compared with PyTorch's in any case.
        repeats: how often each is timed.
        limits: of each process; `cache` is passed over for a folder that is empty at first.
        progress: called with how much is done.
    """
    if size.products < K:
        raise Failure(f"the job: {size.products} products; recommended are {K}")
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
            out = f"checked-{number}.parquet"
            spent, _ = _run(Job(method, temporary, "checked.parquet", out, limits.threads, limits.device), limits)
            answers[method] = read(folder / out)
            first = spent if size.customers <= CHECKED else None
            found[method] = {"time_s": [], "customers_per_s": [], "peak_bytes": [], "first_process_s": [first]}
        if wrong := check(answers[OURS], answers[PYTORCH]):
            raise Failure(f"the jobs of {OURS} and {PYTORCH} do not recommend the same, so nothing is timed: {wrong}")
        for number, repeat, method in in_turns(methods, repeats):
            progress(before + number, total, f"{method}, repeat {repeat + 1}")
            job = Job(method, temporary, "customers.parquet", "out.parquet", limits.threads, limits.device)
            spent, most = _run(job, limits)
            _check_rows(folder / job.out, method, size)
            for name, value in (("time_s", spent), ("customers_per_s", size.customers / spent), ("peak_bytes", most)):
                found[method][name].append(value)
    return {method: found[method] for method in methods}


def prepare(folder: Path, size: Size, limits: Limits) -> None:
    """`make`, in a process: nothing computes in the benchmark's."""
    with Process("making the job's files", make_child, str(folder), asdict(size), limits=limits) as process:
        process.ask("make")


def make_child(folder: str, size: Mapping[str, int]) -> dict[str, Callable[[], object]]:
    """The process that makes what all jobs read."""
    return {"make": lambda: make(Path(folder), Size(**size))}


def _run(job: Job, limits: Limits) -> tuple[float, int]:
    """Seconds from the start of a process to its written file, and its peak memory."""
    with Process(f"the job, {job.method}", job_child, asdict(job), limits=limits) as process:
        written, most = process.ask("run")
        return written - process.started, most


def job_child(job: Mapping[str, Any]) -> dict[str, Callable[[], object]]:
    """The process of one job."""

    def run() -> tuple[float, int]:
        METHODS[job["method"]](Job(**job))
        return time.monotonic(), peak(job["device"])

    return {"run": run}


def _check_rows(path: Path, method: str, size: Size) -> None:
    """Raises `Failure` where a timed job did not do all of it."""
    import pyarrow.parquet as parquet

    rows = parquet.ParquetFile(path).metadata.num_rows
    if rows != size.customers * K:
        raise Failure(f"the job, {method}: {rows:,} recommendations; {size.customers * K:,} were wanted")


# Single requests.

Request = Callable[[Mapping[str, Any], Sequence[str]], list[dict[str, Any]]]
"""Dictionaries of the best products for a customer's attributes, without those that he bought."""

Ranked = Sequence[tuple[str, float]]
"""Products' ids and scores, best first."""


def _our_requests(job: training.Job) -> Request:
    from recsys_jax import Recommender

    rec = Recommender.from_torch(job.out, products=job.dataset)
    rec.warmup(top_n=K)
    return lambda person, bought: rec.recommend(**person, purchased_products=bought, top_n=K)


def _pytorch_requests(job: training.Job) -> Request:
    """As people serve it: what does not change is made once, then a tensor per attribute and the tower per request."""
    import torch

    from recsys_jax_benchmark.pytorch import reference

    torch.set_num_threads(job.threads)
    products, out = reference.read_rows(Path(job.products)), Path(job.out)
    if not out.exists():  # what it recommends does not matter, only that all recommend the same
        torch.manual_seed(job.seed)
        reference.save(reference.TwoTower(len(reference.brands(products))), reference.brands(products), out)
    model, brand_map = reference.load(out)
    model.eval()
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


def requests(job: training.Job, repeats: int, progress: Progress) -> Measured:
    """Seconds of the median request and of the one of a hundred that takes longest, in every repeat.

    Raises `Failure` where the methods recommend differently. `job.out` is a checkpoint that both read; the first of
    them, PyTorch, makes it.
    """
    found: Measured = {}
    answers: dict[str, list[Ranked]] = {}
    for turn, method in enumerate(METHODS):
        progress(turn, len(METHODS), method)
        limits = job.limits(Path(job.out).parent / f"cache, {method}")
        with Process(f"requests, {method}", requests_child, method, asdict(job), limits=limits) as process:
            answers[method] = process.ask("answer")
            times = [process.ask("measure") for _ in range(repeats)]
        found[method] = {"p50_s": [one[0] for one in times], "p99_s": [one[1] for one in times]}
    for one, other in zip(answers[OURS], answers[PYTORCH], strict=True):
        if differ(one, other):
            raise Failure(f"requests: {OURS} recommends {one}, {PYTORCH} {other}")
    return found


def differ(one: Ranked, other: Ranked) -> bool:
    """Whether two rankings differ by more than rounding: in a score, or in a product that no other comes near to."""
    # Who competes for the last place is not known.
    names = any(a[0] != b[0] for a, b in zip(one[:-1], other, strict=False) if _apart(b, other))
    return names or len(one) != len(other) or max(abs(a[1] - b[1]) for a, b in zip(one, other, strict=True)) > 1e-5


def _apart(place: tuple[str, float], ranking: Ranked) -> bool:
    """Whether no other product has almost the same score, and could stand there as well."""
    return sum(abs(place[1] - other[1]) < 1e-5 for other in ranking) == 1


def requests_child(method: str, given: Mapping[str, Any]) -> dict[str, Callable[[], object]]:
    """A process that answers requests of the customers that the model was trained on."""
    job = training.Job(**given)
    people = json.loads(Path(job.customers).read_text("utf-8"))
    names = ("age", "gender", "skin_type", "skin_concern")
    asked = [({name: one[name] for name in names}, [one["purchased_product_id"]]) for one in people]
    request = (_our_requests if method == OURS else _pytorch_requests)(job)

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

    return {"answer": answer, "measure": measure}
