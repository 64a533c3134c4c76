"""What a process of the benchmark's tests does, and what stands for one: nothing heavy is imported here."""

import os
import pickle
from contextlib import contextmanager

from recsys_jax_benchmark.process import processors


def child_of_a_test(limits, word):
    """What it is told, its processors and its environment; then it breaks down."""
    print("noise")
    yield word, processors(), dict(os.environ)
    yield 1 / 0


@contextmanager
def within_this_one(title, child, *arguments, limits):
    """In place of `in_process`, whose imports take seconds each time: what is sent and answered is pickled as there."""
    child, limits, arguments = pickle.loads(pickle.dumps((child, limits, arguments)))
    results = child(limits, *arguments)
    yield lambda: pickle.loads(pickle.dumps(next(results)))
    results.close()
