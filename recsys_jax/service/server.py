"""Processes and sockets: one worker in this process, or several beside it; all end when their requests have."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from recsys_jax import stopping
from recsys_jax.errors import InputError, require
from recsys_jax.service.calls import Limits
from recsys_jax.service.live import Source
from recsys_jax.service.metrics import Metrics

log = logging.getLogger("recsys_jax.service")


@dataclass(frozen=True)
class Settings:
    """All that a worker needs to know, beside its sockets."""

    source: Source
    limits: Limits = field(default_factory=Limits)
    token: str | None = None
    watch: float = 1.0
    """The seconds between two looks for a new model."""
    drain: float = 10.0
    """The seconds that running requests have to end."""

    def __post_init__(self) -> None:
        for name in ("watch", "drain"):
            require(0 < getattr(self, name) < 1e6, name, getattr(self, name), "seconds, above 0")

    def to_json(self) -> str:
        """What `of_json` reads."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def of_json(cls, text: str) -> "Settings":
        """The settings that another process wrote."""
        found = json.loads(text)
        paths: dict[str, Any] = {name: path and Path(path) for name, path in found.pop("source").items()}
        return cls(Source(**paths), Limits(**found.pop("limits")), **found)


def bind(host: str, port: int) -> socket.socket:
    """A socket at this address, which nobody can reach yet. Raises `InputError` where that is not possible."""
    # Of a greater number the system takes the rest by 2^16.
    require(0 <= port < 2**16, "port", port, "from 0, any that is free, to 65535")
    with ExitStack() as stack:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            opened = stack.enter_context(socket.socket(found[0][0], socket.SOCK_STREAM))
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(found[0][4])
        except (OSError, OverflowError) as error:
            allowed = "an address of this machine, a free port"
            raise InputError(f"{host}, port {port}: {error}; allowed: {allowed}") from None
        stack.pop_all()
    return opened


def loopback(listener: socket.socket) -> bool:
    """Whether this machine alone can reach the socket."""
    return ip_address(listener.getsockname()[0]).is_loopback


def address(listener: socket.socket) -> str:
    """Where the socket is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def serve(settings: Settings, listener: socket.socket, workers: int, ready: Callable[[], None]) -> None:
    """Answers requests until the process is told to end and those that run have ended.

    `ready` is called once they are answered. Raises `InputError` where there is no model that can be used.
    """
    from recsys_jax.service.worker import work  # here, as uvicorn comes with an extra, and what a command takes without

    if workers == 1:
        work(settings, listener, Metrics(), ready)
        return
    require(hasattr(os, "fork"), "workers", workers, "1 on this system")
    _supervise(settings, listener, workers, ready)


def _supervise(settings: Settings, listener: socket.socket, workers: int, ready: Callable[[], None]) -> None:
    """Keeps several workers running: processes that start anew, as one that is forked after JAX started may hang."""
    with TemporaryFile() as shared:
        shared.truncate(Metrics.bytes(workers))
        metrics = Metrics(workers, file=shared.fileno())
        team = _Team(settings, (listener.fileno(), shared.fileno()), metrics)
        keepers = [threading.Thread(target=team.keep, args=[number], daemon=True) for number in range(workers)]
        with stopping.saying(lambda: "requests that were running had no answer", saves=True, grace=settings.drain + 3):
            for keeper in keepers:
                keeper.start()
            told = False
            while any(keeper.is_alive() for keeper in keepers):
                if not told and metrics.rows["ready"].all():
                    told = True
                    ready()
                if stopping.asked() or team.failed:
                    listener.close()
                    team.end()
                    break
                time.sleep(0.05)
            for keeper in keepers:
                keeper.join()
            if team.failed and not stopping.asked():
                raise InputError("workers: found none that could start; what they said stands above")
            if any(team.failed):
                stopping.end()
    log.info("Ended: no request is running")


class _Team:
    """The processes of the workers."""

    def __init__(self, settings: Settings, files: tuple[int, int], metrics: Metrics) -> None:
        self.settings, self.files, self.metrics = settings, files, metrics
        self.failed: list[int] = []
        """The statuses of workers that could not start, or did not end well."""
        self._processes: dict[int, subprocess.Popen[Any]] = {}
        self._ending = threading.Lock()

    def keep(self, number: int) -> None:
        """Runs one worker, and another one in its place where it ends by itself."""
        once, row = False, self.metrics.rows[number]
        words = [sys.executable, "-c", f"from {__name__} import child; child()", *map(str, (*self.files, number))]
        while not (stopping.asked() or self.failed):
            with stopping.child(
                [*words, str(len(self.metrics.rows))], stdin=subprocess.PIPE, pass_fds=self.files, text=True
            ) as process:
                self._processes[number] = process
                assert process.stdin is not None
                process.stdin.write(self.settings.to_json() + "\n")
                process.stdin.flush()  # and stays open: its end tells the worker that this process is gone
                status = process.wait()
            once, row["ready"] = once or row["ready"] > 0, 0
            if stopping.asked():
                self.failed += [status] * (status != 0)
            elif not once:
                self.failed.append(status)
            else:
                log.error("Worker %d ended with status %d; another one starts", number, status)
                time.sleep(1.0)

    def end(self) -> None:
        """Tells all to end."""
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)


def child() -> None:
    """The process of one worker of several."""
    from recsys_jax.service.worker import work

    listener, shared, number, workers = map(int, sys.argv[1:5])
    stopping.listen()
    configure_log()
    settings = Settings.of_json(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        opened = socket.socket(fileno=listener)
        work(settings, opened, Metrics(workers, number, shared), lambda: None)
    except (InputError, OSError, MemoryError) as error:
        log.error("%s", error)
        sys.exit(2)


def _end_with_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def configure_log() -> None:
    """Lines of the service, with their time, on the standard error."""
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING, force=True)
    log.setLevel(logging.INFO)
