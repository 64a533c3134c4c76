"""Trains other recommenders, tuned on inner folds, on the split that ours is evaluated on, each in its own environment.

Example: python -m recsys_jax_benchmark.peers lightfm FOLDER [FOLDER ...]

FOLDER holds split.npz; peer-lightfm.npz is written beside it. The peers can't share our environment (RecTools needs
numpy below 2), so this imports nothing of ours, and starts itself again in an environment in the user's cache folder
where the peer is missing. Customers are asked for by their attributes alone: no peer sees who they are.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are small, and seconds are told of one thread

from .models import PEERS, SEED
from .task import Diverged, InputError, inner_task, measure, metrics, outer_task, popularity, ranks, read_split

try:
    import numpy as np
    import scipy  # noqa: F401
except ModuleNotFoundError:  # a bare Python: at_home() starts the one that has them
    BARE = True
else:
    BARE = False

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .models import Setting, Train
    from .task import Floats, Task

HOMES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recsys_jax" / "peers"
"""Where each peer has its environment."""
AGAIN = "import sys, runpy; sys.path.append(sys.argv.pop(1)); runpy.run_module('peers', run_name='__main__')"
"""This package by its own name: there is no recsys_jax in the peer's environment."""
MODULES = {"lightfm": "lightfm", "rectools": "rectools"}
PACKAGES = {"lightfm": ("lightfm-next", "numpy", "scipy"), "rectools": ("rectools", "torch", "numpy", "scipy")}
PATIENCE = 4
"""Training stops after this many measurements without a better one."""


# Tuning


@dataclass
class Trial:
    """One setting on the inner folds: its MRR at each measured epoch."""

    setting: Setting
    curve: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def epochs(self) -> int:
        """The epoch of the best MRR; ties go to the earliest. 0 where nothing was measured."""
        return max(self.curve, key=lambda point: point[1], default=(0, 0.0))[0]

    @property
    def score(self) -> float:
        """The best MRR; 0 where nothing was measured."""
        return max((score for _, score in self.curve), default=0.0)


def search(task: Task, train: Train, settings: Sequence[Setting], say: Callable[[str], None]) -> list[Trial]:
    """Trains each setting up to setting["most"] epochs, measured every setting["every"], until it gets no better."""
    trials = []
    for number, setting in enumerate(settings, 1):
        trial = Trial(setting)
        began = time.perf_counter()

        def watch(epoch: int, scores: Callable[[], Floats], trial: Trial = trial) -> bool:
            if epoch % trial.setting["every"] == 0:
                trial.curve.append((epoch, measure(task, scores())["MRR"]))
            since = sum(at > trial.epochs for at, _ in trial.curve)
            return since < PATIENCE and epoch < trial.setting["most"]

        note = ""
        try:
            train(task, setting, watch)
        except Diverged:
            note = ", then diverged"
        trial.seconds = time.perf_counter() - began
        trials.append(trial)
        say(
            f"  {number:2}/{len(settings)}  inner MRR {trial.score:.4f} at epoch {trial.epochs:3} of "
            f"{trial.curve[-1][0] if trial.curve else 0:3}{note}  {trial.seconds:5.1f} s  {told(setting)}"
        )
    return trials


def choose(trials: Sequence[Trial]) -> Trial:
    """The trial of the best inner MRR; ties go to the first. Raises `InputError` where all diverged."""
    best = max(trials, key=lambda trial: trial.score)
    if not best.curve:
        raise InputError("no setting could be trained to its first measurement; the attributes may be too large")
    return best


def final_scores(task: Task, train: Train, setting: Setting, epochs: int) -> Floats:
    """The scores after so many epochs on all of the task."""
    kept: list[Floats] = []

    def watch(epoch: int, scores: Callable[[], Floats]) -> bool:
        if epoch == epochs:
            kept.append(scores())
        return epoch < epochs

    train(task, {**setting, "most": epochs}, watch)
    if not np.isfinite(kept[0]).all():
        raise Diverged
    return kept[0]


def told(setting: Setting) -> str:
    """The setting in a line, without how it is measured."""
    return " ".join(f"{name}={value}" for name, value in setting.items() if name not in {"every", "most"})


