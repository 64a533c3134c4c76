"""Exact top-k, measured: a method and a case in a process, its answer checked against float64 before it is timed."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from recsys_jax_benchmark.process import Failure, Limits, Measured, Process, Progress, held, in_turns, peak, reset

OURS, ONE, EXCLUDING = "recsys_jax", "recsys_jax, one customer", "recsys_jax, 8 excluded"
NUMPY, PRODUCT = "NumPy", "matrix product alone"
# Short searches are repeated up to this time, and the mean is one measurement.
SECONDS = 0.05
# Threads of whoever was measured last may wait in a loop for more work, on processors that the next one needs.
REST = 0.2


@dataclass(frozen=True)
class Case:
    """How many queries against how many products, and how many of them are wanted."""

    queries: int
    products: int
    k: int = 10
    dimensions: int = 32


CASES = (
    *(Case(1, products) for products in (93, 100_000, 1_000_000)),
    Case(277, 93),
    Case(100_000, 93),
    Case(256, 100_000),
    *(Case(queries, 1_000_000, k) for queries in (256, 1_024) for k in (10, 100)),
)


def takes_part(method: str, case: Case) -> bool:
    """Whether a method is of interest for a case, and can do it at all."""
    scores = case.queries * case.products
    if method == ONE:
        return case.queries == 1
    if method in (PRODUCT, EXCLUDING):
        return scores >= 256 * 1_000_000 and (method == PRODUCT or case.k == 10)
    # Four bytes a score, eight its number: with 1,024 x 1,000,000 they need 12 GB.
    return method != NUMPY or scores <= 256 * 1_000_000


def unit_vectors(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """The queries (n, d) and the products (p, d) of a case: the same for everyone."""
    draw = np.random.default_rng(0)
    sides = [draw.standard_normal((size, case.dimensions), np.float32) for size in (case.queries, case.products)]
    queries, products = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides)
    return queries, products


class _Search(NamedTuple):
    """A method, ready: data in its own form."""

    search: Callable[[], Any]
    """What is timed; returns when the answer is there."""
    answer: Callable[[Any], tuple[np.ndarray, np.ndarray]]
    """The dot products (n, k) and the products' rows (n, k) of what `search` returned."""
    within: AbstractContextManager[Any] = nullcontext()


def _torch(queries: np.ndarray, products: np.ndarray, k: int, threads: int, device: str) -> _Search:
    import torch

    torch.set_num_threads(threads)
    where = "cuda" if device == "gpu" else "cpu"
    left, right = torch.from_numpy(queries).to(where), torch.from_numpy(products).to(where)

    def search() -> Any:
        found = (left @ right.T).topk(k)
        if device == "gpu":
            torch.cuda.synchronize()
        return found

    return _Search(search, lambda found: (found[0].cpu().numpy(), found[1].cpu().numpy()), torch.inference_mode())


