"""The command as a process: reachable from this machine alone, reloading under load, draining, in several workers."""

import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from command_line import run as in_process

from recsys_jax import InputError, Recommender, save_model
from recsys_jax.service.calls import Limits
from recsys_jax.service.live import Source
from recsys_jax.service.server import Settings, address, bind, loopback

DRY = {"age": 32, "gender": "F", "skin_type": "dry", "skin_concern": "moisture"}
JSON = {"content-type": "application/json"}
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/recommend", {"attributes": DRY, "top_n": 8, "explain": True}),
    ("/recommend", {"attributes": {**DRY, "age": 61}, "diversity": 0.5, "at_most": {"brand": 2}}),
    ("/recommend/batch", {"customers": [DRY, {**DRY, "skin_type": "oily"}], "top_n": 4}),
    ("/similar", {"product_id": "p3", "top_n": 7}),
    ("/explain", {"product_id": "p3", "attributes": DRY}),
    ("/customers-like", {"product_id": "p8"}),
]


class Service:
    """A running one."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.log: list[str] = []
        assert process.stdout is not None
        self.told = process.stdout.readline()
        found = re.search(r"at http://127\.0\.0\.1:(\d+)$", self.told.strip())
        assert found, self.told + self.ended()[1]
        self.port = int(found[1])

    def connect(self) -> "closing[http.client.HTTPConnection]":
        return closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60))

    def metrics(self) -> str:
        with self.connect() as connection:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()

    def ended(self) -> tuple[int, str]:
        """Its status and what it said on the standard error."""
        said = self.process.communicate(timeout=60)[1]
        return self.process.returncode, said


@contextmanager
def serving(run: Path, *options: object) -> Iterator[Service]:
    words = ["serve", run, "--port", 0, "--watch", 0.05, "--max-rows", 8, *options]
    command = [sys.executable, "-m", "recsys_jax", *map(str, words)]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield Service(process)
        finally:
            process.kill()


def post(connection: http.client.HTTPConnection, path: str, body: object) -> tuple[int, str, Any]:
    connection.request("POST", path, json.dumps(body), JSON)
    response = connection.getresponse()
    return response.status, response.headers["x-model"], json.loads(response.read())


def half(service: Service) -> tuple[socket.socket, bytes]:
    """A request that has begun and not ended, and what is left to send."""
    body = json.dumps({"attributes": DRY}).encode()
    head = (
        f"POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    opened = socket.create_connection(("127.0.0.1", service.port), timeout=60)
    opened.sendall(head.encode() + body[:10])
    time.sleep(0.2)  # until it is read
    return opened, body[10:]


def python(run: Path, path: str, asked: dict[str, Any]) -> Any:
    rec, given = Recommender.load(run), dict(asked)
    if path == "/recommend":
        return {"products": rec.recommend(**given)}
    if path == "/recommend/batch":
        return {"lists": rec.recommend_batch(given.pop("customers"), **given)}
    if path == "/similar":
        return {"products": rec.similar(**given)} if "top_n" not in given else {"products": rec.similar("p3", 7)}
    return rec.explain("p3", attributes=DRY) if path == "/explain" else {"values": rec.customers_like("p8")}


def reloads(tmp_path: Path, model_of: Any, times: int, workers: int = 1) -> int:
    """How many requests were answered, all of them rightly, while so many models came, and one that is damaged."""
    run = tmp_path / "run"
    models = [model_of("mall", name) for name in ("wide", "deep")]
    folders = [tmp_path / name for name in ("wide", "deep")]
    for model, folder in zip(models, folders, strict=True):
        save_model(model, folder)
    shutil.copytree(folders[0], run)
    expected = {folder.name: [python(folder, *one) for one in REQUESTS] for folder in folders}
    with serving(run, "--workers", workers) as service:
        over, wrong, numbers, seen = threading.Event(), [], count(), set()
        with service.connect() as first:
            known = post(first, *REQUESTS[0])[1]

        def keep_asking(offset: int) -> None:
            with service.connect() as connection:
                for number in count(offset):
                    if over.is_set():
                        return
                    at = number % len(REQUESTS)
                    try:
                        status, model, found = post(connection, *REQUESTS[at])
                    except (OSError, http.client.HTTPException) as error:
                        wrong.append(error)
                        return
                    seen.add(model)
                    right = expected["wide" if model == known else "deep"]
                    if status != 200 or found != right[at]:
                        wrong.append((model, at, found))
                    next(numbers)

        threads = [threading.Thread(target=keep_asking, args=[offset]) for offset in range(4)]
        for thread in threads:
            thread.start()

        def taken() -> dict[str, int]:
            return {n: int(x) for n, x in re.findall(r'reloads_total\{result="(\w+)"\} (\d+)', service.metrics())}

        def until(name: str, number: int) -> None:
            end = time.monotonic() + 60
            while taken()[name] < number * workers:
                assert time.monotonic() < end
                assert service.process.poll() is None
                time.sleep(0.02)

        for number in range(times):
            save_model(models[(number + 1) % 2], run)
            until("taken", number + 1)
        whole = (run / "model.json").read_bytes()
        (run / "model.json").write_bytes(whole[: len(whole) // 2])
        until("refused", 1)
        (run / "model.json").write_bytes(whole)
        until("taken", times + 1)
        over.set()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert len(seen) == 2
        service.process.send_signal(signal.SIGTERM)
        status, said = service.ended()
        assert status == 0
        assert "damaged" in said
        assert "stays in service" in said
        return next(numbers)


def test_reloads_under_load(tmp_path, model_of):
    assert reloads(tmp_path, model_of, 4) > 50


@pytest.mark.slow(reason="100 reloads of two models, by one worker and by two")
def test_fifty_reloads_under_load(tmp_path, model_of):
    for workers in (1, 2):
        (tmp_path / str(workers)).mkdir()
        asked = reloads(tmp_path / str(workers), model_of, 50, workers)
        print(f"\n{asked:,} answers by {workers} workers during 50 reloads, all right")


def test_sigterm_drains(mall_run):
    """A running request is answered, a new one refused, and the process ends well; only loopback was open."""
    with serving(mall_run) as service:
        assert service.told == f"Serving {mall_run} at http://127.0.0.1:{service.port}\n"
        others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
        for host in others - {"127.0.0.1"}:
            if not host.startswith("127."):
                with pytest.raises(OSError, match="refused"):
                    socket.create_connection((host, service.port), timeout=5)
        idle = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
        assert post(idle, *REQUESTS[0])[0] == 200
        running, rest = half(service)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", service.port), timeout=5)
        idle.auto_open = 0
        with closing(idle), pytest.raises((OSError, http.client.HTTPException)):
            post(idle, *REQUESTS[0])
        assert service.process.poll() is None
        running.sendall(rest)
        with running:
            answered = b"".join(iter(lambda: running.recv(65536), b""))
        assert answered.startswith(b"HTTP/1.1 200 OK\r\n")
        body = answered.partition(b"\r\n\r\n")[2]
        assert json.loads(body) == {"products": Recommender.load(mall_run).recommend(attributes=DRY)}
        status, said = service.ended()
        assert status == 0
        assert said.strip().endswith("Ended: no request is running")


@pytest.mark.parametrize("signals", [1, 2])
def test_who_does_not_end_in_time_is_cut_off(mall_run, signals):
    """After the seconds of --drain, or at the second signal."""
    with serving(mall_run, "--drain", 1 if signals == 1 else 60) as service:
        running, _ = half(service)
        began = time.monotonic()
        for _ in range(signals):
            service.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
        status, said = service.ended()
        assert status == 128 + signal.SIGTERM
        assert "Stopped: requests that were running had no answer" in said
        assert time.monotonic() - began < 10
        with running:
            assert (signals == 1) == running.recv(65536).startswith(b"HTTP/1.1 503 ")


def test_two_workers(mall_run):
    """Each answers; their counters are one; one that is killed is replaced; all end with the service."""
    with serving(mall_run, "--workers", 2) as service:
        workers = set()

        def asked(times: int) -> None:
            for _ in range(times):
                with service.connect() as connection:
                    assert post(connection, *REQUESTS[0])[0] == 200

        def children() -> set[int]:
            path = Path(f"/proc/{service.process.pid}/task")
            return {int(one) for task in path.iterdir() for one in (task / "children").read_text().split()}

        asked(10)
        text = service.metrics()
        assert 'requests_total{path="/recommend",status="200"} 10' in text
        assert "recsys_jax_workers 2" in text
        if Path("/proc").exists():
            workers = children()
            assert len(workers) == 2
            killed = min(workers)
            subprocess.run(["kill", "-9", str(killed)], check=True)
            end = time.monotonic() + 60
            while "recsys_jax_workers 2" not in text or len(children() - {killed}) < 2:
                assert time.monotonic() < end
                time.sleep(0.1)
                with suppress(OSError, http.client.HTTPException):  # what the killed one had taken
                    text = service.metrics()
            asked(10)
            workers = children()
        service.process.send_signal(signal.SIGTERM)
        status, said = service.ended()
        assert status == 0
        assert said.strip().endswith("Ended: no request is running")
        assert not [one for one in workers if Path(f"/proc/{one}").exists()]


def test_the_command_refuses(tmp_path, mall_run, monkeypatch):
    def refused(*words: object) -> str:
        found = in_process("serve", *words, cwd=tmp_path)
        assert found.returncode == 2
        return found.stderr

    assert "model.json: there is no such file" in refused("nothing", "--port", 0)
    assert "workers: found 0; allowed: 1 or more" in refused(mall_run, "--workers", 0)
    assert "top_n: found 0; allowed: 1 or more" in refused(mall_run, "--max-top-n", 0)
    assert "drain: found -1.0; allowed: seconds, above 0" in refused(mall_run, "--drain", -1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1, port {port}: " in refused(mall_run, "--port", port)
    for secret in ("short", "with spaces in it, and long", "schlüssel-schlüssel"):
        (tmp_path / "token").write_text(secret, encoding="utf-8")
        said = refused(mall_run, "--token-file", "token", "--port", 0)
        assert "token: found " in said
        assert secret not in said
    monkeypatch.setenv("RECSYS_JAX_TOKEN", "short")
    assert "RECSYS_JAX_TOKEN: found no token; allowed: 16 or more" in refused(mall_run, "--port", 0)


@pytest.mark.parametrize(("host", "local"), [("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False)])
def test_where_it_listens(host, local):
    with bind(host, 0) as listener:
        assert loopback(listener) is local
        assert re.fullmatch(r"http://[\d.\[\]:]+:\d+", address(listener))


@pytest.mark.parametrize("port", [-1, 2**16, 99999999])
def test_a_port_is_taken_as_it_is_said(port):
    with pytest.raises(InputError, match=f"port: found {port}; allowed: from 0, any that is free, to 65535"):
        bind("127.0.0.1", port)


def test_an_address_of_another_machine():
    with pytest.raises(InputError, match=r"192\.0\.2\.1, port 0: .*; allowed: an address of this machine"):
        bind("192.0.2.1", 0)


def test_settings_reach_a_worker_as_they_are():
    settings = Settings(Source(Path("run"), dataset=Path("shop")), Limits(rows=3), "token" * 4, 0.5, 3.0)
    assert Settings.of_json(settings.to_json()) == settings
