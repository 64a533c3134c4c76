"""Exact top-k, measured: a method and a case in a process, its answer checked against float64 before it is timed."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from recsys_jax_benchmark.process import OURS, Failure, Limits, Measured, Memory, Progress, in_process, in_turns

ONE, EXCLUDING = "recsys_jax, one customer", "recsys_jax, 8 excluded"
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


class Search(NamedTuple):
    """A method, ready: data in its own form."""

    search: Callable[[], Any]  # what is timed; returns when the answer is there
    answer: Callable[[Any], tuple[np.ndarray, np.ndarray]] = lambda found: found  # its dot products and rows (n, k)
    within: AbstractContextManager[Any] = nullcontext()


def _torch(queries: np.ndarray, products: np.ndarray, k: int, limits: Limits, *, by_groups: bool = False) -> Search:
    import torch

    torch.set_num_threads(limits.threads)
    left, right = (torch.from_numpy(side).to(limits.torch_device) for side in (queries, products))
    find = _groups(left, right, k) if by_groups else lambda: (left @ right.T).topk(k)

    def synchronized() -> Any:
        found = find()
        torch.cuda.synchronize()
        return found

    search = synchronized if limits.device == "gpu" else find
    return Search(search, lambda found: (found[0].cpu().numpy(), found[1].cpu().numpy()), torch.inference_mode())


def _groups(left: Any, right: Any, k: int) -> Callable[[], Any]:
    """Block by block the maxima of 32 products, then the products of the best groups: our way, in PyTorch."""
    import torch

    group = 32
    if len(right) < 64 * k * group or len(right) % group:
        return lambda: (left @ right.T).topk(k)
    grouped = right.view(-1, group, right.shape[1])
    # Allocated once: fresh blocks between small results would leave the heap in holes, a gigabyte of them.
    scored = torch.empty(8192, len(left), device=left.device)
    maxima = torch.empty(len(grouped), len(left), device=left.device)

    def find() -> Any:
        for first in range(0, len(right), len(scored)):
            rows = right[first : first + len(scored)]
            block = torch.mm(rows, left.T, out=scored[: len(rows)]).view(-1, group, len(left))
            torch.amax(block, dim=1, out=maxima[first // group : first // group + len(block)])
        chosen = maxima.T.topk(k).indices
        scores = torch.einsum("nd,nkgd->nkg", left, grouped[chosen]).flatten(1)
        best, places = scores.topk(k)
        return best, chosen.gather(1, places // group) * group + places % group

    return find


def _best(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k greatest of each row, greatest first, and their columns."""
    columns = np.argpartition(scores, -k, axis=1)[:, -k:]
    found = np.take_along_axis(scores, columns, axis=1)
    order = np.argsort(-found, axis=1)
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(columns, order, axis=1)


def _numpy(queries: np.ndarray, products: np.ndarray, k: int, limits: Limits) -> Search:
    return Search(lambda: _best(queries @ products.T, k))