# The command


def run(peer: str, folder: Path, say: Callable[[str], None] = print) -> Path:
    """Tunes on the inner folds, trains on all training customers, ranks the queries; the file that was written."""
    split = read_split(folder)
    make_settings, train = PEERS[peer]
    began = time.perf_counter()
    inner = inner_task(split)
    settings = make_settings(inner)
    say(
        f"{folder}: {len(split.train):,} training purchases, {len(split.queries):,} queries; "
        f"{len(settings)} settings of {peer} on the inner folds"
    )
    say(f"  popularity  inner MRR {measure(inner, popularity(inner))['MRR']:.4f}")
    trials = search(inner, train, settings, say)
    best = choose(trials)
    task = outer_task(split)
    try:
        better, equal = ranks(final_scores(task, train, best.setting, best.epochs), task.rows, task.targets)
    except Diverged:
        raise InputError(f"{folder}: {peer} diverged on all training customers with {told(best.setting)}") from None
    seconds = time.perf_counter() - began
    record = {
        "peer": peer,
        "chosen": {**best.setting, "epochs": best.epochs, "inner_mrr": best.score},
        "tried": [
            {**trial.setting, "epochs": trial.epochs, "inner_mrr": trial.score, "curve": trial.curve}
            | {"seconds": round(trial.seconds, 1)}
            for trial in trials
        ],
        "seed": SEED,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES[peer]}},
        "seconds": round(seconds, 1),
    }
    path = folder / f"peer-{peer}.npz"
    part = folder / f".peer-{peer}.part.npz"
    np.savez(part, better=better, equal=equal, settings=np.array(json.dumps(record)))
    part.replace(path)
    say(f"{'':12}{'MRR':>8}{'NDCG@10':>9}{'Hit@10':>8}")
    for name, found in (("popularity", measure(task, popularity(task))), (peer, metrics(better, equal))):
        say(f"{name:12}{found['MRR']:8.4f}{found['NDCG@10']:9.4f}{found['Hit@10']:8.4f}")
    say(f"Chosen: {told(best.setting)} epochs={best.epochs}; {seconds:.0f} s in all")
    say(f"Written to {path}")
    return path


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:
        return "not installed"


def at_home(peer: str, arguments: Sequence[str]) -> None:
    """Returns where the peer can be imported; elsewhere starts this again in the peer's environment.

    The environment is made where it is missing, and brought up to date where its list of packages has changed.
    """
    if importlib.util.find_spec(MODULES[peer]) is not None and not BARE:
        return
    home = HOMES / peer
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted, done = Path(__file__).with_name(f"{peer}.txt"), home / "installed.txt"
    if Path(sys.prefix).resolve() == home.resolve():
        raise InputError(
            f"{home}: {MODULES[peer]} is not in it although it was installed; remove the folder, run again"
        )
    if not done.is_file() or done.read_bytes() != wanted.read_bytes():
        print(f"{MODULES[peer]} is not installed here: installing {wanted.name} into {home}", flush=True)
        home.parent.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(wanted)], check=True)
        except subprocess.CalledProcessError as error:
            raise InputError(f"{home}: could not be installed (exit status {error.returncode})") from None
        done.write_bytes(wanted.read_bytes())
    else:
        print(f"{MODULES[peer]} is not installed here: going on in {home}", flush=True)
    os.execv(python, [str(python), "-c", AGAIN, str(Path(__file__).parents[1]), peer, *arguments])


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the peer on each folder. A mistake in the input is one sentence and exit status 2."""
    parser = _Parser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("peer", choices=list(PEERS), help="which recommender")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a folder with split.npz")
    options = parser.parse_args(arguments)
    try:
        for folder in options.folders:
            if not (folder / "split.npz").is_file():  # before minutes of installing
                raise InputError(f"{folder / 'split.npz'}: there is no such file; FOLDER is a folder with a split.npz")
        at_home(options.peer, [str(folder) for folder in options.folders])
        for folder in options.folders:
            run(options.peer, folder, lambda line: print(line, flush=True))
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
