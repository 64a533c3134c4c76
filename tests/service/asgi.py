"""Asks an application as a server would, without one."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from recsys_jax.service.app import App
from recsys_jax.service.calls import Limits
from recsys_jax.service.live import Live, Source
from recsys_jax.service.metrics import Metrics

JSON = (("content-type", "application/json"),)


class Got(NamedTuple):
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def sentence(self) -> str:
        """Of a request that was refused, and of nothing else."""
        assert self.status >= 400
        assert list(self.json) == ["error"]
        return str(self.json["error"])


def application(run: Path, token: str | None = None, **more: Any) -> App:
    """The application of a run; `more` are limits and sources."""
    limits = {name: more.pop(name) for name in ("body", "rows", "top_n") if name in more}
    metrics = Metrics()
    live = Live(Source(run, **more), Limits(**{"rows": 8, **limits}), metrics, token=token is not None)
    return App(live, metrics, token)


def ask(app: App, path: str, body: object = None, *, method: str = "", headers: Any = JSON, parts: int = 1) -> Got:
    """One request; a body that is not bytes is sent as JSON, in so many parts."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    size = -(-len(content) // parts) or 1
    pieces = [content[start : start + size] for start in range(0, len(content), size)] or [b""]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "path": path,
        "method": method or ("GET" if body is None else "POST"),
        "headers": [(name.encode(), value.encode()) for name, value in headers],
    }
    # In a thread: where a browser's tests ran before, the main one has a loop that goes on.
    with ThreadPoolExecutor(1, thread_name_prefix="loop") as pool:
        pool.submit(asyncio.run, app(scope, receive, send)).result()
    start, end = sent
    told = {name.decode(): value.decode() for name, value in start["headers"]}
    assert int(told["content-length"]) == len(end["body"])
    return Got(start["status"], told, end["body"])
