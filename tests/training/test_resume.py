"""Training that was killed, stopped or lost its way: what is saved, and that it goes on to the same bytes."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from conftest import write_mall
from safetensors.numpy import load, save

from recsys_jax import DeepConfig, InputError, WideConfig, fit, load_dataset, load_model, save_model
from recsys_jax.storage import jobs
from recsys_jax.storage.checkpoints import BEFORE, NEWEST, Checkpoints, Stopped, task_of
from recsys_jax.training import convex
from recsys_jax.training.loop import Pace

ROOT = Path(__file__).resolve().parents[2]
DEEP = DeepConfig(epochs=40, batch_size=4, hidden_dim=12, output_dim=6)
WIDE = WideConfig(inner_folds=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_mall(tmp_path_factory.mktemp("mall"))


@pytest.fixture(scope="module")
def dataset(folder):
    return load_dataset(folder)


def saved(model, folder: Path) -> dict[str, bytes]:
    save_model(model, folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def uninterrupted(dataset, tmp_path_factory):
    return {config: saved(fit(dataset, config), tmp_path_factory.mktemp("run")) for config in (DEEP, WIDE)}


class Stop:
    """Says yes at the n-th question."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


# How often a training asks before its first checkpoint: after the first fit of an inner fold; deep asks there alone.
BEFORE_SAVING = {DEEP: 0, WIDE: 2}


@pytest.mark.parametrize("config", [DEEP, WIDE], ids=["deep", "wide"])
def test_a_stopped_training_goes_on_to_the_same_bytes(config, dataset, uninterrupted, tmp_path):
    with pytest.raises(Stopped, match=r"epoch 25 of 40|1 of \d+ fits"):
        fit(dataset, config, checkpoints=Checkpoints(tmp_path / "run", stop=Stop(BEFORE_SAVING[config])))
    assert [path.name for path in (tmp_path / "run").iterdir()] == [NEWEST]
    told: list[str] = []
    model = fit(dataset, config, checkpoints=Checkpoints(tmp_path / "run", resume=True, tell=told.append))
    assert told[0].startswith("Goes on after ")
    assert saved(model, tmp_path / "model") == uninterrupted[config]


@pytest.mark.wild
@pytest.mark.parametrize("asked", [0, 1, 2])
def test_a_wide_training_is_stopped_between_two_fits_and_within_one(dataset, tmp_path, monkeypatch, asked):
    """The penalties of a large dataset take minutes: Ctrl-C waits for a few seconds of steps, and loses this fit."""
    monkeypatch.setattr(convex, "FIRST", 1)  # a step at a time
    monkeypatch.setattr(Pace, "SECONDS", 0.0)
    checkpoints = Checkpoints(tmp_path / "run", stop=Stop(asked))
    with pytest.raises(Stopped, match=r"^$"):
        fit(dataset, WIDE, checkpoints=checkpoints)
    assert not checkpoints.saved
    assert not (tmp_path / "run" / NEWEST).exists()


@pytest.mark.wild
def test_fits_that_are_cut_into_calls_end_with_the_same_bytes(dataset, uninterrupted, tmp_path, monkeypatch):
    monkeypatch.setattr(convex, "FIRST", 1)
    monkeypatch.setattr(Pace, "SECONDS", 0.0)
    assert saved(fit(dataset, WIDE), tmp_path / "cut") == uninterrupted[WIDE]


def test_a_damaged_checkpoint_gives_way_to_the_one_before(dataset, uninterrupted, tmp_path):
    config = DEEP
    for _ in range(2):
        with pytest.raises(Stopped):
            fit(dataset, WIDE, checkpoints=Checkpoints(tmp_path, resume=True, stop=Stop(BEFORE_SAVING[WIDE])))
    content = bytearray((tmp_path / NEWEST).read_bytes())
    content[-1] ^= 1
    (tmp_path / NEWEST).write_bytes(content)
    told: list[str] = []
    model = fit(dataset, WIDE, checkpoints=Checkpoints(tmp_path, resume=True, tell=told.append))
    assert "damaged, passed over" in told[0]
    assert told[1].startswith("Goes on after 1 of ")
    assert saved(model, tmp_path / "model") == uninterrupted[WIDE]
    (tmp_path / NEWEST).write_bytes(b"")
    (tmp_path / BEFORE).unlink()
    told.clear()
    checkpoints = Checkpoints(tmp_path, resume=True, tell=told.append)
    assert saved(fit(dataset, config, checkpoints=checkpoints), tmp_path / "deep") == uninterrupted[config]
    assert "damaged" in told[0]
    assert told[1].endswith("training begins")


