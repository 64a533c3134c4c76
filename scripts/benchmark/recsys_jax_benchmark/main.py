"""Training and scoring against PyTorch, NumPy and Faiss: same data, same threads, results checked equal first.

Example: recsys-jax benchmark --threads 1
"""

import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro
from rich.box import SIMPLE_HEAD
from rich.table import Table

from recsys_jax.console.places import MALL, made_customers
from recsys_jax.console.terminal import console, errors, progress
from recsys_jax.data.dataset import read_schema
from recsys_jax.data.files import require_folder, write_file
from recsys_jax.errors import InputError
from recsys_jax_benchmark import scaling, scoring, serving, training
from recsys_jax_benchmark.process import Failure, Limits, Process, Progress, can_pin, left_behind, processors

OURS, SEEDS = "recsys_jax", 32
Part = Literal["training", "step", "seeds", "requests", "scoring", "jobs", "scaling"]
Measured = Mapping[str, Mapping[str, Sequence[float | None]]]


@dataclass(frozen=True)
class Options:
    """Training and scoring against PyTorch, NumPy and Faiss: same data, same threads, results checked equal first."""

    dataset: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATASET")]] = MALL
    """The folder of a mall, with dataset.toml, that everyone trains on."""
    customers: Path | None = None
    """Its customers (JSON); by default those that `recsys-jax personas` made, which runs first where it has not yet."""
    parts: tuple[Part, ...] = get_args(Part)
    """What is measured."""
    threads: int = 1
    """Threads, and processors, of each method."""
    repeats: int = 3
    """How often each method is measured, in turns."""
    epochs: int = 500
    """Passes over the purchases in a training."""
    device: Literal["cpu", "gpu"] = "cpu"
    """Where models and vectors live."""
    out: Path = Path("runs/benchmark.json")
    """The file for all figures."""


def main(options: Options) -> str:
    """Measures, shows and writes; methods that disagree end it with exit status 1."""
    # Nothing computes in this process, so that Ctrl-C may take the time to end the methods and remove their files.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return _main(options)
    except KeyboardInterrupt:
        errors.print("stopped")
        sys.exit(130)
    except Failure as failure:
        errors.print(f"error: {failure}")
        sys.exit(1)


def _main(options: Options) -> str:
    _check(options)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as temporary:
        folder = Path(temporary)
        limits = Limits(options.threads, options.device, cache=folder / "cache")
        setting = _setting(options, limits)
        require_folder(options.out.parent)  # told now, not after all the measuring
        _show_setting(setting)
        result = dict(setting)
        for part in get_args(Part):
            if part in options.parts and (part, options.device) != ("requests", "gpu"):
                with progress(part) as bar:
                    result[part] = _measure(part, options, limits, setting["left_out"], folder, bar)
                _show(part, options, result[part])
    write_file(options.out, json.dumps(result, indent=1) + "\n")
    console.print(f"Written to {options.out}: every repeat of all this")
    more = len(processors())
    return f"benchmark --threads {more}" if options.threads < more else "run"


def _measure(
    part: Part, options: Options, limits: Limits, left_out: Mapping[str, str], folder: Path, bar: Progress
) -> Any:
    """The figures of a part."""
    repeats = options.repeats
    if part == "scoring":
        methods = [name for name in scoring.METHODS if name not in left_out]
        measured = scoring.measure(scoring.CASES, methods, repeats, limits, bar)
        return [
            {"queries": case.queries, "products": case.products, "k": case.k, "methods": _figures(found)}
            for case, found in zip(scoring.CASES, measured, strict=True)
        ]
    if part == "jobs":
        return _figures(serving.jobs(serving.Size(), list(serving.METHODS), repeats, limits, bar))
    if part == "scaling":
        return scaling.measure(repeats, limits, bar)
    job = _job(options, folder)
    if part == "training":
        methods = [name for name in training.METHODS if name not in left_out]
        return _figures(training.measure(job, methods, repeats, bar))
    if part == "step":
        return _figures(training.steps(job, repeats, bar), training.STEP)
    if part == "seeds":
        return _figures(training.seeds(job, SEEDS, repeats, bar), training.ALONE)
    return _figures(serving.requests(replace(job, out=str(folder / "requests.pth")), repeats, bar))


def _check(options: Options) -> None:
    available = len(processors())
    if not 1 <= options.threads <= available:
        raise InputError(f"threads: found {options.threads}; allowed: 1 to {available}, the processors here")
    for name, value in (("repeats", options.repeats), ("epochs", options.epochs)):
        if value < 1:
            raise InputError(f"{name}: found {value}; allowed: a whole number from 1")
    if options.out.is_dir():
        raise InputError(f"{options.out}: found a folder; allowed: the file for the figures")
    for name in ("torch", "faiss", "pandas", "pyarrow", "matplotlib"):
        if find_spec(name) is None:
            raise InputError(f"{name} is not installed; pip install 'recsys_jax[benchmark]' brings all methods")