def _product(queries: np.ndarray, products: np.ndarray, k: int, limits: Limits) -> Search:
    """All scores, written to memory that is there already, and nothing else: what no search of them all can beat."""
    scores = np.empty((len(queries), len(products)), np.float32)

    def answer(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, rows = zip(
            *(_best(line[None], k) for line in scores), strict=True
        )  # a line at a time needs less memory
        return np.concatenate(values), np.concatenate(rows)

    return Search(lambda: np.matmul(queries, products.T, out=scores), answer)


def _faiss(queries: np.ndarray, products: np.ndarray, k: int, limits: Limits) -> Search:
    import faiss

    faiss.omp_set_num_threads(limits.threads)
    index = faiss.IndexFlatIP(products.shape[1])
    index.add(products)
    return Search(lambda: index.search(queries, k))


def _ours(queries: np.ndarray, products: np.ndarray, k: int, limits: Limits, *, excluded: int = 0) -> Search:
    import jax

    from recsys_jax import top_k

    exclude = None
    if excluded:  # bad ones, so that the answer is everyone's
        some = np.random.default_rng(1).integers(0, len(products), (len(queries), 64)).astype(np.int32)
        worst = np.einsum("nd,nmd->nm", queries, products[some]).argsort(axis=1)[:, :excluded]
        exclude = np.take_along_axis(some, worst, axis=1)
    left, right, exclude = jax.device_put((queries, products, exclude))
    return Search(
        lambda: [part.block_until_ready() for part in top_k(left, right, k, exclude=exclude)],
        # A score is (1 + dot product) / 2.
        lambda found: (2.0 * np.asarray(found[0], np.float64) - 1.0, np.asarray(found[1])),
    )


def _one(queries: np.ndarray, products: np.ndarray, k: int, limits: Limits) -> Search:
    from recsys_jax.retrieval.search import SingleSearch

    search, customer = SingleSearch(products), queries[0]
    return Search(lambda: search(customer, k), lambda found: (found[0][None], found[1][None]))


METHODS: dict[str, Callable[[np.ndarray, np.ndarray, int, Limits], Search]] = {
    "PyTorch": _torch,
    "PyTorch, by groups": partial(_torch, by_groups=True),
    NUMPY: _numpy,
    "Faiss flat": _faiss,
    PRODUCT: _product,
    OURS: _ours,
    EXCLUDING: partial(_ours, excluded=8),
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
    """What is wrong with an answer, dot products `values` (n, k) and `rows` (n, k) of products, or None.

    Each place must hold a product whose true score is that place's `best` score (n, k), within 1e-6. So the rows are
    the reference's, except where neighbours in the ranking are that close and may change places.
    """
    if values.shape != best.shape or rows.shape != best.shape:
        return f"scores {values.shape} and products {rows.shape} were found where {best.shape} were wanted"
    if not np.isfinite(values).all():
        return "a score is not a finite number"
    if rows.min() < 0 or rows.max() >= len(products):
        return f"a product's row lies outside 0..{len(products) - 1}"
    if (np.diff(np.sort(rows, axis=1), axis=1) == 0).any():
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
    results, total = [], len(cases) * (repeats + 1)
    for number, case in enumerate(cases):
        title, before = f"{case.queries:,} x {case.products:,}", number * (repeats + 1)
        progress(before, total, f"{title}, checking")
        queries, products = unit_vectors(case)
        best = best_scores(queries, products, case.k)
        found: Measured = {}
        ask: dict[str, Callable[[], Any]] = {}
        with ExitStack() as stack:
            for method in methods:
                if takes_part(method, case):
                    process = in_process(f"scoring {title}, {method}", child, method, case, limits=limits)
                    ask[method] = stack.enter_context(process)
            for start in ask.values():  # all of them first: nobody is measured while another one still starts
                start()
            for method, first in ask.items():
                first_call, values, rows = first()
                if wrong := check(values, rows, queries, products, best):
                    raise Failure(f"scoring {title}, {method} is wrong, so nothing is timed: {wrong}")
                found[method] = {"time_s": [], "first_call_s": [first_call]}
            for _, repeat, method in in_turns(list(ask), repeats):
                progress(before + repeat + 1, total, f"{title}, repeat {repeat + 1}")
                time.sleep(REST)
                spent, most, above = ask[method]()
                found[method]["time_s"].append(spent)
                found[method] |= {"peak_bytes": [most], "peak_above_held_bytes": [above]}
        results.append(found)
    return results


def child(limits: Limits, method: str, case: Case) -> Iterator[Any]:
    """A method's process for a case: first it is made ready; then come its first call and answer, then repeats."""
    search, answer, within = METHODS[method](*unit_vectors(case), case.k, limits)
    memory = Memory(limits.device)
    memory.reset()
    before = memory.held()
    yield None
    with within:
        began = time.perf_counter()
        found = search()
        spent = time.perf_counter() - began
        most = memory.peak()
        yield spent, *answer(found)
        del found
        while True:
            memory.reset()  # what the answer took to send is not the search's
            began, count = time.perf_counter(), 0
            while (elapsed := time.perf_counter() - began) < SECONDS:
                search()
                count += 1
            most = max(most, memory.peak())  # of all calls
            yield elapsed / count, most, None if before is None else most - before
