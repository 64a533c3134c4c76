"""The recommender of a run folder, replaced in one step when there is a new one."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from recsys_jax.errors import InputError
from recsys_jax.service import openapi
from recsys_jax.service.calls import Limits
from recsys_jax.service.metrics import Metrics
from recsys_jax.serving.history import History
from recsys_jax.serving.recommender import Recommender
from recsys_jax.storage.artifacts import MODEL
from recsys_jax.storage.runs import model_of

log = logging.getLogger("recsys_jax.service")


@dataclass(frozen=True)
class Source:
    """What a recommender is made of."""

    run: Path
    boosts: Path | None = None
    dataset: Path | None = None
    customers: Path | None = None
    """The customers that were made of the dataset's reviews."""
    purchases: Path | None = None

    def files(self) -> Iterator[Path]:
        """The files that it reads."""
        yield self.run / MODEL
        yield from (path for path in (self.boosts, self.purchases, self.customers) if path is not None)
        yield from () if self.dataset is None else sorted(self.dataset.iterdir())

    def state(self) -> tuple[object, ...]:
        """What changes when one of the files does."""
        found: list[object] = []
        with suppress(OSError):  # a file or folder that is gone now, or comes back: the next look will tell
            for path in self.files():
                one = os.stat(path)
                found.append((path.name, one.st_ino, one.st_size, one.st_mtime_ns))
        return tuple(found)


@dataclass(frozen=True)
class Loaded:
    """One model in service, with all that depends on it: a request takes it once."""

    rec: Recommender
    fingerprint: str
    """The SHA-256 of its `model.json`, which names the checksum of its tensors."""
    written: float
    """When that was written, in seconds since 1970."""
    openapi: bytes


class Live:
    """What is in service now; threads may ask for `now` at any time."""

    def __init__(self, source: Source, limits: Limits, metrics: Metrics, *, token: bool = False) -> None:
        """Loads and warms it. Raises `InputError` where it cannot be used."""
        self.source, self.limits, self.metrics, self._token = source, limits, metrics, token
        self._state = source.state()
        self.now = self._load()
        metrics.own["model_loaded"] = time.time()

    def _load(self) -> Loaded:
        source = self.source
        while True:
            fingerprint, path = model_of(source.run), source.run / MODEL
            written = path.stat().st_mtime if fingerprint else 0.0
            known = None if source.dataset is None else History.of(source.dataset, source.customers)
            rec = Recommender.load(
                source.run, source.boosts, dataset=known, purchases=source.purchases, tell=log.warning
            )
            if model_of(source.run) == fingerprint:  # else another one came meanwhile
                break
        rec.warmup(self.limits.rows, top_n=min(self.limits.top_n, 8), lists_and_reasons=True)
        return Loaded(rec, fingerprint, written, openapi.document(rec, self.limits, fingerprint, token=self._token))

    def look(self) -> bool:
        """Takes what is new in the folder; whether anything was. What is damaged is told, and the old one stays.

        Not for several threads at once.
        """
        state = self.source.state()
        if state == self._state:
            return False
        self._state = state  # as it was before the files were read: what changes meanwhile is seen next time
        began = time.monotonic()
        try:
            self.now = self._load()
        except (InputError, OSError, MemoryError) as error:
            self.metrics.own["refused"] += 1
            log.error("%s. The model %s stays in service", error, self.now.fingerprint[:12])
        else:
            self.metrics.own["taken"] += 1
            self.metrics.own["model_loaded"] = time.time()
            log.info("Now serving the model %s, after %.1f s", self.now.fingerprint[:12], time.monotonic() - began)
        return True

    def watch(self, seconds: float, over: threading.Event) -> None:
        """Looks that often, until it is over."""
        while not over.wait(seconds):
            self.look()
