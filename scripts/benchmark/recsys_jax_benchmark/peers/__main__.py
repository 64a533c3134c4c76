"""Trains other recommenders, tuned on inner folds, on the split that ours is evaluated on, each in its own environment.

Example: python -m recsys_jax_benchmark.peers lightfm FOLDER

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from typing import NoReturn

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are small, and seconds are told of one thread

import numpy as np

from .models import PEERS, SEED, Setting, Train
from .task import (
    Diverged,
    Floats,
    InputError,
    Task,
    inner_task,
    measure,
    mrr,
    outer_task,
    popularity,
    ranks,
    read_split,
)

# Where each peer has its environment.
HOMES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recsys_jax" / "peers"
# This package by its own name: there is no recsys_jax in the peer's environment.
AGAIN = "import sys, runpy; sys.path.append(sys.argv.pop(1)); runpy.run_module('peers', run_name='__main__')"
PACKAGES = {
    "lightfm": ("lightfm-next", "numpy", "scipy"),
    "rectools": ("rectools", "torch", "numpy", "scipy"),
    "irspack": ("irspack", "numpy", "scipy"),
    "torch": ("torch", "numpy"),
    "sklearn": ("scikit-learn", "numpy", "scipy"),
}
PATIENCE = 4  # training stops after this many measurements without a better one


@dataclass
class Trial:
    """One setting on the inner folds: its MRR at each measured epoch."""

    setting: Setting
    curve: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def best(self) -> tuple[int, float]:
        """The epoch of the best MRR, and it; ties go to the earliest. Zeros where nothing was measured."""
        return max(self.curve, key=lambda point: point[1], default=(0, 0.0))


def search(task: Task, train: Train, settings: Sequence[Setting], say: Callable[[str], None]) -> list[Trial]:
    """Trains each setting up to setting["most"] epochs, measured every setting["every"], until it gets no better."""
    trials = []
    for number, setting in enumerate(settings, 1):
        trial, note = Trial(setting), ""
        trials.append(trial)
        began = time.perf_counter()
        try:
            train(task, setting, partial(_watch, task, trial))
        except Diverged:
            note = ", then diverged"
        trial.seconds = time.perf_counter() - began
        (epoch, score), last = trial.best, trial.curve[-1][0] if trial.curve else 0
        say(
            f"  {number:2}/{len(settings)}  inner MRR {score:.4f} at epoch {epoch:3} of {last:3}{note}  "
            f"{trial.seconds:5.1f} s  {told(setting)}"
        )
    return trials


def _watch(task: Task, trial: Trial, epoch: int, scores: Callable[[], Floats]) -> bool:
    if epoch % trial.setting["every"] == 0:
        trial.curve.append((epoch, measure(task, scores())))
    since = sum(measured > trial.best[0] for measured, _ in trial.curve)
    return since < PATIENCE and epoch < trial.setting["most"]


def choose(trials: Sequence[Trial]) -> Trial:
    """The trial of the best inner MRR; ties go to the first. Raises `InputError` where all diverged."""
    chosen = max(trials, key=lambda trial: trial.best[1])
    if not chosen.curve:
        raise InputError("no setting could be trained to its first measurement; the attributes may be too large")
    return chosen


def final_scores(task: Task, train: Train, setting: Setting, epochs: int) -> tuple[Floats, float]:
    """The scores after so many epochs on all of the task, and the seconds of the training alone."""
    kept: list[tuple[Floats, float]] = []
    began = time.perf_counter()

    def watch(epoch: int, scores: Callable[[], Floats]) -> bool:
        if epoch == epochs:
            spent = time.perf_counter() - began
            kept.append((scores(), spent))
        return epoch < epochs

    train(task, {**setting, "most": epochs}, watch)
    if not np.isfinite(kept[0][0]).all():
        raise Diverged
    return kept[0]


def told(setting: Setting) -> str:
    """The setting in a line, without how it is measured."""
    return " ".join(f"{name}={value}" for name, value in setting.items() if name not in {"every", "most"})


def run(peer: str, folder: Path, say: Callable[[str], None] = print, given: Setting | None = None) -> Path:
    """Tunes on the inner folds, trains on all training customers, ranks the queries; the file that was written.

    Where a setting with its epochs is `given`, that is trained, and nothing tuned.
    """
    split = read_split(folder)
    make_settings, train = PEERS[peer]
    began = time.perf_counter()
    task, trials = outer_task(split), list[Trial]()
    if given is not None:
        chosen, epochs = given, given["epochs"]
    else:
        inner = inner_task(split)
        settings = make_settings(inner)
        say(
            f"{folder}: {len(split.train):,} training purchases, {len(split.queries):,} queries; "
            f"{len(settings)} settings of {peer} on the inner folds"
        )
        say(f"  popularity  inner MRR {measure(inner, popularity(inner)):.4f}")
        trials = search(inner, train, settings, say)
        best = choose(trials)
        epochs, score = best.best
        chosen = {**best.setting, "epochs": epochs, "inner_mrr": score}
    try:
        scores, training = final_scores(task, train, chosen, epochs)
    except Diverged:
        raise InputError(f"{folder}: {peer} diverged on all training customers with {told(chosen)}") from None
    better, equal = ranks(scores, task.rows, task.targets, task.owned)
    seconds = time.perf_counter() - began
    installed = {found.name.lower(): found.version for found in distributions()}
    versions = {name: installed.get(name, "not installed") for name in PACKAGES[peer]}
    record = {
        "peer": peer,
        "chosen": chosen,
        "tried": [
            {**trial.setting, "epochs": trial.best[0], "inner_mrr": trial.best[1], "curve": trial.curve}
            | {"seconds": round(trial.seconds, 1)}
            for trial in trials
        ],
        "seed": SEED,
        "versions": {"python": platform.python_version(), **versions},
        "seconds": round(seconds, 1),
        "training_seconds": training,
    }
    path = folder / f"peer-{peer}.npz"
    part = folder / f".peer-{peer}.part.npz"
    np.savez(part, better=better, equal=equal, settings=np.array(json.dumps(record)))
    part.replace(path)
    say(f"MRR {mrr(better, equal):.4f}; popularity {measure(task, popularity(task)):.4f}")
    say(f"{'Chosen' if trials else 'Given'}: {told(chosen)}; {training:.3g} s, {seconds:.0f} s in all")
    say(f"Written to {path}")
    return path


def at_home(peer: str, *words: object) -> None:
    """Returns where the peer can be imported; elsewhere starts this again, with the words, in its environment.

    The environment is made where it is missing, and brought up to date where its list of packages has changed.
    """
    if importlib.util.find_spec(peer) is not None:
        return
    home = HOMES / peer
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted, done = Path(__file__).with_name(f"{peer}.txt"), home / "installed.txt"
    if Path(sys.prefix).resolve() == home.resolve():
        raise InputError(f"{home}: {peer} is not in it although it was installed; remove the folder, run again")
    if done.is_file() and done.read_bytes() == wanted.read_bytes():
        print(f"{peer} is not installed here: going on in {home}", flush=True)
    else:
        print(f"{peer} is not installed here: installing {wanted.name} into {home}", flush=True)
        home.parent.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(wanted)], check=True)
        except subprocess.CalledProcessError as error:
            raise InputError(f"{home}: could not be installed (exit status {error.returncode})") from None
        done.write_bytes(wanted.read_bytes())
    os.execv(python, [str(python), "-c", AGAIN, str(Path(__file__).parents[1]), peer, *map(str, words)])


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the peer on the folder. A mistake in the input is one sentence and exit status 2."""
    parser = _Parser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("peer", choices=list(PEERS), help="which recommender")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a folder with split.npz")
    parser.add_argument("--setting", type=json.loads, help="JSON of a setting with its epochs, which is not tuned then")
    try:
        options = parser.parse_args(arguments)
        read_split(options.folder)  # what is wrong with it is told before minutes of installing
        at_home(options.peer, options.folder, *(["--setting", json.dumps(options.setting)] if options.setting else []))
        # It is no part of a training's seconds.
        importlib.import_module("sklearn.linear_model" if options.peer == "sklearn" else options.peer)
        run(options.peer, options.folder, partial(print, flush=True), options.setting)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