def _torch_by_groups(queries: np.ndarray, products: np.ndarray, k: int, threads: int, device: str) -> _Search:
    """Block by block the maxima of 32 products, then the products of the best groups: our way, in PyTorch."""
    import torch

    torch.set_num_threads(threads)
    where, group = "cuda" if device == "gpu" else "cpu", 32
    whole = len(products) // group * group
    if len(products) < 64 * k * group or whole < len(products):
        return _torch(queries, products, k, threads, device)
    left, right = torch.from_numpy(queries).to(where), torch.from_numpy(products).to(where)
    grouped = right.view(-1, group, right.shape[1])
    # Allocated once: fresh blocks between small results would leave the heap in holes, a gigabyte of them.
    scored = torch.empty(8192, len(left), device=where)
    maxima = torch.empty(len(grouped), len(left), device=where)

    def search() -> Any:
        for first in range(0, whole, len(scored)):
            rows = right[first : first + len(scored)]
            block = torch.mm(rows, left.T, out=scored[: len(rows)]).view(-1, group, len(left))
            torch.amax(block, dim=1, out=maxima[first // group : first // group + len(block)])
        chosen = maxima.T.topk(k).indices
        scores = torch.einsum("nd,nkgd->nkg", left, grouped[chosen]).flatten(1)
        best, places = scores.topk(k)
        found = best, chosen.gather(1, places // group) * group + places % group
        if device == "gpu":
            torch.cuda.synchronize()
        return found

    return _Search(search, lambda found: (found[0].cpu().numpy(), found[1].cpu().numpy()), torch.inference_mode())


def _numpy(queries: np.ndarray, products: np.ndarray, k: int, threads: int, device: str) -> _Search:
    def search() -> tuple[np.ndarray, np.ndarray]:
        scores = queries @ products.T
        rows = np.argpartition(scores, -k, axis=1)[:, -k:]
        found = np.take_along_axis(scores, rows, axis=1)
        order = np.argsort(-found, axis=1)
        return np.take_along_axis(found, order, axis=1), np.take_along_axis(rows, order, axis=1)

    return _Search(search, lambda found: found)


def _product(queries: np.ndarray, products: np.ndarray, k: int, threads: int, device: str) -> _Search:
    """All scores, written to memory that is there already, and nothing else: what no search of them all can beat."""
    scores = np.empty((len(queries), len(products)), np.float32)

    def answer(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = np.stack([np.argpartition(line, -k)[-k:] for line in scores])
        found = np.take_along_axis(scores, rows, axis=1)
        order = np.argsort(-found, axis=1)
        return np.take_along_axis(found, order, axis=1), np.take_along_axis(rows, order, axis=1)

    return _Search(lambda: np.matmul(queries, products.T, out=scores), answer)


def _faiss(queries: np.ndarray, products: np.ndarray, k: int, threads: int, device: str) -> _Search:
    import faiss

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatIP(products.shape[1])
    index.add(products)
    return _Search(lambda: index.search(queries, k), lambda found: found)


def _ours(
    queries: np.ndarray, products: np.ndarray, k: int, threads: int, device: str, exclude: np.ndarray | None = None
) -> _Search:
    import jax

    from recsys_jax import top_k

    left, right, exclude = jax.device_put((queries, products, exclude))
    return _Search(
        lambda: [part.block_until_ready() for part in top_k(left, right, k, exclude=exclude)],
        # A score is (1 + dot product) / 2.
        lambda found: (2.0 * np.asarray(found[0], np.float64) - 1.0, np.asarray(found[1])),
    )


def _excluding(queries: np.ndarray, products: np.ndarray, k: int, threads: int, device: str) -> _Search:
    """Eight products excluded for each customer; bad ones, so that the answer is everyone's."""
    some = np.random.default_rng(1).integers(0, len(products), (len(queries), 64)).astype(np.int32)
    worst = np.einsum("nd,nmd->nm", queries, products[some]).argsort(axis=1)[:, :8]
    exclude = np.take_along_axis(some, worst, axis=1)
    return _ours(queries, products, k, threads, device, exclude)


def _one(queries: np.ndarray, products: np.ndarray, k: int, threads: int, device: str) -> _Search:
    from recsys_jax.serving.search import SingleSearch

    search, customer = SingleSearch(products), queries[0]
    return _Search(lambda: search(customer, k), lambda found: (found[0][None], found[1][None]))


METHODS: dict[str, Callable[[np.ndarray, np.ndarray, int, int, str], _Search]] = {
    "PyTorch": _torch,
    "PyTorch, by groups": _torch_by_groups,
    NUMPY: _numpy,
    "Faiss flat": _faiss,
    PRODUCT: _product,
    OURS: _ours,
    EXCLUDING: _excluding,
    ONE: _one,
}
GPU_METHODS = ("PyTorch", "PyTorch, by groups", OURS, EXCLUDING)


def best_scores(queries: np.ndarray, products: np.ndarray, k: int, *, block: int = 1 << 24) -> np.ndarray:
    """The k greatest dot products of each query, best first (n, k), in float64."""
    left, right = queries.astype(np.float64), products.astype(np.float64)
    step = max(block // len(products), 1)
    best = np.empty((len(queries), k))
    for first in range(0, len(queries), step):
        scores = left[first : first + step] @ right.T
        best[first : first + step] = -np.sort(-np.partition(scores, -k, axis=1)[:, -k:], axis=1)
    return best


def check(
    values: np.ndarray, rows: np.ndarray, queries: np.ndarray, products: np.ndarray, best: np.ndarray
) -> str | None:
    """What is wrong with an answer, or None.

    Each place must hold a product whose true score is that place's best score, within 1e-6. So the rows are the
    reference's, except where neighbours in the ranking are that close and may change places.

    Args:
        values: dot products (n, k).
        rows: rows of products (n, k).
        queries: unit vectors (n, d).
        products: unit vectors (p, d).
        best: the reference's scores (n, k), best first.
    """
    if values.shape != best.shape or rows.shape != best.shape:
        return f"scores {values.shape} and products {rows.shape} were found where {best.shape} were wanted"
    if not np.isfinite(values).all():
        return "a score is not a finite number"
    if rows.min() < 0 or rows.max() >= len(products):
        return f"a product's row lies outside 0..{len(products) - 1}"
    ordered = np.sort(rows, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        return "a product was found twice for one query"
    true = np.empty(best.shape)
    for first in range(0, len(queries), 10_000):  # (n, d), (n, k, d) -> (n, k)
        part = slice(first, first + 10_000)
        true[part] = np.einsum("nd,nkd->nk", queries[part].astype(np.float64), products[rows[part]].astype(np.float64))
    for what, off, allowed in (("product", abs(true - best), 1e-6), ("score", abs(values - true), 1e-5)):
        if off.max() > allowed:
            query, place = np.unravel_index(off.argmax(), off.shape)
            return f"query {query}, place {place + 1}: the {what} is off by {off.max():.2g}; allowed: {allowed:g}"
    return None


def measure(
    cases: Sequence[Case], methods: Sequence[str], repeats: int, limits: Limits, progress: Progress
) -> list[Measured]:
    """Per case and method: seconds of every repeat and of the first call, and bytes.

    Raises `Failure` where an answer is wrong, before anything of that case is timed.
    """
    results = []
    total = len(cases) * (repeats + 1)
    for number, case in enumerate(cases):
        title = f"{case.queries:,} x {case.products:,}"
        progress(number * (repeats + 1), total, f"{title}, checking")
        queries, products = unit_vectors(case)
        best = best_scores(queries, products, case.k)
        here = [method for method in methods if takes_part(method, case)]
        found: Measured = {}
        with ExitStack() as stack:
            processes = {}
            for method in here:
                process = Process(
                    *(f"scoring {title}, {method}", child, method, limits.threads, limits.device, asdict(case)),
                    limits=limits,
                )
                processes[method] = stack.enter_context(process)
            for process in processes.values():
                process.ask("prepare")  # all of them first: nobody is measured while another one still starts
            for method in here:
                first_call, values, rows = processes[method].ask("answer")
                if wrong := check(values, rows, queries, products, best):
                    raise Failure(f"scoring {title}, {method} is wrong, so nothing is timed: {wrong}")
                found[method] = {"time_s": [], "first_call_s": [first_call]}
            for _, repeat, method in in_turns(here, repeats):
                progress(number * (repeats + 1) + repeat + 1, total, f"{title}, repeat {repeat + 1}")
                time.sleep(REST)
                found[method]["time_s"].append(processes[method].ask("measure"))
            for method in here:
                found[method] |= processes[method].ask("memory")
        results.append(found)
    return results


def child(method: str, threads: int, device: str, sizes: Mapping[str, int]) -> dict[str, Callable[[], object]]:
    """A process of one method and one case."""
    case, peaks = Case(**sizes), list[int]()
    ready: list[_Search] = []
    before: list[int | None] = []

    def prepare() -> None:
        """Imports the library and gives it the data."""
        ready.append(METHODS[method](*unit_vectors(case), case.k, threads, device))
        reset(device)
        before.append(held(device))

    def answer() -> tuple[float, np.ndarray, np.ndarray]:
        """The first call: its seconds, the dot products and the products' rows."""
        with ready[0].within:
            began = time.perf_counter()
            found = ready[0].search()
            spent = time.perf_counter() - began
        peaks.append(peak(device))
        return spent, *ready[0].answer(found)

    def measure() -> float:
        """Seconds per call, over as many calls as it takes to measure."""
        search, count = ready[0].search, 0
        reset(device)  # what the answer took to send is not the search's
        with ready[0].within:
            began = time.perf_counter()
            while (elapsed := time.perf_counter() - began) < SECONDS:
                search()
                count += 1
        peaks.append(peak(device))
        return elapsed / count

    def memory() -> dict[str, list[int | None]]:
        """The peak of all calls, and how much of it was not held before them."""
        above = None if before[0] is None else max(peaks) - before[0]
        return {"peak_bytes": [max(peaks)], "peak_above_held_bytes": [above]}

    return {"prepare": prepare, "answer": answer, "measure": measure, "memory": memory}