def test_a_checkpoint_that_cannot_be_read_is_passed_over(tmp_path):
    (tmp_path / NEWEST).mkdir()  # as with one without permission, which root has
    told: list[str] = []
    assert Checkpoints(tmp_path, resume=True, tell=told.append).load({}, {}) is None
    assert told[0].startswith(f"{tmp_path / NEWEST}: found no file")
    assert told[0].endswith("; passed over")
    assert told[1].endswith("training begins")


@pytest.mark.wild
def test_where_the_newest_checkpoint_cannot_be_read_the_one_before_serves(tmp_path):
    checkpoints = Checkpoints(tmp_path, resume=True)
    for epoch in (1, 2):
        checkpoints.save({}, {"done": np.array(epoch)}, f"epoch {epoch}")
    (tmp_path / NEWEST).unlink()
    (tmp_path / NEWEST).mkdir()
    found = checkpoints.load({}, DONE)
    assert found is not None
    assert found["done"] == 1
    assert checkpoints.saved == "epoch 1"


def test_a_checkpoint_is_due_where_a_multiple_of_so_many_epochs_is_reached(tmp_path):
    checkpoints = Checkpoints(tmp_path, every=100)
    due = [checkpoints.due(before, done) for before, done in ((0, 99), (0, 100), (100, 199), (199, 425), (425, 450))]
    assert due == [False, True, False, True, False]
    assert not replace(checkpoints, every=0).due(0, 1000)
    assert replace(checkpoints, every=0, stop=lambda: True).due(0, 1)


SAVES = """
import os, sys
from pathlib import Path
import numpy as np
from recsys_jax.storage.checkpoints import Checkpoints

for number in range(1, 100):
    folder = Path(sys.argv[1]) / str(number)
    folder.mkdir()
    child = os.fork()
    if not child:
        calls = 0
        def killing(call):
            def instead(*arguments, **named):
                global calls
                calls += 1
                if calls == number:
                    os._exit(9)
                return call(*arguments, **named)
            return instead
        for name in ("open", "fsync", "replace", "unlink"):
            setattr(os, name, killing(getattr(os, name)))
        checkpoints = Checkpoints(folder)
        for done in (1, 2, 3):
            checkpoints.save({"options": "same"}, {"done": np.array(done)}, str(done))
        checkpoints.remove()
        os._exit(0)
    killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    checkpoints = Checkpoints(folder, resume=True)
    found = checkpoints.load({"options": "same"}, {"done": np.array(0)})
    checkpoints.remove()
    print(killed, 0 if found is None else int(found["done"]), len(list(folder.iterdir())))
    if not killed:
        break
"""


def test_a_kill_while_saving_leaves_the_last_good_checkpoint(tmp_path):
    words = [sys.executable, "-W", "ignore", "-c", SAVES, str(tmp_path)]
    output = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    *kills, end = [tuple(map(int, line.split())) for line in output.splitlines()]
    assert end == (0, 0, 0)
    found = [done for _, done, _ in kills]
    # First none, then the first, the second, the third, until they are removed; never one that is older than before.
    assert sorted(set(found)) == [0, 1, 2, 3]
    assert found[: len(found) - found[::-1].index(3)] == sorted(found[: len(found) - found[::-1].index(3)])
    assert all((killed, litter) == (9, 0) for killed, _, litter in kills)


def test_a_checkpoint_of_something_else_is_refused(dataset, tmp_path):
    with pytest.raises(Stopped):
        fit(dataset, DEEP, checkpoints=Checkpoints(tmp_path, stop=Stop(0)))
    with pytest.raises(InputError, match=r"a checkpoint of other options \(margin 1\.0, not 0\.5\); allowed"):
        fit(dataset, replace(DEEP, margin=0.5), checkpoints=Checkpoints(tmp_path, resume=True))
    with pytest.raises(InputError, match=r"of other options \(recipe deep, not wide\); allowed"):
        fit(dataset, WideConfig(), checkpoints=Checkpoints(tmp_path, resume=True))
    train = np.ones(len(dataset.purchases), bool)
    train[0] = False
    with pytest.raises(InputError, match="found a checkpoint of other data; allowed"):
        fit(dataset, DEEP, train=train, checkpoints=Checkpoints(tmp_path, resume=True))
    told: list[str] = []
    fit(dataset, DEEP, checkpoints=Checkpoints(tmp_path, tell=told.append))
    assert "--resume would have gone on" in told[0]


QUICK = "jax_disable_most_optimizations"


