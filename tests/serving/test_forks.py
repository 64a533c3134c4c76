"""Workers forked after JAX had run in their parent: they lack its threads, and would wait for them for ever."""

import os
import select
import signal
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from recsys_jax import DeepConfig, Recommender, fit, load_dataset, scores, top_k
from recsys_jax.data.tables import Table
from recsys_jax.retrieval.search import SingleSearch

pytestmark = [
    pytest.mark.wild,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
]
ASKED = {"age": 32, "gender": "F", "skin_type": "dry", "skin_concern": "moisture"}


def in_a_fork(work) -> str:
    """What it gives there, or its error; an empty text where it hangs."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX's own, and Python's
        child = os.fork()
    if not child:
        try:
            said = repr(work())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        if not select.select([answer], [], [], 30)[0]:
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return answer.read()


@pytest.fixture(scope="module")
def recommender(mall_model):
    found = Recommender(mall_model)
    found.recommend_batch([ASKED])
    return found


def test_a_forked_worker_says_what_works(recommender, mall):
    search = SingleSearch(np.ones((9, 4), np.float32), quantised_from=1)
    search(np.ones(4, np.float32), 2)
    vectors = np.eye(2, dtype=np.float32)
    for work in (
        lambda: recommender.recommend_batch([ASKED]),
        lambda: recommender.rank_batch([ASKED]),
        lambda: recommender.warmup(8),
        lambda: recommender.add_products([{"product_id": "new", "category": 97, "brand_name": "Isul", "price": 1}]),
        lambda: recommender.model.embed_customers(Table.of([ASKED], "rows")),
        lambda: fit(load_dataset(mall), DeepConfig(epochs=1)),
        lambda: search(np.ones(4, np.float32), 2),
        lambda: scores(vectors, vectors),
        lambda: top_k(vectors, vectors, 1),
    ):
        assert in_a_fork(work).startswith("InputError: found a process forked after its parent had trained or ")


def test_one_row_at_a_time_needs_no_threads(recommender):
    assert in_a_fork(lambda: recommender.recommend(**ASKED)) == repr(recommender.recommend(**ASKED))


def test_a_spawned_worker_recommends(recommender):
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = pool.submit(recommender.recommend_batch, [ASKED]).result()
    assert found == recommender.recommend_batch([ASKED])
