"""What Prometheus reads: counters that the worker processes share, one row of memory each."""

import mmap
from bisect import bisect_left
from collections.abc import Iterator

import numpy as np

from recsys_jax.service.calls import CALLS

PATHS = ("/", "/health", "/metrics", "/openapi.json", *CALLS, "other")
STATUSES = (200, 400, 401, 404, 405, 413, 415, 422, 500, 503)
BUCKETS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The upper bounds of the latency histogram, in seconds."""
# Numbers of 64 bits: a worker writes its own row alone, and whoever is asked adds the rows up.
_ROW = np.dtype(
    [
        ("requests", "f8", (len(PATHS), len(STATUSES))),
        ("seconds", "f8", len(PATHS)),
        ("within", "f8", (len(PATHS), len(BUCKETS) + 1)),
        ("taken", "f8"),
        ("refused", "f8"),
        ("model_loaded", "f8"),
        ("ready", "f8"),
    ]
)


class Metrics:
    """The counters of a service with one or more workers."""

    def __init__(self, workers: int = 1, worker: int = 0, file: int = -1) -> None:
        """`file` is that of `shared`, where there is more than one worker."""
        self.rows = np.frombuffer(mmap.mmap(file, workers * _ROW.itemsize), _ROW)
        self.own = self.rows[worker]
        self._path = {path: number for number, path in enumerate(PATHS)}
        self._status = {status: number for number, status in enumerate(STATUSES)}

    @staticmethod
    def bytes(workers: int) -> int:
        """The length of the file that workers share."""
        return workers * _ROW.itemsize

    def count(self, path: str, status: int, seconds: float) -> None:
        """One answered request."""
        at = self._path.get(path, len(PATHS) - 1)
        self.own["requests"][at, self._status[status]] += 1
        self.own["seconds"][at] += seconds
        self.own["within"][at, bisect_left(BUCKETS, seconds)] += 1

    def text(self, fingerprint: str, written: float) -> str:
        """All of it in Prometheus' text format."""
        return "\n".join(self._lines(fingerprint, written)) + "\n"

    def _lines(self, fingerprint: str, written: float) -> Iterator[str]:
        total = {name: self.rows[name].sum(axis=0) for name in _ROW.names or ()}
        yield from _head("requests_total", "counter", "Answered requests.")
        for path, status in np.argwhere(total["requests"]).tolist():
            labels = f'path="{PATHS[path]}",status="{STATUSES[status]}"'
            yield f"recsys_jax_requests_total{{{labels}}} {total['requests'][path, status]:.0f}"
        yield from _head("request_seconds", "histogram", "From a request's head to its answer, in seconds.")
        for path in np.flatnonzero(total["within"].sum(axis=1)).tolist():
            counts = total["within"][path].cumsum()
            for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts.tolist(), strict=True):
                yield f'recsys_jax_request_seconds_bucket{{path="{PATHS[path]}",le="{bound}"}} {count:.0f}'
            yield f'recsys_jax_request_seconds_sum{{path="{PATHS[path]}"}} {total["seconds"][path]:.6f}'
            yield f'recsys_jax_request_seconds_count{{path="{PATHS[path]}"}} {counts[-1]:.0f}'
        yield from _head("reloads_total", "counter", "New models, taken into service or refused, by all workers.")
        for result in ("taken", "refused"):
            yield f'recsys_jax_reloads_total{{result="{result}"}} {total[result]:.0f}'
        yield from _head("model_info", "gauge", "The model of the worker that was asked.")
        yield f'recsys_jax_model_info{{fingerprint="{fingerprint}"}} 1'
        yield from _head("model_written_timestamp_seconds", "gauge", "When it was written: time() less it is its age.")
        yield f"recsys_jax_model_written_timestamp_seconds {written:.3f}"
        yield from _head("model_loaded_timestamp_seconds", "gauge", "When the worker took it.")
        yield f"recsys_jax_model_loaded_timestamp_seconds {self.own['model_loaded']:.3f}"
        yield from _head("workers", "gauge", "Workers that are ready.")
        yield f"recsys_jax_workers {np.count_nonzero(self.rows['ready'])}"


def _head(name: str, kind: str, says: str) -> list[str]:
    return [f"# HELP recsys_jax_{name} {says}", f"# TYPE recsys_jax_{name} {kind}"]
