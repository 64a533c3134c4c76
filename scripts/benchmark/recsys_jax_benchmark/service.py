"""A service under load, next to the same model behind a plain FastAPI and PyTorch.

`python -m recsys_jax_benchmark.service` needs wrk (`apt-get install wrk`), FastAPI and PyTorch. Each row of the
table is printed once it is measured.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import Request, urlopen

from recsys_jax import stopping
from recsys_jax_benchmark.process import OURS, Failure, Limits, in_process
from recsys_jax_benchmark.serving import K, Size, answers, make

PLAIN = "FastAPI and PyTorch"
PERSON = {"age": 32, "gender": "F", "skin_type": "dry", "skin_concern": "moisture"}
ASKED = json.dumps({"attributes": PERSON, "top_n": K})
FOLDER = "RECSYS_JAX_BENCHMARK_FOLDER"
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def plain() -> Any:
    """The application as people write it: pydantic reads the request, the tower runs in the event loop."""
    import pandas as pd
    import torch
    from fastapi import FastAPI
    from pydantic import BaseModel

    from recsys_jax_benchmark.pytorch import reference

    class Customer(BaseModel):
        age: int
        gender: str
        skin_type: str
        skin_concern: str

    class Asked(BaseModel):
        attributes: Customer
        purchased_products: list[str] = []
        top_n: int = K

    torch.set_num_threads(1)
    folder = Path(os.environ[FOLDER])
    model, brands = reference.load(folder / "model.pth")
    request = answers(model, brands, pd.read_parquet(folder / "shop" / "products.parquet").to_dict("records"))
    app = FastAPI()

    async def recommend(asked: Asked) -> dict[str, Any]:
        return {"products": request(asked.attributes.model_dump(), asked.purchased_products)}

    app.post("/recommend")(recommend)
    return app


@contextmanager
def serving(method: str, folder: Path, workers: int, limits: Limits) -> Iterator[str]:
    """The address of a service with one model. Raises `Failure` where it does not come up within five minutes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    common = ["--port", port, "--workers", str(workers)]
    words = ["recsys_jax", "serve", str(folder / "run"), *common]
    if method == PLAIN:
        words = ["uvicorn", "recsys_jax_benchmark.service:plain", "--factory", "--no-access-log", *common]
    environment = {**limits.environment(), FOLDER: str(folder)}
    command = [sys.executable, "-m", *words]
    with stopping.child(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        where, end = f"http://127.0.0.1:{port}/recommend", time.monotonic() + 300
        while True:
            try:
                ask(where)
                break
            except OSError as error:
                if process.poll() is not None or time.monotonic() > end:
                    raise Failure(f"{method}: the service does not answer: {error}") from None
                time.sleep(0.5)
        time.sleep(3.0 * (workers - 1))  # until the others are there, too
        try:
            yield where
        finally:
            process.terminate()
            process.wait(30)


def ask(where: str) -> list[str]:
    """The ids of the products that are answered."""
    request = Request(where, ASKED.encode(), {"content-type": "application/json"})
    with urlopen(request, timeout=60) as response:
        return [one["product_id"] for one in json.load(response)["products"]]


def load(where: str, connections: int, seconds: float, script: Path) -> tuple[float, float, float]:
    """Requests per second, and the milliseconds of the median one and of one of a hundred."""
    words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "-s", str(script), where]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise Failure(f"{where}: found answers that are none:\n{said}")
    times = {share: float(x) * UNITS[unit] for share, x, unit in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s)", said)}
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert rate is not None
    return float(rate[1]), times["50"], times["99"]


def main(seconds: float = 5.0) -> None:
    """Prints the table. Raises `Failure` where both do not recommend the same."""
    if shutil.which("wrk") is None:
        raise Failure("wrk: found none; allowed: the load tool of that name, as in apt-get install wrk")
    print("| products | workers | connections | service | requests per second | p50, ms | p99, ms |")
    print("|---|---|---|---|---|---|---|")
    for count in (93, 100_000):
        with TemporaryDirectory(prefix="benchmark-service-") as temporary:
            folder = Path(temporary)
            limits = Limits(1, "cpu", folder / "cache")
            with in_process("making the model", make, folder, Size(10, count), limits=limits) as made:
                made()
            script = folder / "ask.lua"
            head = 'wrk.method = "POST"\nwrk.headers["content-type"] = "application/json"\n'
            script.write_text(f"{head}wrk.body = {json.dumps(ASKED)}\n", encoding="utf-8")
            for workers in (1, 2):
                found = {}
                for method in (PLAIN, OURS):
                    with serving(method, folder, workers, limits) as where:
                        found[method] = ask(where)
                        for connections in (1, 16):
                            load(where, connections, 1.0, script)
                            rate, median, slow = load(where, connections, seconds, script)
                            row = (f"{count:,}", workers, connections, method, f"{rate:,.0f}")
                            print("|", " | ".join(map(str, row)), f"| {median:.2f} | {slow:.2f} |", flush=True)
                if found[PLAIN] != found[OURS]:
                    raise Failure(f"{OURS} and {PLAIN} do not recommend the same: {found}")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]))
