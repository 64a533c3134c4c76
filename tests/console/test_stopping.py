"""Ctrl-C: how long a command takes to end, what it says, and what it leaves."""

import signal
import subprocess
import sys
import time

import pytest

START = """
import time
from pathlib import Path
from recsys_jax import stopping
from recsys_jax.data.files import replace_file, write_file
stopping.listen()
"""
READY = "print('ready', flush=True)\n"
# What the main thread can be in: steps of Python, a call of the system, a computation, which no handler interrupts.
PYTHON = READY + "while True: sum(range(1000))\n"
SLEEP = READY + "time.sleep(600)\n"
COMPUTATION = """
import jax
for_ever = jax.jit(lambda x: jax.lax.while_loop(lambda y: y < 2, lambda y: y / 2 + 0.5, x)).lower(1.0).compile()
print('ready', flush=True)
jax.block_until_ready(for_ever(1.0))
"""
SAVING = """
job = stopping.saying(lambda: 'one of two parts', saves=True)
job.__enter__()
"""
PHASES = {"Python": PYTHON, "sleep": SLEEP, "XLA": COMPUTATION}


def interrupted(script, folder, *signals, pause=0.1):
    """The status of a process that the signals met, what it said, and how many seconds it lived after the first."""
    command = [sys.executable, "-c", START + script]
    with subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(pause)
        began = time.monotonic()
        for number, one in enumerate(signals):
            time.sleep(pause if number else 0.0)
            process.send_signal(one)
        _, said = process.communicate(timeout=100)
        return process.returncode, said, time.monotonic() - began


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_phase_ends_within_two_seconds(tmp_path, phase, number):
    status, said, seconds = interrupted(PHASES[phase], tmp_path, number)
    assert (status, said) == (128 + number, "Stopped: nothing was written\n")
    assert seconds < 2.0


@pytest.mark.parametrize("phase", PHASES)
def test_a_job_that_cannot_save_in_time_says_what_it_has(tmp_path, phase):
    script = SAVING + PHASES[phase]
    status, said, seconds = interrupted(script, tmp_path, signal.SIGINT)
    assert (status, said) == (130, "Stopped: one of two parts\n")
    assert 1.0 < seconds < 2.0


@pytest.mark.parametrize("phase", PHASES)
def test_a_second_signal_ends_at_once(tmp_path, phase):
    script = SAVING + PHASES[phase]
    status, said, seconds = interrupted(script, tmp_path, signal.SIGINT, signal.SIGINT)
    assert (status, said) == (130, "Stopped: one of two parts\n")
    assert seconds < 1.0


def test_a_job_that_saves_ends_by_itself(tmp_path):
    script = f"""
saved = []
with stopping.saying(lambda: ", ".join(saved), saves=True):
    {READY.strip()}
    while not stopping.asked():
        time.sleep(0.1)
    saved.append("both parts")
    stopping.end()
"""
    status, said, seconds = interrupted(script, tmp_path, signal.SIGINT)
    assert (status, said) == (130, "Stopped: both parts\n")
    assert seconds < 1.0


@pytest.mark.parametrize("phase", ["Python", "sleep"])
def test_files_are_named_and_none_is_half_written(tmp_path, phase):
    """Of many files the last five of a folder; not one that was removed since, nor the old one of this name."""
    (tmp_path / "old.txt").write_text("old")
    script = f"""
for name in ("gone.txt", *(f"{{number}}.txt" for number in range(7)), "in/it.txt"):
    write_file(Path(name), "whole")
Path("gone.txt").unlink()
def write(stream):
    stream.write(b"half")
    stream.flush()
    {PHASES[phase].replace(chr(10), chr(10) + "    ")}
replace_file(Path("old.txt"), write)
"""
    status, said, _ = interrupted(script, tmp_path, signal.SIGINT)
    assert status == 130
    assert said == "Stopped: written before that: 2.txt, 3.txt, 4.txt, 5.txt, 6.txt and 2 more in .; it.txt in in\n"
    assert (tmp_path / "old.txt").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"old.txt", "in", *(f"{number}.txt" for number in range(7))}


CHILD = """
import subprocess
with stopping.child(["sh", "-c", "sleep 600 & echo; wait"], stdout=subprocess.PIPE) as process:
    process.stdout.readline()
    {0}
"""


@pytest.mark.parametrize("phase", ["Python", "sleep", "XLA"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_a_command_started_ends_with_it(tmp_path, phase, number):
    """Also what that started, such as an installation, and though the signal is sent to the command alone.

    They hold the command's standard error: its end is not seen before theirs.
    """
    script = CHILD.format(PHASES[phase].replace("\n", "\n    "))
    status, _, seconds = interrupted(script, tmp_path, number)
    assert status == 128 + number
    assert seconds < 2.0


def test_what_was_started_ends_where_what_it_is_for_fails(tmp_path):
    command = [sys.executable, "-c", START + CHILD.format("raise ValueError('no')")]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100)
    assert found.stderr.endswith("ValueError: no\n")


@pytest.mark.parametrize("whose", ["child", "parent"])
def test_a_fork_answers_its_own_signals(tmp_path, whose):
    """Where a signal is heard must not depend on who shares a pipe."""
    script = f"""
import os, signal
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == signal.SIGTERM + 128 << 8
    {READY if whose == "parent" else "os._exit(3)"}
    time.sleep(600)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(600)
"""
    quiet = "-W", "ignore::DeprecationWarning"  # Python 3.12 warns of a fork beside a thread
    command = [sys.executable, *quiet, "-c", START + script]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        if whose == "parent":
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=100)
    assert process.returncode == {"child": 3, "parent": 130}[whose]
    assert said == b"Stopped: nothing was written\n" * {"child": 1, "parent": 2}[whose]


def test_a_signal_that_the_caller_ignores_stays_ignored(tmp_path):
    """A shell lets what it runs in the background ignore Ctrl-C."""
    script = "print('ready', flush=True)\ntime.sleep(1)\nprint('done')\n"
    command = ["sh", "-c", 'trap "" INT; exec "$0" "$@"', sys.executable, "-c", START + script]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=100) == ("done\n", "")
    assert process.returncode == 0
