"""What a process of the benchmark's tests does: a module of its own, so that it imports nothing heavy."""

import os

from recsys_jax_benchmark.process import processors


def child_of_a_test(limits, word):
    """What it is told, its processors and its environment; then it breaks down."""
    print("noise")
    yield word, processors(), dict(os.environ)
    yield 1 / 0
