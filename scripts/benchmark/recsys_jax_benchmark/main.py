"""Training and scoring against PyTorch, NumPy and Faiss: same data, same threads, results checked equal first.

Example: recsys-jax benchmark --threads 1
"""

import json
import os
import platform
import re
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro
from rich.box import SIMPLE_HEAD
from rich.table import Table

from recsys_jax.console.options import Common
from recsys_jax.console.places import MALL
from recsys_jax.console.terminal import answer, console, errors, progress
from recsys_jax.data.dataset import read_schema
from recsys_jax.data.files import require_folder, write_file
from recsys_jax.errors import InputError, installing
from recsys_jax_benchmark import process, scaling, scoring, serving, training, wide
from recsys_jax_benchmark.process import Failure, Limits, Measured, Progress, in_process, processors, repeated
from recsys_jax_benchmark.pytorch.train import mall_files

SEEDS = 32
Part = Literal["training", "step", "seeds", "requests", "scoring", "jobs", "scaling", "wide"]


@dataclass(frozen=True)
class Options(Common):
    """Training and scoring against PyTorch, NumPy and Faiss: same data, same threads, results checked equal first."""

    dataset: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATASET")]] = MALL
    """The folder of a mall, with dataset.toml, that everyone trains on."""
    customers: Path | None = None
    """Its customers (JSON); by default those that `recsys-jax personas` made."""
    movielens: Path | None = None
    """MovieLens-100k as `recsys-jax dataset movielens` writes it, for the part wide, which has a generated shop too."""
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
    examples = ("", "--parts scoring requests --repeats 5", "--threads 2 --out runs/two-threads.json")


def main(options: Options) -> str:
    """Measures, shows and writes; methods that disagree end it with exit status 1."""
    # Nothing computes in this process, so that Ctrl-C may take the time to end the methods and remove their files.
    signal.set_wakeup_fd(-1)
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
        result = _setting(options, limits)
        require_folder(options.out.parent)  # told now, not after all the measuring
        _show_setting(result)
        for part in get_args(Part):
            if part in options.parts and (part, options.device) != ("requests", "gpu"):
                with progress(part) as bar:
                    result[part] = _measure(part, options, limits, result["left_out"], folder, bar)
                _show(part, options, result[part])
    write_file(options.out, json.dumps(result, indent=1) + "\n")
    answer["figures"] = result
    console.print(f"Written to {options.out}: every repeat of all this")
    more = len(processors())
    return f"benchmark --threads {more}" if options.threads < more else "run"


def _measure(
    part: Part, options: Options, limits: Limits, left_out: Mapping[str, str], folder: Path, bar: Progress
) -> Any:
    """The figures of a part."""
    repeats = options.repeats
    if part == "scaling":
        return scaling.measure(repeats, limits, bar)
    if part == "scoring":
        methods = [name for name in scoring.METHODS if name not in left_out]
        measured = scoring.measure(scoring.CASES, methods, repeats, limits, bar)
        return [
            {"queries": case.queries, "products": case.products, "k": case.k, "methods": _figures(found)}
            for case, found in zip(scoring.CASES, measured, strict=True)
        ]
    if part == "wide":
        sources = {wide.MOVIELENS: options.movielens, wide.SHOP: wide.Shop()}
        there = {name: source for name, source in sources.items() if source is not None}
        cases = wide.measure(there, repeats, limits, folder, bar)
        return [{**case, "methods": _figures(case["methods"])} for case in cases]
    if part == "jobs":
        return _figures(serving.jobs(serving.Size(), list(serving.METHODS), repeats, limits, bar))
    customers, products = mall_files(options.dataset, options.customers)
    job = training.Job(options.dataset, products, customers, options.epochs)
    if part == "training":
        methods = [name for name in training.METHODS if name not in left_out]
        return _figures(training.measure(job, methods, repeats, limits, folder / "models", bar))
    if part == "requests":
        return _figures(serving.requests(job, repeats, limits, folder / "requests.pth", bar))
    again = partial(repeated, limits=limits, repeats=repeats, progress=bar)
    if part == "step":
        return _figures(again(training.STEP, training.take_steps, job, training.TURNS), training.STEP)
    one = again(training.ALONE, training.train_together, job, 1)
    return _figures(one | again(f"{SEEDS} models", training.train_together, job, SEEDS), training.ALONE)