@contextmanager
def setting(name, value):
    """A setting of JAX, for a while."""
    before = jax.config.read(name) if name == QUICK else getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        yield
    finally:
        jax.config.update(name, before)


def other(patch, name, value):
    patch.setattr(jobs, name, value)
    return nullcontext()


def flags(patch, value):
    patch.setenv("XLA_FLAGS", value)
    return nullcontext()


@pytest.mark.wild
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("versions", lambda patch: other(patch, "version", lambda package: "0.0")),
        (
            "versions",
            lambda patch: other(patch, "version", lambda package: version(package) + "0" * (package == "jax")),
        ),
        ("instruction set", lambda patch: flags(patch, "--xla_cpu_max_isa=SSE4_2")),
        ("instruction set", lambda patch: flags(patch, "--xla_cpu_enable_fast_math=true")),
        ("instruction set", lambda patch: other(patch, "np", SimpleNamespace(show_config=of_another_processor))),
        ("device", lambda patch: other(patch, "jax", SimpleNamespace(devices=of_another_kind, config=jax.config))),
        ("jax_enable_x64", lambda patch: setting("jax_enable_x64", True)),
        ("jax_default_matmul_precision", lambda patch: setting("jax_default_matmul_precision", "bfloat16")),
        ("jax_default_prng_impl", lambda patch: setting("jax_default_prng_impl", "rbg")),
        ("optimisations", lambda patch: setting(QUICK, not jax.config.read(QUICK))),
    ],
)
def test_a_checkpoint_of_another_environment_is_refused(name, change, tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, resume=True)
    checkpoints.save(task_of(DEEP, ()), {"done": np.array(7)}, "epoch 7")
    with change(monkeypatch), pytest.raises(InputError, match=f"found a checkpoint of other {name}; allowed: those it"):
        checkpoints.load(task_of(DEEP, ()), DONE)
    monkeypatch.undo()
    flags(monkeypatch, f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2")
    found = checkpoints.load(task_of(DEEP, ()), DONE)  # as many devices as there are seeds: each computes the same
    assert found is not None
    assert found["done"] == 7


DONE = {"done": np.array(0)}


def of_another_processor(mode):
    return {"SIMD Extensions": {"found": ["X86_V2"]}}


def of_another_kind():
    return [SimpleNamespace(device_kind="another")]


@pytest.fixture(scope="module")
def stopped(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Stopped):
        fit(dataset, DEEP, checkpoints=Checkpoints(folder, stop=Stop(0)))
    return (folder / NEWEST).read_bytes()[32:]


def of_tensors(change):
    return lambda content: save(change(load(content)))


def saying(said: bytes):
    return of_tensors(lambda arrays: arrays | {"said": np.frombuffer(said, np.uint8)})


@pytest.mark.wild
@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"no tensors",
        lambda content: content[:-8],
        of_tensors(lambda arrays: {"done": arrays["done"]}),
        saying(b"{"),
        saying(b"[]"),
        saying(b"{}"),
        saying(b"[" * 100_000),
        saying(b"[" + b"[]," * 10**6 + b"0]"),
        of_tensors(lambda arrays: {name: array for name, array in arrays.items() if name != "losses"}),
        of_tensors(lambda arrays: arrays | {"more": arrays["done"]}),
        of_tensors(lambda arrays: arrays | {"done": arrays["losses"]}),
        of_tensors(lambda arrays: arrays | {"losses": arrays["losses"][:, None]}),
        of_tensors(lambda arrays: arrays | {"1": arrays["1"].astype(np.float64)}),
        of_tensors(lambda arrays: arrays | {"1": np.concatenate([arrays["1"], arrays["1"]])}),
    ],
    ids=range(14),
)
def test_a_forged_checkpoint_with_a_checksum_that_agrees_is_refused(stopped, dataset, tmp_path, change):
    content = change(stopped)
    (tmp_path / NEWEST).write_bytes(sha256(content).digest() + content)
    with pytest.raises(InputError, match=rf"^{tmp_path / NEWEST}: (found|no checkpoint)"):
        fit(dataset, DEEP, checkpoints=Checkpoints(tmp_path, resume=True))


@pytest.mark.wild
@pytest.mark.parametrize("name", [NEWEST, BEFORE])
@pytest.mark.parametrize(
    ("make", "words"),
    [(os.mkfifo, "no file but something else"), (lambda path: path.symlink_to("/dev/null"), "a link")],
)
def test_a_checkpoint_that_is_a_pipe_or_leads_elsewhere_is_passed_over(tmp_path, name, make, words):
    make(tmp_path / name)
    told: list[str] = []
    assert Checkpoints(tmp_path, resume=True, tell=told.append).load({}, {}) is None
    assert told[0].startswith(f"{tmp_path / name}: found {words}")
    assert told[0].endswith("; passed over")


