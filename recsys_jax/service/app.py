"""The service as an ASGI application: HTTP in, the recommender's answers out."""

import asyncio
import hmac
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from shlex import quote
from typing import Any, NamedTuple

from recsys_jax.data.files import read_file, read_json
from recsys_jax.errors import InputError, choices, shown
from recsys_jax.service.calls import CALLS, answer
from recsys_jax.service.live import Live, Loaded
from recsys_jax.service.metrics import Metrics
from recsys_jax.service.openapi import example

log = logging.getLogger("recsys_jax.service")
Message = MutableMapping[str, Any]
REPORT = "report.html"
SHORT = 4096
"""Bytes of a request that is answered by the event loop itself: a thread costs more than the answer takes."""
JSON, HTML, TEXT = b"application/json", b"text/html; charset=utf-8", b"text/plain; version=0.0.4; charset=utf-8"
GET = ("/", "/health", "/metrics", "/openapi.json")


class Answer(NamedTuple):
    """What is sent back."""

    body: bytes
    status: int = 200
    kind: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Refused(Exception):
    """A request that is answered by a sentence."""

    def __init__(self, status: int, sentence: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(sentence)
        self.answer = Answer(_json({"error": sentence}), status, headers=headers)


class Gone(Exception):
    """Who asked went away."""


class App:
    """Answers the requests of one worker."""

    def __init__(self, live: Live, metrics: Metrics, token: str | None = None) -> None:
        self.live, self.metrics = live, metrics
        self._token = None if token is None else token.encode()
        self.cut = 0
        """The requests that ran when the time of draining was over."""
        # Two, so that a long batch doesn't keep all others waiting.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="batch")

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """One request, as ASGI servers hand it over."""
        if scope["type"] != "http":
            return
        began, loaded = time.perf_counter(), self.live.now  # taken once: all of the answer is of one model
        try:
            found = await self._answer(scope, receive, loaded)
        except Gone:
            return
        except Refused as refused:
            found = refused.answer
        except InputError as error:
            found = Refused(422, str(error)).answer
        except asyncio.CancelledError:
            self.cut += 1
            found = Refused(503, "the service ends, and this request took too long").answer
        except Exception:
            log.exception("%s: an error that is none of the request's", scope["path"])
            found = Refused(500, "an error that is none of the request's; the service's log has it").answer
        headers = [(b"content-type", found.kind), (b"content-length", str(len(found.body)).encode())]
        headers += [(b"x-model", loaded.fingerprint[:12].encode()), *found.headers]
        # Before it is sent: who reads the counters next finds it there.
        self.metrics.count(scope["path"], found.status, time.perf_counter() - began)
        await send({"type": "http.response.start", "status": found.status, "headers": headers})
        await send({"type": "http.response.body", "body": found.body})

    async def _answer(self, scope: Message, receive: Callable[[], Awaitable[Message]], loaded: Loaded) -> Answer:
        path, method = scope["path"], scope["method"]
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if path != "/health":
            self._admit(headers)
        if path in CALLS:
            if method != "POST":
                token = "" if self._token is None else " -H 'authorization: Bearer TOKEN'"
                asked = quote(json.dumps(example(loaded.rec, path), ensure_ascii=False))
                how = f"POST, such as curl{token} --json {asked} http://{_host(scope, headers)}{path}"
                raise Refused(405, f"{path}: found {method}; allowed: {how}", (b"allow", b"POST"))
            _require_json(headers)
            content = await self._body(headers, receive)
            if path != "/recommend/batch" and len(content) <= SHORT:
                return self._call(loaded, path, content)
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._call, loaded, path, content)
        _require(path in GET, 404, f"path: found {shown(path)}; allowed: {choices([*CALLS, *GET], found=path)}")
        _require(method in ("GET", "HEAD"), 405, f"{path}: found {method}; allowed: GET", (b"allow", b"GET, HEAD"))
        if path == "/health":
            return Answer(_json({"status": "ready", "model": loaded.fingerprint}))
        if path == "/metrics":
            return Answer(self.metrics.text(loaded.fingerprint, loaded.written).encode(), kind=TEXT)
        if path == "/openapi.json":
            return Answer(loaded.openapi)
        return Answer(await asyncio.to_thread(self._report), kind=HTML)

    def _admit(self, headers: dict[bytes, bytes]) -> None:
        if self._token is None:
            return
        scheme, _, found = headers.get(b"authorization", b"").partition(b" ")
        same = hmac.compare_digest(found.strip(), self._token) and scheme.lower() == b"bearer"
        sentence = "authorization: allowed: Bearer and the service's token"
        _require(same, 401, sentence, (b"www-authenticate", b"Bearer"))

    async def _body(self, headers: dict[bytes, bytes], receive: Callable[[], Awaitable[Message]]) -> bytes:
        most = self.live.limits.body
        sentence = f"body: found more bytes than are allowed: {most:,}"
        announced = headers.get(b"content-length", b"0")
        _require(not announced.isdigit() or int(announced) <= most, 413, sentence)
        parts, length, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            parts.append(message.get("body", b""))
            length += len(parts[-1])
            _require(length <= most, 413, sentence)
            more = message.get("more_body", False)
        return b"".join(parts)

    def _call(self, loaded: Loaded, path: str, content: bytes) -> Answer:
        try:
            asked = read_json(content, partial(_no_number, path))
        except InputError:
            raise
        except (ValueError, RecursionError) as error:
            raise Refused(400, f"body: found {_no_json(error, content)}; allowed: JSON in UTF-8") from None
        return Answer(_json(answer(loaded.rec, path, asked, self.live.limits)))

    def _report(self) -> bytes:
        """The report of the run folder; where there is none, a page that says what can be asked."""
        run = self.live.source.run
        try:
            return read_file(run / REPORT, inside=run)
        except InputError:
            return PAGE.format(paths=", ".join(CALLS)).encode()


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Recommendations</title>
<h1>Recommendations</h1>
<p>This run has no report; <code>recsys-jax evaluate</code> makes one.</p>
<p>To be asked by POST with JSON: {paths}. <a href="openapi.json">openapi.json</a> says what each takes,
<a href="health">health</a> whether it is ready, <a href="metrics">metrics</a> what it did.
The manual is docs/serving.md of recsys_jax.</p>
</html>
"""


def _host(scope: Message, headers: dict[bytes, bytes]) -> str:
    """Where this request came, to be asked there again: its own word, or where it was received."""
    said = headers.get(b"host", b"").decode("latin-1")
    if re.fullmatch(r"[\w.-]+(:\d+)?|\[[0-9a-fA-F:.]+\](:\d+)?", said, re.ASCII):
        return said
    name, port = scope.get("server") or ("127.0.0.1", 8000)
    return f"{f'[{name}]' if ':' in name else name}:{port}"


def _no_number(path: str, word: str) -> None:
    raise InputError(f"{path}: found {word}, which JSON lacks; allowed: a number, or null for what is not stated")


def _no_json(error: Exception, content: bytes) -> str:
    """Why a body is no JSON, in words."""
    if isinstance(error, UnicodeDecodeError):
        return f"no UTF-8: byte {error.start + 1} is none"
    if isinstance(error, json.JSONDecodeError):
        return f"no JSON at line {error.lineno}, column {error.colno}" if content.strip() else "nothing"
    if isinstance(error, RecursionError):
        return "lists or objects too deep in each other"
    said = str(error).removeprefix("found ").partition(";")[0]  # of `read_json`, or Python's on long numbers
    return said if said.startswith("little") else "a number of too many digits"


def _json(document: object) -> bytes:
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode(errors="backslashreplace")


def _require(ok: bool, status: int, sentence: str, *headers: tuple[bytes, bytes]) -> None:
    if not ok:
        raise Refused(status, sentence, *headers)


def _require_json(headers: dict[bytes, bytes]) -> None:
    """Not what a form of another site's page may send unasked: that is text/plain, or says nothing."""
    kind, _, parameters = headers.get(b"content-type", b"").decode("latin-1").partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    encoding = headers.get(b"content-encoding", b"identity").decode("latin-1")
    fits = kind.strip().lower() == "application/json" and charset in ("", "utf-8", "utf8")
    _require(fits, 415, f"content-type: found {shown(kind + parameters)}; allowed: application/json, in UTF-8")
    _require(encoding == "identity", 415, f"content-encoding: found {shown(encoding)}; allowed: none")