def _check(options: Options) -> None:
    available = len(processors())
    if not 1 <= options.threads <= available:
        raise InputError(f"threads: found {options.threads}; allowed: 1 to {available}, the processors here")
    for name, value in (("repeats", options.repeats), ("epochs", options.epochs)):
        if value < 1:
            raise InputError(f"{name}: found {value}; allowed: a whole number from 1")
    if options.movielens is not None:
        read_schema(options.movielens)
    if options.out.is_dir():
        raise InputError(f"{options.out}: found a folder; allowed: the file for the figures")
    for name in ("torch", "faiss", "pandas", "pyarrow"):
        if find_spec(name) is None:
            raise InputError(f"{name} is not installed; {installing('benchmark')} brings all methods")


def _setting(options: Options, limits: Limits) -> dict[str, Any]:
    """What the figures hold for: the machine, the versions, who takes part."""
    with in_process("describing the machine", machine, limits=limits) as ask:
        blas, device = ask()
    if device is None:
        raise InputError("device: found gpu, but JAX or PyTorch can use none here; allowed: cpu")
    on_cpu = [name for name in scoring.METHODS if options.device == "gpu" and name not in scoring.GPU_METHODS]
    left_out = dict.fromkeys(on_cpu, "it runs on no GPU")
    if training.compiler() is None:
        left_out |= dict.fromkeys(training.COMPILED, "there is no C++ compiler here, and torch.compile needs one")
    if "wide" in options.parts and options.movielens is None:
        left_out[wide.MOVIELENS] = "--movielens names its folder, which `recsys-jax dataset movielens` writes"
    info = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.+)", info.read_text(), re.MULTILINE) if info.exists() else None
    installed = {found.name: found.version for found in distributions()}
    versions = {"python": platform.python_version()}
    for name in ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "faiss-cpu"):
        versions[name] = installed.get(name, "unknown")  # such as a faiss that conda built
    return {
        "device": device,
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "pinned": process.CAN_PIN,
        "blas": blas,
        "versions": versions,
        "repeats": options.repeats,
        "epochs": options.epochs,
        "left_out": left_out,
    }


def machine(limits: Limits) -> Iterator[tuple[str | None, str | None]]:
    """A process that says what NumPy's BLAS is as it runs here, and the device, None where it cannot be used."""
    import numpy as np
    from threadpoolctl import threadpool_info

    np.ones((2, 2)) @ np.ones((2, 2))
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    blas = f"{pools[0]['internal_api']} {pools[0]['version']} ({pools[0]['architecture']})" if pools else None
    device = "cpu" if limits.device == "cpu" else None
    if limits.device == "gpu":
        import jax
        import torch

        with suppress(RuntimeError):
            device = jax.devices("gpu")[0].device_kind if torch.cuda.is_available() else None
    yield blas, device


def _is_time(quantity: str) -> bool:
    return quantity.endswith("_s") and not quantity.endswith("_per_s")


def _figures(measured: Measured, base: str = process.OURS) -> dict[str, dict[str, Any]]:
    """Every list of repeats as a figure; times also as ratios to those of one method."""
    return {
        method: {
            name: figure(found, measured[base][name] if _is_time(name) else None) for name, found in values.items()
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
    if dropped := sorted(name for name in os.environ if name.startswith(process.TUNING)):
        console.print(f"note: methods do not get {', '.join(dropped)} from the environment")


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
    "wide": (
        "Training wide, and others on the same purchases",
        {"steady_s": "training", "compile_s": "compile", "mrr": "MRR"},
        "Without imports and reading; ours holds the encoding of attributes, which the others are given. compile: how "
        "much longer the first training of a process takes. MRR: of held-out customers, known by attributes.",
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
    title = f"{title}: median (times recsys_jax's), least .. most"
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column("", min_width=14, overflow="fold")
    for column in columns.values():
        table.add_column(column, justify="right", no_wrap=True)
    for case in found if isinstance(found, list) else [{"methods": found}]:
        if part == "scoring":
            table.add_row(f"{case['queries']:,} x {case['products']:,}, {case['k']}")
        if part == "wide":
            table.add_row(f"{case['title']}: {case['purchases']:,} purchases")
        for method, figures in case["methods"].items():
            table.add_row(method, *(_cell(name, figures[name]) for name in columns))
        table.add_section()
    console.print(table)
    for case in found if part == "wide" else ():
        for name, reason in case["left_out"].items():
            console.print(f"note: {name} is left out of {case['title']}: {reason}")
    if note:
        console.print(note)


def _cell(name: str, figure: Mapping[str, Any] | None) -> str:
    """A figure as its name wants it: of times also the ratio and, on a second line, the spread."""
    if figure is None:
        return "-"
    like = figure["median"]
    if name == "mrr":
        return f"{like:.4f}"
    if not _is_time(name):
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