def test_a_loss_that_is_no_number_stops_with_its_place(dataset, tmp_path):
    """Temperature 1e-38: the first logits are beyond float32, so the first batch's loss is none."""
    with pytest.raises(
        InputError, match=r"epoch 1, batch 1 of 3: found the loss (nan|inf).*last good checkpoint is of no"
    ):
        fit(
            dataset,
            replace(DEEP, loss="infonce", temperature=1e-38),
            checkpoints=Checkpoints(tmp_path),
        )
    with pytest.raises(InputError, match=r"epoch \d+, batch \d+ of 3: found the loss|parameters that are no finite"):
        fit(dataset, replace(DEEP, learning_rate=1e38))


def command(folder: Path, run: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "recsys_jax", "train", str(folder), "--run", str(run), *more]


def files(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.iterdir() if path.name.startswith("model")}


def test_sigterm_saves_and_says_how_to_go_on(folder, tmp_path):
    more = ["deep", "--epochs", "2000000"]
    with subprocess.Popen(
        command(folder, tmp_path, *more), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:  # of the epochs: it trains
            if line.startswith("Epoch 100/"):
                break
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert re.search("this goes on: .* --resume ", said)
    assert (tmp_path / NEWEST).exists()


POPULATION = ("--customers", "3000", "--products", "300")


def killed_until_done(folder: Path, run: Path, more: list[str], rng: random.Random, longest: float) -> int:
    """Kills a training after random times until it ends by itself: how often."""
    kills = 0
    while True:
        process = subprocess.Popen(command(folder, run, *more, "--resume"), cwd=ROOT, stdout=subprocess.DEVNULL)
        try:
            assert process.wait(timeout=rng.uniform(0.5, longest)) == 0
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            if (run / "model.json").exists():
                load_model(run)  # whatever is there is whole
            longest *= 1.1  # a slower machine gets there, too
        else:
            return kills


@pytest.mark.slow(reason="a hundred trainings as processes of their own, killed at random times")
@pytest.mark.parametrize("recipe", ["wide", "deep"])
def test_killed_at_random_it_ends_with_the_same_bytes(recipe, tmp_path):
    folder = tmp_path / "mall"
    subprocess.run(
        [sys.executable, "-m", "recsys_jax", "dataset", "synthetic", "--out", str(folder), *POPULATION],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    more = [recipe]
    more += ["--epochs", "60", "--checkpoint-every", "1"] if recipe == "deep" else []
    began = time.perf_counter()
    subprocess.run(command(folder, tmp_path / "whole", *more), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    whole, kills, trainings, rng = files(tmp_path / "whole"), 0, 0, random.Random(0)
    while kills < 50:
        run = tmp_path / str(trainings)
        kills += killed_until_done(folder, run, more, rng, 0.7 * seconds)
        trainings += 1
        assert files(run) == whole
        assert not (run / NEWEST).exists()
    print(f"{recipe}: {kills} kills survived, {trainings} trainings")


@pytest.mark.parametrize(
    "saved",
    [
        {"a": np.zeros(2, np.float32), "b": np.zeros((3, 1))},
        {"a": np.zeros(2), "b": np.zeros((3, 2))},
        {"a": np.zeros(2), "b": np.zeros(3)},
        {"a": np.zeros((2, 1)), "b": np.zeros((3, 1))},
        {"a": np.zeros(2)},
        {"a": np.zeros(2), "b": np.zeros((3, 1)), "c": np.zeros(1)},
    ],
    ids=range(6),
)
def test_arrays_of_another_kind_are_no_checkpoint(tmp_path, saved):
    """Of one of these a training would go on with other numbers; any length is allowed where 0 is."""
    like = {"a": np.zeros(2), "b": np.zeros((0, 1))}
    Checkpoints(tmp_path).save({}, {"a": np.ones(2), "b": np.ones((3, 1))}, "a while")
    found = Checkpoints(tmp_path, resume=True).load({}, like)
    assert {name: array.shape for name, array in (found or {}).items()} == {"a": (2,), "b": (3, 1)}
    Checkpoints(tmp_path).save({}, saved, "a while")
    with pytest.raises(InputError, match="found other arrays than this training saves"):
        Checkpoints(tmp_path, resume=True).load({}, like)
