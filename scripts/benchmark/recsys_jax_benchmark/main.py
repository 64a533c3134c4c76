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
from collections.abc import Mapping, Sequence
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
from recsys_jax.evaluation import plots
from recsys_jax_benchmark import jobs, models, scaling, scoring, step, training
from recsys_jax_benchmark.process import Failure, Limits, Process, can_pin, left_behind, processors

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
    """Threads, and processors, of each contender."""
    repeats: int = 3
    """How often each contender is measured, in turns."""
    epochs: int = 500
    """Passes over the purchases in a training."""
    device: Literal["cpu", "gpu"] = "cpu"
    """Where models and vectors live."""
    out: Path = Path("runs/benchmark.json")
    """The file for all figures."""


def main(options: Options) -> str:
    """Measures, shows and writes; contenders that disagree end it with exit status 1."""
    # Nothing computes in this process, so that Ctrl-C may take the time to end the contenders and remove their files.
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
        picture = options.out.with_suffix(".png")
        limits = Limits(options.threads, options.device, cache=folder / "cache")
        setting = _setting(options, limits)
        require_folder(options.out.parent)  # told now, not after all the measuring
        _show_setting(setting)
        result: dict[str, Any] = dict(setting)
        if set(options.parts) - {"scoring", "jobs", "scaling"}:
            job = _job(options, folder)
        if "training" in options.parts:
            contenders = [name for name in training.CONTENDERS if name not in setting["left_out"]]
            with progress("training") as bar:
                result["training"] = _figures(training.measure(job, contenders, options.repeats, bar))
            _show_training(result["training"], options)
        if "step" in options.parts:
            with progress("step") as bar:
                result["step"] = _figures(step.measure(job, options.repeats, bar), step.WHOLE)
            _show_times("A step of training, and parts of it", result["step"], options)
        if "seeds" in options.parts:
            with progress("seeds") as bar:
                trained = models.seeds(job, SEEDS, options.repeats, bar)
            result["seeds"] = _figures(trained, models.ALONE)
            _show_times(f"Seeds, {SEEDS} models of {options.epochs:,} epochs", result["seeds"], options)
        if "requests" in options.parts and options.device == "cpu":
            with progress("requests") as bar:
                asked = replace(job, out=str(folder / "requests.pth"))
                result["requests"] = _figures(models.requests(asked, models.REQUESTERS, options.repeats, bar))
            _show_times("Requests, one customer of the mall, top 10", result["requests"], options)
        if "scoring" in options.parts:
            contenders = [name for name in scoring.CONTENDERS if name not in setting["left_out"]]
            with progress("scoring") as bar:
                measured = scoring.measure(scoring.CASES, contenders, options.repeats, limits, bar)
            result["scoring"] = [
                {"queries": case.queries, "products": case.products, "k": case.k, "contenders": _figures(found)}
                for case, found in zip(scoring.CASES, measured, strict=True)
            ]
            _show_scoring(result["scoring"], options)
        if "jobs" in options.parts:
            size = jobs.Size()
            with progress("jobs") as bar:
                result["jobs"] = _figures(jobs.measure(size, list(jobs.CONTENDERS), options.repeats, limits, bar))
            _show_jobs(size, result["jobs"], options)
        if "scaling" in options.parts:
            with progress("scaling") as bar:
                result["scaling"] = scaling.measure(options.repeats, limits, bar)
            plots.scaling(picture, result["scaling"])
            console.print(f"Written to {picture}: time and memory against products, queries, dimensions and purchases")
    write_file(options.out, json.dumps(result, indent=1) + "\n")
    console.print(f"Written to {options.out}: every repeat of all this")
    more = len(processors())
    return f"benchmark --threads {more}" if options.threads < more else "run"


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
            raise InputError(f"{name} is not installed; pip install 'recsys_jax[benchmark]' brings all contenders")


def _setting(options: Options, limits: Limits) -> dict[str, Any]:
    """What the figures hold for: the machine, the versions, who takes part."""
    left_out = {}
    gpus: dict[str, str | None] = {}
    with Process("describing the machine", "recsys_jax_benchmark.process", limits=limits) as process:
        blas = process.ask("blas")
        if options.device == "gpu":
            gpus = process.ask("gpus")
    if options.device == "gpu":
        if blind := [library for library, name in gpus.items() if name is None]:
            raise InputError(f"device: found gpu, but {' and '.join(blind)} can use none here; allowed: cpu")
        left_out = {name: "it runs on no GPU" for name in scoring.CONTENDERS if name not in scoring.GPU_CONTENDERS}
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
            raise InputError(f"{path}: the PyTorch contenders know a mall's JSON files alone")
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
    console.print("There are no customers yet: recsys-jax personas makes them first")
    arguments = ["-m", "recsys_jax", "personas", str(options.dataset), "--run", str(folder)]
    made = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if made.returncode:
        raise InputError(made.stderr.strip().removeprefix("error: "))
    return folder / "customers.json"


