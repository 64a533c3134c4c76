"""One recommender under load: shared by threads, added to while it is asked, asked a million times."""

import gc
import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from recsys_jax import InputError, Recommender
from recsys_jax.retrieval.search import SingleSearch
from recsys_jax.serving.boosts import BoostRule
from recsys_jax.serving.ranking import Ranking

THREADS = 32
RULES = (
    BoostRule("dry", {"skin_type": {"dry"}}, {"category": {"98"}}, 0.2),
    BoostRule("young", {"age": (0.0, 30.0)}, {"price": (0.0, 30000.0)}, -0.1),
)


@pytest.fixture
def hasty():
    """Threads that are interrupted a thousand times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


def someone(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "age": int(rng.integers(1, 121)),
        "gender": str(rng.choice(["F", "M"])),
        "skin_type": str(rng.choice(["dry", "oily", "combination", "sensitive", "normal", "mature", "unknown"])),
        "skin_concern": str(rng.choice(["moisture", "wrinkle", "gift", "repurchase", "calming", "texture"])),
    }


Request = tuple[str, dict[str, Any]]
"""A method of the recommender and its arguments."""


def request(rng: np.random.Generator, batch: int, length: int = 3) -> Request:
    """Any valid request: a single customer, or batches of up to `batch`."""
    kind = str(rng.choice(["recommend", "recommend_batch", "rank_batch"])) if batch else "recommend"
    count = 1 if kind == "recommend" else int(rng.integers(1, batch + 1))
    bought = [
        [f"p{n}" for n in rng.integers(1, 12, rng.integers(0, 5))] if rng.random() < 0.5 else [] for _ in range(count)
    ]
    options: dict[str, Any] = {"top_n": length if kind == "rank_batch" else int(rng.integers(1, 9))}
    if rng.random() < 0.3:
        options["categories"] = [["Skincare"], [98, 101], ["Men", "Perfume", 97]][rng.integers(3)]
    if kind == "recommend":
        return kind, {**someone(rng), **options, "purchased_products": bought[0]}
    return kind, {**options, "rows": [someone(rng) for _ in range(count)], "purchased_products": bought}


def answer(rec: Recommender, wanted: Request) -> Any:
    """The answer as plain values, of which equal ones are equal to the last bit."""
    kind, options = wanted
    found = getattr(rec, kind)(**options)
    return [array.tobytes() for array in found] if isinstance(found, Ranking) else found


def at_once(jobs: list[Callable[[], Any]]) -> list[Any]:
    """What the jobs return, each in a thread of its own, all starting at the same moment."""
    barrier = threading.Barrier(len(jobs))

    def run(job: Callable[[], Any]) -> Any:
        barrier.wait()
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return [future.result() for future in [pool.submit(run, job) for job in jobs]]


# Threads


@pytest.mark.parametrize(
    ("different", "each", "batch"),
    [(60, 25, 8), pytest.param(2_000, 3_125, 40, marks=pytest.mark.slow(reason="100,000 requests"))],
    ids=["gate", "100,000"],
)
def test_threads_get_what_one_alone_gets(served, hasty, different, each, batch):
    """Exclusions, categories and boosts too, to the last bit; from a recommender and programs that nobody has used."""
    rng = np.random.default_rng(1)
    requests = [request(rng, batch) for _ in range(different)]
    alone = Recommender(served, RULES)
    wanted = [answer(alone, one) for one in requests]
    assert len({str(one) for one in wanted}) > different // 2
    jax.clear_caches()
    shared = Recommender(served, RULES)

    def ask(seed: int) -> int:
        chosen = np.random.default_rng(seed).integers(0, different, each)
        return sum(answer(shared, requests[number]) == wanted[number] for number in chosen)

    assert at_once([lambda seed=seed: ask(seed) for seed in range(THREADS)]) == [each] * THREADS


def test_threads_share_the_search_of_many_products(hasty):
    """The bytes and the program that looks at them are made by all threads at once."""
    rng = np.random.default_rng(0)
    products, customers = (rng.standard_normal((count, 8)).astype(np.float32) for count in (3_000, 40))
    alone, shared = SingleSearch(products, quantised_from=1), SingleSearch(products, quantised_from=1)
    wanted = [alone(customer, 5) for customer in customers]
    jax.clear_caches()

    def ask() -> None:
        for customer, both in zip(customers, wanted, strict=True):
            for found, own in zip(shared(customer, 5), both, strict=True):
                np.testing.assert_array_equal(found, own)

    at_once([ask] * THREADS)


# Products that are added meanwhile


def additions(name: str, count: int) -> list[list[dict[str, Any]]]:
    """Pairs of new products, which belong together."""
    rng = np.random.default_rng(count)
    return [
        [
            {
                "product_id": f"{name}-{pair}-{which}",
                "product_name": "New",
                "brand_name": "Isul",
                "category": int(rng.choice([97, 98, 99])),
                "price": int(rng.integers(1, 2e5)),
            }
            for which in "ab"
        ]
        for pair in range(count)
    ]


@pytest.mark.parametrize(
    ("pairs", "readers"),
    [(4, 8), pytest.param(40, 28, marks=pytest.mark.slow(reason="ten times the additions of the gate"))],
    ids=["gate", "longer"],
)
def test_readers_see_the_old_or_the_new_catalogue(served, hasty, pairs, readers):
    """Four threads add, the others ask: every answer is that of a recommender to which some of the additions were
    made, one after the other; none is ever older than the one before."""
    rng = np.random.default_rng(2)
    person, people = someone(rng), [someone(rng) for _ in range(3)]
    asked: list[Request] = [
        ("recommend", {**person, "top_n": 500}),
        ("recommend_batch", {"rows": people, "top_n": 500}),
        ("recommend", {**person, "top_n": 500, "categories": ["Makeup"], "purchased_products": ["p3", "0-1-a"]}),
    ]
    rec = Recommender(served, RULES)
    jobs = {str(name): additions(str(name), pairs) for name in range(4)}
    adding = threading.Semaphore(0)

    def add(name: str) -> None:
        for pair in jobs[name]:
            rec.add_products(pair)
        adding.release()

    def read() -> list[tuple[int, Any]]:
        """Until all is added, and once after that."""
        found, done = [], False
        while not done:
            done = adding._value == 4
            found += [(number, answer(rec, one)) for number, one in enumerate(asked)]
        return found

    read_by = at_once([lambda name=name: add(name) for name in jobs] + [read] * readers)[4:]

    ids = rec.product_ids
    assert sorted(ids[8:]) == sorted(one["product_id"] for rows in jobs.values() for pair in rows for one in pair)
    serial = Recommender(served, RULES)
    prefixes = [[answer(serial, one) for one in asked]]
    for first, second in zip(ids[8::2], ids[9::2], strict=True):
        name, number, _ = first.split("-")
        pair = jobs[name][int(number)]
        assert (first, second) == tuple(one["product_id"] for one in pair)
        serial.add_products(pair)
        prefixes.append([answer(serial, one) for one in asked])
    for found in read_by:
        newest = [0] * len(asked)
        for number, one in found:
            after = next((n for n in range(newest[number], len(prefixes)) if prefixes[n][number] == one), None)
            assert after is not None
            newest[number] = after
        # The last answers came after the last addition.
        assert [one for _, one in found[-len(asked) :]] == prefixes[-1]


def test_two_who_add_at_once_lose_nothing_and_one_id_is_added_once(served, hasty):
    rec = Recommender(served)
    own = [additions(str(name), 5) for name in range(8)]
    both = additions("both", 1)[0]

    def add(rows: list[list[dict[str, Any]]]) -> int:
        for pair in rows:
            rec.add_products(pair)
        try:
            rec.add_products(both)
            return 1
        except InputError as error:
            return 0 if "an id that no other product has" in str(error) else 2

    assert sum(at_once([lambda rows=rows: add(rows) for rows in own])) == 1
    assert len(rec.product_ids) == len(set(rec.product_ids)) == 8 + 8 * 5 * 2 + 2


def test_a_failed_addition_lets_the_next_one_in(served):
    rec = Recommender(served)
    with pytest.raises(InputError, match="category"):
        rec.add_products([{**additions("one", 1)[0][0], "category": 5}])
    added = threading.Thread(target=rec.add_products, args=(additions("two", 1)[0],), daemon=True)
    added.start()
    added.join(timeout=60)
    assert rec.product_ids[8:] == ("two-0-a", "two-0-b")


# Memory


def test_old_catalogues_are_freed(served):
    """Those on the device too."""
    rec = Recommender(served)
    rows = [someone(np.random.default_rng(3))] * 3
    gc.collect()
    before, old = len(jax.live_arrays()), []
    for pair in additions("new", 4):
        rec.recommend(**rows[0])
        rec.recommend_batch(rows)
        catalogue = rec._catalogue
        assert {"search", "on_device"} <= set(vars(catalogue))
        old.append((weakref.ref(catalogue), weakref.ref(catalogue.embeddings), weakref.ref(catalogue.search)))
        rec.add_products(pair)
    del catalogue
    assert len(jax.live_arrays()) == before + 1
    # The first is the model's own.
    assert [one() for three in old for one in three if one() is not served.product_embeddings] == [None] * 11


def resident() -> int:
    """This process's memory in bytes, as Linux counts it."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def serve(run: str, requests: int, added: int) -> None:
    """Prints memory in MB: at first, after each tenth of the requests, and after each tenth of the additions."""
    rec, rng = Recommender.load(run), np.random.default_rng(0)
    rec.warmup(64, top_n=8, exclusions=8, categories=True)

    def serve_some(count: int) -> None:
        for number in range(count):
            answer(rec, request(rng, batch=64 if number % 20 == 0 else 0, length=8))

    serve_some(2_000)
    served = [resident()]
    for _ in range(10):
        serve_some(requests // 10)
        served.append(resident())
    grown = [served[-1]]
    for number, pair in enumerate(additions("new", added), 1):
        rec.add_products(pair[:1])
        serve_some(3)
        if number % (added // 10) == 0:
            grown.append(resident())
    gc.collect()
    print(json.dumps({"served": served, "grown": grown, "arrays": len(jax.live_arrays())}))


@pytest.mark.slow(reason="a million requests")
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is measured as Linux tells it")
def test_a_million_requests_need_no_more_memory_and_a_thousand_additions_little(served_run):
    """In a process of its own; a growth of 20 MB would be 20 bytes a request. Each addition comes with three requests:
    a catalogue that grows from 8 products to 1,008 has programs for four sizes, of some megabytes each."""
    code = f"import test_load; test_load.serve({str(served_run)!r}, 1_000_000, 1_000)"
    out = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    found = json.loads(out.stdout.splitlines()[-1])
    print({name: [round(size / 1e6, 1) for size in found[name]] for name in ("served", "grown")}, found["arrays"])
    assert found["served"][-1] - found["served"][0] < 20e6
    assert found["grown"][-1] - found["grown"][0] < 80e6