def _setting(options: Options, limits: Limits) -> dict[str, Any]:
    """What the figures hold for: the machine, the versions, who takes part."""
    left_out = {}
    gpus: dict[str, str | None] = {}
    with Process("describing the machine", machine_child, limits=limits) as process:
        blas = process.ask("blas")
        if options.device == "gpu":
            gpus = process.ask("gpus")
    if options.device == "gpu":
        if blind := [library for library, name in gpus.items() if name is None]:
            raise InputError(f"device: found gpu, but {' and '.join(blind)} can use none here; allowed: cpu")
        left_out = {name: "it runs on no GPU" for name in scoring.METHODS if name not in scoring.GPU_METHODS}
    if training.compiler() is None:
        why = "there is no C++ compiler here, and torch.compile needs one"
        left_out |= dict.fromkeys(training.COMPILED, why)
    return {
        "device": gpus.get("JAX") or "cpu",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "pinned": can_pin(),
        "blas": blas,
        "versions": _versions(),
        "repeats": options.repeats,
        "epochs": options.epochs,
        "left_out": left_out,
    }


def machine_child() -> dict[str, Any]:
    """A process that says what it finds here."""

    def blas() -> str | None:
        """NumPy's BLAS as it runs here."""
        import numpy as np
        from threadpoolctl import threadpool_info

        np.ones((2, 2)) @ np.ones((2, 2))
        found = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
        return f"{found[0]['internal_api']} {found[0]['version']} ({found[0]['architecture']})" if found else None

    def gpus() -> dict[str, str | None]:
        """The first GPU as JAX and as PyTorch call it."""
        import jax
        import torch

        try:
            name: str | None = jax.devices("gpu")[0].device_kind
        except RuntimeError:
            name = None
        return {"JAX": name, "PyTorch": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None}

    return {"blas": blas, "gpus": gpus}


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "faiss-cpu"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # such as a faiss that conda built
            found[name] = "unknown"
    return found


def _job(options: Options, folder: Path) -> training.Job:
    """What everyone trains on."""
    schema = read_schema(options.dataset)
    products = options.dataset / schema.products.file
    customers = options.customers or made_customers(options.dataset)
    if customers is None:
        customers = options.dataset / schema.customers.file if schema.customers.file else _personas(options, folder)
    for path in (products, customers):
        if path.suffix != ".json":
            raise InputError(f"{path}: the PyTorch methods know a mall's JSON files alone")
        if not path.exists():
            raise InputError(f"{path}: there is no such file")
    return training.Job(
        dataset=str(options.dataset),
        products=str(products),
        customers=str(customers),
        out=str(folder / "models"),
        epochs=options.epochs,
        threads=options.threads,
        device=options.device,
    )


def _personas(options: Options, folder: Path) -> Path:
    """The customers, made of the dataset's reviews."""
    if (folder / "customers.json").exists():
        return folder / "customers.json"
    console.print("There are no customers yet: recsys-jax personas makes them first")
    arguments = ["-m", "recsys_jax", "personas", str(options.dataset), "--run", str(folder)]
    made = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if made.returncode:
        raise InputError(made.stderr.strip().removeprefix("error: "))
    return folder / "customers.json"


def _figures(measured: Measured, base: str = OURS) -> dict[str, dict[str, Any]]:
    """Every list of repeats as a figure; times also as ratios to those of one method."""
    return {
        method: {
            name: figure(repeats, measured[base][name] if name.endswith("_s") and not name.endswith("_per_s") else None)
            for name, repeats in values.items()
        }
        for method, values in measured.items()
    }


def figure(repeats: Sequence[float | None], ours: Sequence[float | None] | None = None) -> dict[str, Any] | None:
    """Median, spread and all repeats; `ratio` is the median over repeats of the ratio to ours in the same repeat.

    None where nothing was measured.

    >>> figure([4.0, 6.0, 9.0], [2.0, 2.0, 1.0])
    {'median': 6.0, 'min': 4.0, 'max': 9.0, 'ratio': 3.0, 'repeats': [4.0, 6.0, 9.0]}
    """
    values = [one for one in repeats if one is not None]
    if not values:
        return None
    found: dict[str, Any] = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    if ours is not None and all(ours):
        found["ratio"] = statistics.median(one / other for one, other in zip(values, ours, strict=True) if other)
    return {**found, "repeats": values}