def _figures(measured: Measured, base: str = OURS) -> dict[str, dict[str, Any]]:
    """Every list of repeats as a figure; times also as ratios to those of one contender."""
    return {
        contender: {
            name: figure(repeats, measured[base][name] if name.endswith("_s") else None)
            for name, repeats in values.items()
        }
        for contender, values in measured.items()
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
    console.print(f"{setting['threads']} thread(s) for everyone, each contender in a process of its own, {bound}")
    console.print(", ".join(f"{name} {number}" for name, number in setting["versions"].items()))
    if setting["blas"]:
        console.print(f"NumPy multiplies with {setting['blas']}")
    for name, reason in setting["left_out"].items():
        console.print(f"note: {name} is left out: {reason}")
    if dropped := left_behind():
        console.print(f"note: contenders do not get {', '.join(dropped)} from the environment")


def _show_training(found: dict[str, dict[str, Any]], options: Options) -> None:
    title = f"Training, {options.epochs:,} epochs: median of {options.repeats} (times recsys_jax's), least .. most"
    table = _table(title, "steady", "compile", "whole process", "later process", "MB", name=14)
    for contender, figures in found.items():
        times = [_cell(figures[name]) for name in ("steady_s", "compile_s", "whole_process_s", "later_process_s")]
        table.add_row(contender, *times, f"{figures['peak_bytes']['median'] / 1e6:,.0f}")
        table.add_section()
    console.print(table)
    console.print("steady: a training once everything is compiled. compile: how much longer the first training takes")
    console.print("(without torch.compile: its first calls).")
    console.print("whole process: from the interpreter's start to the saved model, with nothing in compilers' caches;")
    console.print("later process: with what the first one left there.")
    console.print("MB: memory of the process at its peak up to the saved model, without compilers that it starts.")


def _show_times(title: str, found: dict[str, dict[str, Any]], options: Options) -> None:
    names = list(next(iter(found.values())))
    table = _table(f"{title}: median of {options.repeats}", *(name.removesuffix("_s") for name in names))
    for contender, figures in found.items():
        table.add_row(contender, *(_cell(figures[name]) for name in names))
    console.print(table)


def _show_jobs(size: jobs.Size, found: dict[str, dict[str, Any]], options: Options) -> None:
    title = f"A job, {size.customers:,} customers x {size.products:,} products, Parquet to Parquet"
    table = _table(f"{title}: median of {options.repeats}", "whole process", "customers/s", "peak MB")
    for contender, figures in found.items():
        rate, peak = figures["customers_per_s"]["median"], figures["peak_bytes"]["median"]
        table.add_row(contender, _cell(figures["time_s"]), f"{rate:,.0f}", f"{peak / 1e6:,.0f}")
    console.print(table)


def _show_scoring(found: Sequence[dict[str, Any]], options: Options) -> None:
    title = f"Scoring, queries x products, best k: median of {options.repeats} (times recsys_jax's)"
    table = _table(title, "time", "least .. most", "first call", "peak MB")
    for case in found:
        table.add_row(f"{case['queries']:,} x {case['products']:,}, {case['k']}")
        for contender, figures in case["contenders"].items():
            median, spread = _cell(figures["time_s"]).split("\n")
            first = _seconds(figures["first_call_s"]["median"])
            table.add_row(f"  {contender}", median, spread, first, _memory(figures))
        table.add_section()
    console.print(table)
    console.print("All answers are equal. first call: with what is compiled then.")
    console.print("peak: memory of the process (+ what it did not hold before the first call).")


def _table(title: str, *columns: str, name: int = 22) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", min_width=name, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _cell(figure: dict[str, Any] | None) -> str:
    """Median and ratio; on a second line the spread."""
    if figure is None:
        return "-"
    ratio = f" ({figure['ratio']:.1f}x)" if "ratio" in figure else ""
    like = figure["median"]
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


def _memory(figures: dict[str, Any]) -> str:
    above = figures["peak_above_held_bytes"]
    extra = "" if above is None else f" (+{above['median'] / 1e6:,.0f})"
    return f"{figures['peak_bytes']['median'] / 1e6:,.0f}{extra}"
