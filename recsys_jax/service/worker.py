"""One worker of the service, on uvicorn: it answers until it is told to end and what runs has ended."""

import gc
import logging
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import uvicorn

from recsys_jax import stopping
from recsys_jax.service.app import App
from recsys_jax.service.live import Live
from recsys_jax.service.metrics import Metrics
from recsys_jax.service.server import Settings

log = logging.getLogger("recsys_jax.service")


class _Server(uvicorn.Server):
    """Leaves signals to `stopping`, and looks what it heard."""

    ready: Callable[[], None]

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        return stopping.asked() or await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready()  # from here on the socket takes connections


def work(settings: Settings, listener: socket.socket, metrics: Metrics, ready: Callable[[], None]) -> None:
    """One worker: nobody reaches it before it is warm."""
    live, over = Live(settings.source, settings.limits, metrics, token=settings.token is not None), threading.Event()
    gc.freeze()  # a model is many objects, which a collection need not look through
    app = App(live, metrics, settings.token)
    config = uvicorn.Config(
        app,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=settings.drain,  # type: ignore[arg-type]
    )
    server = _Server(config)

    def listening() -> None:
        metrics.own["ready"] = 1
        ready()

    server.ready = listening
    watcher = threading.Thread(target=live.watch, args=[settings.watch, over], daemon=True)
    watcher.start()
    with stopping.saying(lambda: "requests that were running had no answer", saves=True, grace=settings.drain + 1.0):
        server.run([listener])
        over.set()
        watcher.join(settings.drain)  # in XLA, while Python ends, it would abort the process
        if app.cut:
            stopping.end()
    log.info("Ended: no request is running")