def _show_setting(setting: dict[str, Any]) -> None:
    console.print(f"device {setting['device']}, {setting['cpu']}, {setting['cores']} cores")
    bound = "pinned to as many processors" if setting["pinned"] else "not pinned: this system cannot, so JAX uses all"
    console.print(f"{setting['threads']} thread(s) for everyone, each method in a process of its own, {bound}")
    console.print(", ".join(f"{name} {number}" for name, number in setting["versions"].items()))
    if setting["blas"]:
        console.print(f"NumPy multiplies with {setting['blas']}")
    for name, reason in setting["left_out"].items():
        console.print(f"note: {name} is left out: {reason}")
    if dropped := left_behind():
        console.print(f"note: methods do not get {', '.join(dropped)} from the environment")


TIMES = "median (times recsys_jax's), least .. most"
# For each part a title, the columns by what they show, and what is to be known of them.
TABLES: dict[Part, tuple[str, Mapping[str, str], str]] = {
    "training": (
        "Training",
        {"steady_s": "steady", "compile_s": "compile", "whole_process_s": "whole process"}
        | {"later_process_s": "later process", "peak_bytes": "MB"},
        "steady: a training once everything is compiled. compile: how much longer the first training takes (without "
        "torch.compile: its first calls). whole process: from the interpreter's start to the saved model, with nothing "
        "in compilers' caches; later process: with what the first one left there. MB: memory of the process at its "
        "peak up to the saved model, without compilers that it starts.",
    ),
    "step": ("A step of training, and parts of it", {"time_s": "time"}, ""),
    "seeds": (f"{SEEDS} models", {"time_s": "time"}, ""),
    "requests": ("Requests, one customer of the mall, top 10", {"p50_s": "p50", "p99_s": "p99"}, ""),
    "scoring": (
        "Scoring, queries x products, best k",
        {"time_s": "time", "first_call_s": "first call", "peak_bytes": "MB", "peak_above_held_bytes": "MB above"},
        "All answers are equal. first call: with what is compiled then. MB: the peak of the process; above: what it "
        "did not hold before the first call.",
    ),
    "jobs": (
        f"A job, {serving.Size().customers:,} customers x {serving.Size().products:,} products, Parquet to Parquet",
        {"time_s": "whole process", "customers_per_s": "customers/s", "peak_bytes": "MB"},
        "",
    ),
}


def _show(part: Part, options: Options, found: Any) -> None:
    """The part's table; of the curves a picture."""
    if part == "scaling":
        picture = options.out.with_suffix(".png")
        scaling.draw(picture, found)
        console.print(f"Written to {picture}: time and memory against products, queries, dimensions and purchases")
        return
    title, columns, note = TABLES[part]
    table = Table(title=f"{title}: {TIMES}", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column("", min_width=14, overflow="fold")
    for column in columns.values():
        table.add_column(column, justify="right", no_wrap=True)
    cases: Iterable[tuple[str, Mapping[str, Any]]] = [("", found)]
    if part == "scoring":
        cases = [(f"{one['queries']:,} x {one['products']:,}, {one['k']}", one["methods"]) for one in found]
    for case, methods in cases:
        if case:
            table.add_row(case)
        for method, figures in methods.items():
            table.add_row(method, *(_cell(name, figures[name]) for name in columns))
        table.add_section()
    console.print(table)
    if note:
        console.print(note)


def _cell(name: str, figure: Mapping[str, Any] | None) -> str:
    """A figure as its name wants it: of times also the ratio and, on a second line, the spread."""
    if figure is None:
        return "-"
    like = figure["median"]
    if not name.endswith("_s") or name.endswith("_per_s"):
        return f"{like / (1e6 if name.endswith('_bytes') else 1):,.0f}"
    ratio = f" ({figure['ratio']:.1f}x)" if "ratio" in figure else ""
    spread = f"{_seconds(figure['min'], like).split()[0]} .. {_seconds(figure['max'], like)}"
    return f"{_seconds(like)}{ratio}\n{spread}"


def _seconds(value: float, like: float | None = None) -> str:
    """A time with three digits, in the unit that suits it or another time.

    >>> _seconds(12.345), _seconds(0.123), _seconds(0.123, like=2.0), _seconds(0.00000456)
    ('12.3 s', '123 ms', '0.12 s', '4.56 us')
    """
    units = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
    unit = next((unit for unit, size in units.items() if (like or value) >= size), "us")
    scaled = value / units[unit]
    return f"{scaled:.{max(0, 3 - len(str(int(scaled))))}f} {unit}"
