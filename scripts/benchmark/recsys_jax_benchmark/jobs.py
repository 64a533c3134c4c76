"""The batch job, measured: from a file of customers to a file of recommendations, in a process of its own.

`measure` is the benchmark's side; run with `-m`, this is one contender's process.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from recsys_jax_benchmark.process import Failure, Limits, Process, peak, serve

__all__ = ["CONTENDERS", "OURS", "Answer", "Size", "check", "make", "measure", "read"]

OURS, TORCH = "recsys_jax", "PyTorch"
K = 10
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
    """One contender's process: the folder that `make` filled, the file of customers there, and the file to write."""

    contender: str
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

    from recsys_jax_benchmark import torch_reference as twin

    torch.set_num_threads(job.threads)
    where, folder = "cuda" if job.device == "gpu" else "cpu", Path(job.folder)

    def tensor(column: Any, kind: type = np.int64) -> torch.Tensor:
        return torch.tensor(column.to_numpy(kind), device=where)

    model, brands = twin.load(folder / "model.pth")
    model.to(where)
    goods = pd.read_parquet(
        folder / "shop" / "products.parquet", columns=["product_id", *("category", "brand_name", "price")]
    )
    ids = goods["product_id"].to_numpy()
    with torch.inference_mode():
        products = model.encode_product(
            {
                "category": tensor(goods["category"].map(twin.CATEGORIES)),
                "brand": tensor(goods["brand_name"].map(brands)),
                "price": tensor((goods["price"] / 200000.0).clip(upper=1.0), np.float32),
            }
        )
        writer = None
        for batch in parquet.ParquetFile(folder / job.customers).iter_batches(BATCH):
            people = batch.to_pandas()
            customers = model.encode_customer(
                {
                    "skin_type": tensor(people["skin_type"].map(twin.SKIN_TYPES)),
                    "skin_concern": tensor(people["skin_concern"].map(twin.SKIN_CONCERNS)),
                    "gender": tensor(people["gender"].map(twin.GENDERS)),
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


CONTENDERS: dict[str, Callable[[Job], None]] = {TORCH: _torch, OURS: _ours}


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


def measure(
    size: Size, contenders: Sequence[str], repeats: int, limits: Limits, progress: Callable[..., None]
) -> dict[str, dict[str, list[float | None]]]:
    """Per contender: seconds of the whole process of every repeat, customers per second, and bytes.

    Repeats are interleaved, and their order rotates. Compilers' caches hold what the job left there that was checked,
    as with a job that runs each night; its own time, the first, is given where it had all customers to do. Raises
    `Failure` where the jobs do not recommend the same, before anything is timed.

    Args:
        size: how many customers and products.
        contenders: who is timed; ours is compared with PyTorch's in any case.
        repeats: how often each is timed.
        limits: of each process; `cache` is passed over for a folder that is empty at first.
        progress: called with how much is done, of how much, and with a word.
    """
    if size.products < K:
        raise Failure(f"the job: {size.products} products; recommended are {K}")
    total = 1 + len(CONTENDERS) + repeats * len(contenders)
    found: dict[str, dict[str, list[float | None]]] = {}
    with TemporaryDirectory(prefix="benchmark-jobs-") as temporary:
        folder = Path(temporary)
        limits = replace(limits, cache=folder / "cache")
        progress(0, total, f"making {size.customers:,} customers and {size.products:,} products")
        prepare(folder, size, limits)
        answers: dict[str, Answer] = {}
        for number, contender in enumerate(CONTENDERS):
            progress(1 + number, total, f"{contender}, checking")
            out = f"checked-{number}.parquet"
            seconds, _ = _run(Job(contender, temporary, "checked.parquet", out, limits.threads, limits.device), limits)
            answers[contender] = read(folder / out)
            first = seconds if size.customers <= CHECKED else None
            found[contender] = {"time_s": [], "customers_per_s": [], "peak_bytes": [], "first_process_s": [first]}
        if wrong := check(answers[OURS], answers[TORCH]):
            raise Failure(f"the jobs of {OURS} and {TORCH} do not recommend the same, so nothing is timed: {wrong}")
        for repeat in range(repeats):
            for turn in range(len(contenders)):
                contender = contenders[(repeat + turn) % len(contenders)]
                progress(
                    total - repeats * len(contenders) + repeat * len(contenders) + turn,
                    total,
                    f"{contender}, repeat {repeat + 1}",
                )
                job = Job(contender, temporary, "customers.parquet", "out.parquet", limits.threads, limits.device)
                seconds, most = _run(job, limits)
                _check_rows(folder / job.out, contender, size)
                found[contender]["time_s"].append(seconds)
                found[contender]["customers_per_s"].append(size.customers / seconds)
                found[contender]["peak_bytes"].append(most)
    return {contender: found[contender] for contender in contenders}


def prepare(folder: Path, size: Size, limits: Limits) -> None:
    """`make`, in a process: nothing computes in the benchmark's."""
    job = json.dumps({"folder": str(folder), "size": asdict(size)})
    with Process("making the job's files", "recsys_jax_benchmark.jobs", "make", job, limits=limits) as process:
        process.ask("make")


def _run(job: Job, limits: Limits) -> tuple[float, int]:
    """Seconds from the start of a process to its written file, and its peak memory."""
    with Process(
        f"the job, {job.contender}", "recsys_jax_benchmark.jobs", "run", json.dumps(asdict(job)), limits=limits
    ) as process:
        written, most = process.ask("run")
        return written - process.started, most


def _check_rows(path: Path, contender: str, size: Size) -> None:
    """Raises `Failure` where a timed job did not do all of it."""
    import pyarrow.parquet as parquet

    rows = parquet.ParquetFile(path).metadata.num_rows
    if rows != size.customers * K:
        raise Failure(f"the job, {contender}: {rows:,} recommendations; {size.customers * K:,} were wanted")


def _child() -> None:
    job = json.loads(sys.argv[2])

    def run() -> tuple[float, int]:
        CONTENDERS[job["contender"]](Job(**job))
        return time.monotonic(), peak(job["device"])

    if sys.argv[1] == "make":
        serve({"make": lambda: make(Path(job["folder"]), Size(**job["size"]))})
    else:
        serve({"run": run})


if __name__ == "__main__":
    _child()
