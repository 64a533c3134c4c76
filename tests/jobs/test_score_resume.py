"""The batch job, interrupted at any moment: the next process goes on, and the files are the same bytes."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_score import environment, people

from recsys_jax import InputError, save_model
from recsys_jax.cli.serving import score
from recsys_jax.jobs import batch
from recsys_jax.storage.jobs import Parts
from recsys_jax.storage.jobs import environment as environment_of

# Eight customers to a portion, and each portion is a part.
SMALL = {"CUSTOMERS": 8, "SECONDS": 0}
ROWS = 40

# A process that has imported everything, and forks one for each command line: it may end at a call of the system that
# changes files, have a limit to the size of a file, or be sent signals.
SERVER = """
import contextlib, json, os, resource, sys, time, warnings
warnings.simplefilter("ignore")
with contextlib.suppress(ImportError):
    import pandas  # Arrow does where it can, half a second in each fork
from recsys_jax.cli import main
from recsys_jax.cli.serving import score
from recsys_jax.jobs import batch

def count(folder, last):
    calls = 0
    def call():
        nonlocal calls
        calls += 1
        if calls == last:
            os._exit(99)
    def hook(event, arguments):
        changes = event in {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}
        if event == "open":
            changes = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if changes and str(arguments[0]).startswith(folder):
            call()
    sync = os.fsync
    def fsync(descriptor):
        call()
        sync(descriptor)
    os.fsync = fsync
    sys.addaudithook(hook)
    return lambda: calls

for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if not child:
        for descriptor in (1, 2):
            os.dup2(os.open(f"{order['folder']}/said{descriptor}", os.O_CREAT | os.O_TRUNC | os.O_WRONLY), descriptor)
        vars(batch).update(order["settings"])
        if order["limit"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (order["limit"], order["limit"]))
        rank = batch.rank
        batch.rank = lambda *arguments: time.sleep(order["pause"]) or rank(*arguments)
        calls = count(f"{order['folder']}/", order["last"])
        status = 0
        try:
            main(["score", *order["arguments"]])
        except SystemExit as stop:
            status = stop.code
        print("calls", calls())
        sys.stdout.flush()
        os._exit(status)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Processes:
    """Runs the script in processes of its own, one after the other."""

    def __init__(self, folder, run):
        words = [sys.executable, "-c", SERVER]
        self.server = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(folder)
        )
        self.run = run

    def start(self, folder, *words, last=0, limit=0, pause=0.0):
        self.folder = folder
        arguments = [str(folder / "in.parquet"), str(folder / "out.parquet"), "--run", str(self.run), *words]
        order = {"folder": str(folder), "arguments": arguments, "last": last, "limit": limit, "pause": pause}
        print(json.dumps({**order, "settings": SMALL}), file=self.server.stdin, flush=True)
        return int(self.server.stdout.readline())

    def end(self):
        """The status of the process that was started, and what it said."""
        status = int(self.server.stdout.readline())
        return status, "".join((self.folder / f"said{descriptor}").read_text() for descriptor in (1, 2))

    def call(self, folder, *words, **more):
        self.start(folder, *words, **more)
        return self.end()


@pytest.fixture(scope="module")
def processes(mall_run, tmp_path_factory):
    started = Processes(tmp_path_factory.mktemp("server"), mall_run)
    yield started
    started.server.stdin.close()
    assert started.server.wait(60) == 0
    started.server.stdout.close()


def customers(count=ROWS, seed=0):
    """Some of them can't be used, in the second and in the fourth portion."""
    rows = people(count, seed)
    for number in (12, 13, 30):
        rows[number] |= {"age": 0, "skin_type": "greasy"}
    return pa.Table.from_pylist(rows)


def write(folder, table=None):
    folder.mkdir(exist_ok=True)
    pq.write_table(customers() if table is None else table, folder / "in.parquet", row_group_size=15)
    return folder


def result(folder):
    """The bytes of the two files, once nothing else is left in the folder."""
    left = {path.name for path in folder.iterdir()} - {"in.parquet", "said1", "said2"}
    assert left <= {"out.parquet", "out.rejected.parquet"}
    return {name: (folder / name).read_bytes() for name in sorted(left)}


@pytest.fixture(scope="module")
def whole(mall_run, tmp_path_factory):
    """What an uninterrupted job writes, all of it one part."""
    folder = write(tmp_path_factory.mktemp("whole"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "CUSTOMERS", 8)
        run(folder, mall_run)
    found = result(folder)
    assert [len(found), pq.read_metadata(folder / "out.parquet").num_row_groups] == [2, 5]
    assert pq.read_table(folder / "out.rejected.parquet")["row"].to_pylist() == [13, 14, 31]
    return found


def run(folder, mall_run, **options):
    score.main(score.Options(folder / "in.parquet", folder / "out.parquet", mall_run, **options))


def interrupted(folder, mall_run, portions, **options):
    """Runs the job until so many portions are done and another one is begun; what it said then."""
    real, ranked = batch.rank, []

    def rank(*arguments):
        ranked.append(arguments)
        if len(ranked) > portions:
            raise OSError("something happened")
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "rank", rank)
        with pytest.raises(InputError, match="something happened") as caught:
            run(folder, mall_run, **options)
    return str(caught.value)


def wait_for_a_part(folder):
    """Until a part is finished, and the next one begun."""
    ends = time.monotonic() + 60
    while not (list(folder.rglob("000000.json")) and list(folder.rglob(".000001.part.*"))):
        assert time.monotonic() < ends
        time.sleep(0.01)


@pytest.fixture
def small(monkeypatch):
    for name, value in SMALL.items():
        monkeypatch.setattr(batch, name, value)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("done", [1, 2, 4])
def test_it_goes_on_where_it_stopped(mall_run, tmp_path, monkeypatch, capsys, whole, done):
    (write(tmp_path) / "out.parquet").write_text("an older one")
    said = interrupted(tmp_path, mall_run, done)
    parts = tmp_path / ".out.parquet.parts"
    assert said.endswith(f"; {8 * done} of 40 rows are done and kept in {parts}: the same command continues there")
    assert (tmp_path / "out.parquet").read_text() == "an older one"
    assert not (tmp_path / "out.rejected.parquet").exists()
    bars, ranked, real = [], [], batch.rank

    @contextmanager
    def recorded(title):
        yield lambda rows, total: bars.append((rows, total))

    monkeypatch.setattr(score, "progress", recorded)
    monkeypatch.setattr(batch, "rank", lambda *arguments: ranked.append(arguments[1].number(0)) or real(*arguments))
    with (tmp_path / "out.parquet").open() as reader:
        run(tmp_path, mall_run)
        assert reader.read() == "an older one"  # who reads the old file meanwhile reads it to its end
    assert result(tmp_path) == whole
    assert ranked == [8 * portion + 1 for portion in range(done, 5)]
    assert bars == [(8 * portion, 40) for portion in range(done, 6)]
    said = capsys.readouterr().out
    assert f"continuing after {8 * done} of 40 rows" in said
    assert re.search(r"37 customers, \d+ recommendations, 3 rows rejected", said)
    assert "The first rejected one, row 13: skin_type: found 'greasy'" in said


@pytest.mark.usefixtures("small")
def test_interrupted_before_a_part_is_done_nothing_is_left(mall_run, tmp_path):
    write(tmp_path)
    assert interrupted(tmp_path, mall_run, 0) == "something happened"
    assert result(tmp_path) == {}


RULE = """
[[boost]]
name = "dry"
customer = { skin_type = "dry" }
product = { category = 97 }
add = NUMBER
"""


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "change",
    [
        *("customers", "model", "boosts", "top_n", "categories", "portions", "pyarrow"),
        *(pytest.param(name, marks=pytest.mark.wild) for name in environment_of()),
    ],
)
def test_parts_of_another_job_are_not_used(mall_model, tmp_path, monkeypatch, capsys, change):
    model = tmp_path / "run"
    save_model(mall_model, model)
    (tmp_path / "boosts.toml").write_text(RULE.replace("NUMBER", "0.1"))
    options = {"boosts": tmp_path / "boosts.toml"}
    interrupted(write(tmp_path / "job"), model, 3, **options)
    if change == "customers":  # as many rows and bytes, and the time of before
        before = (tmp_path / "job" / "in.parquet").stat()
        table = customers()
        write(tmp_path / "job", table.set_column(1, "age", pa.array(table["age"].to_pylist()[::-1])))
        os.utime(tmp_path / "job" / "in.parquet", ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "model":
        save_model(replace(mall_model, product_embeddings=mall_model.product_embeddings[::-1].copy()), model)
    elif change == "boosts":
        (tmp_path / "boosts.toml").write_text(RULE.replace("NUMBER", "0.2"))
    elif change == "top_n":
        options["top_n"] = 9
    elif change == "categories":
        options["categories"] = ("Makeup", "Skincare")
    elif change == "portions":
        monkeypatch.setattr(batch, "CUSTOMERS", 16)
    elif change == "pyarrow":
        monkeypatch.setattr(batch.arrow, "__version__", "0.0")
    else:
        monkeypatch.setattr(batch, "environment", lambda: {**environment_of(), change: "another"})
    run(tmp_path / "job", model, **options)
    said = capsys.readouterr().out
    assert f".out.parquet.parts: found parts of a job with other {change}; they go, all is made anew" in said
    assert "continuing" not in said
    found = result(tmp_path / "job")
    write(tmp_path / "anew", pq.read_table(tmp_path / "job" / "in.parquet"))
    run(tmp_path / "anew", model, **options)
    assert found == result(tmp_path / "anew")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def other_number(path):
    path.write_text(path.read_text().replace('"rejected": 2', '"rejected": 1', 1))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("000001.part", flip),
        ("000001.part", Path.unlink),
        ("000001.part", lambda path: path.write_bytes(path.read_bytes()[:-1])),
        ("000001.part", lambda path: path.write_bytes(path.with_name("000002.part").read_bytes())),
        ("000001.json", flip),
        ("000001.json", other_number),
        ("000001.json", lambda path: path.write_text("[" * 100_000)),
        ("000001.json", lambda path: path.write_text("3")),
    ],
)
def test_a_damaged_part_is_made_again(mall_run, tmp_path, capsys, whole, name, damage):
    interrupted(write(tmp_path), mall_run, 4)
    path = tmp_path / ".out.parquet.parts" / name
    before = path.read_bytes()
    damage(path)
    assert not path.exists() or path.read_bytes() != before
    run(tmp_path, mall_run)
    said = capsys.readouterr().out
    assert "000001.part: found a damaged part of the job; it is made again, and all after it" in said
    assert "continuing after 8 of 40 rows" in said
    assert result(tmp_path) == whole


@pytest.mark.usefixtures("small")
def test_what_a_killed_process_left_goes_away(mall_run, tmp_path, whole):
    interrupted(write(tmp_path), mall_run, 2)
    for name in (".000002.part.77", "000002.part", ".out.parquet.77", "out.parquet", "000007.json"):
        (tmp_path / ".out.parquet.parts" / name).write_text("rest")
    run(tmp_path, mall_run)
    assert result(tmp_path) == whole


def test_a_second_process_is_refused_and_a_dead_one_is_not_there(processes, mall_run, tmp_path, monkeypatch, whole):
    write(tmp_path)
    running = processes.start(tmp_path, pause=0.4)
    wait_for_a_part(tmp_path)
    os.kill(running, signal.SIGSTOP)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.part")}
    monkeypatch.setattr(batch, "CUSTOMERS", 8)
    with pytest.raises(InputError, match=r"out.parquet: found another process that is writing this file; allowed: one"):
        run(tmp_path, mall_run)
    assert {path: path.read_bytes() for path in before} == before
    os.kill(running, signal.SIGKILL)
    assert processes.end()[0] == -signal.SIGKILL
    run(tmp_path, mall_run)
    assert result(tmp_path) == whole


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_answered_with_what_is_kept(processes, tmp_path, whole, number, status):
    write(tmp_path)
    running = processes.start(tmp_path, pause=0.4)
    wait_for_a_part(tmp_path)
    os.kill(running, number)
    found, said = processes.end()
    assert found == status
    parts = tmp_path / ".out.parquet.parts"
    sentence = rf"Stopped: (\d+) of 40 rows are done and kept in {parts}: the same command continues there"
    kept = re.fullmatch(sentence, said.splitlines()[-1])
    assert kept
    assert not (tmp_path / "said1").read_text()  # whoever reads the output reads no sentence on an interruption
    assert {path.name for path in tmp_path.iterdir()} == {"in.parquet", "said1", "said2", parts.name}
    status, more = processes.call(tmp_path)
    assert status == 0
    assert f"continuing after {kept[1]} of 40 rows" in more
    assert result(tmp_path) == whole


def killed_at(processes, folder, steps):
    """Ends each process at the call with the next of these numbers, until one gets through. How many were ended."""
    for kills, step in enumerate(steps):
        status, said = processes.call(folder, last=step)
        assert status in (0, 99), said
        if not status:
            return kills
    raise AssertionError("it gets nowhere")


def killed_after(processes, folder, rng, longest):
    """Kills each process after a random time, until one gets through. How many were killed."""
    for kills in range(100):
        running = processes.start(folder)
        time.sleep(rng.uniform(0, longest))
        with suppress(ProcessLookupError):  # it was faster
            os.kill(running, signal.SIGKILL)
        status, said = processes.end()
        assert status in (0, -signal.SIGKILL), said
        if not status:
            return kills
        longest *= 1.1  # a busy machine gets there too
    raise AssertionError("it gets nowhere")


def test_killed_at_calls_that_change_files(processes, tmp_path, whole):
    rng = random.Random(0)
    folder = write(tmp_path)
    assert processes.call(folder, last=67)[0] == 99  # 12 calls to a part, and then some
    assert len(list(folder.rglob(".out.*parquet.[0-9]*"))) == 2  # half made
    assert killed_at(processes, folder, [8, *(rng.randint(1, 60) for _ in range(100))]) >= 1
    assert result(folder) == whole


def test_killed_at_random_times(processes, tmp_path, whole):
    kills, jobs, rng = 0, 0, random.Random(0)
    while not kills:  # a fast machine has done the job before the first of the times
        folder = write(tmp_path / str(jobs))
        kills += killed_after(processes, folder, rng, 0.2)
        jobs += 1
        assert result(folder) == whole


@pytest.mark.slow(reason="a job for each call that changes a file")
def test_killed_at_every_call_that_changes_files(processes, tmp_path, whole):
    status, said = processes.call(write(tmp_path / "counted"))
    calls = int(said.split("calls ")[1].split()[0])
    assert (status, calls > 50) == (0, True)
    for step in range(1, calls + 1):
        folder = write(tmp_path / str(step))
        assert processes.call(folder, last=step)[0] == 99
        assert processes.call(folder)[0] == 0
        assert result(folder) == whole
    print(f"{calls} calls, a kill at each")


@pytest.mark.slow(reason="a hundred kills at random times")
def test_killed_at_a_hundred_random_times(processes, tmp_path, whole):
    kills, jobs, rng = 0, 0, random.Random(1)
    while kills < 100:
        folder = write(tmp_path / str(jobs))
        kills += killed_after(processes, folder, rng, rng.uniform(0.5, 1.5))
        jobs += 1
        assert result(folder) == whole
    print(f"{kills} kills, {jobs} jobs")


def full_then_roomy(processes, folder, whole, limit):
    """Holds where a file may have so many bytes at first; what was said then, and nothing where that was enough."""
    (write(folder) / "out.parquet").write_text("an older one")
    status, said = processes.call(folder, limit=limit)
    if not status:
        assert result(folder) == whole
        return ""
    assert status == 2
    assert "found no room to write it (File too large); allowed: a disk with enough space" in said
    assert f"{folder / 'out.parquet'} is unchanged" in said
    assert (folder / "out.parquet").read_text() == "an older one"
    assert not list(folder.rglob(".*.[0-9]*"))
    assert processes.call(folder)[0] == 0
    assert result(folder) == whole
    return said


@pytest.mark.parametrize(
    ("limit", "where", "kept"),
    [(2_000, "000000.part", ""), (5_000, ".out.parquet.parts/out.parquet", "40 of 40 rows are done and kept in")],
)
def test_a_full_disk_is_a_sentence_and_with_room_it_goes_on(processes, tmp_path, whole, limit, where, kept):
    """A limit to the size of files stands in for a full disk."""
    said = full_then_roomy(processes, tmp_path, whole, limit)
    assert f"{where}: found no room" in said
    assert (kept or "unchanged\n") in said


@pytest.mark.slow(reason="a job for each limit of file size")
def test_a_disk_that_is_full_at_any_byte(processes, tmp_path, whole):
    largest = max(map(len, whole.values()))
    limits = range(1_000, largest + 300, 97)  # what is said goes to files, too
    said = [full_then_roomy(processes, tmp_path / str(limit), whole, limit) for limit in limits]
    assert said[0]
    assert not said[-1]
    print(f"{len(limits)} limits, {sum(map(bool, said))} too small")


@pytest.mark.usefixtures("small")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
@pytest.mark.parametrize(
    ("name", "done"), [("000002.part", 16), ("000002.json", 16), ("out.parquet", 40), ("out.rejected.parquet", 40)]
)
def test_no_space_left_on_the_device(mall_run, tmp_path, monkeypatch, whole, name, done):
    (write(tmp_path) / "out.parquet").write_text("an older one")
    real = Path.open

    def full(path, mode="r", *more, **options):
        full = "x" in mode and path.name.startswith(f".{name}.")
        return real(Path("/dev/full"), "wb") if full else real(path, mode, *more, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        sentence = (
            rf"{name}: found no room to write it \(No space left on device\).*; {done} of 40 rows are done and kept"
        )
        with pytest.raises(InputError, match=sentence):
            run(tmp_path, mall_run)
    assert (tmp_path / "out.parquet").read_text() == "an older one"
    assert not list(tmp_path.rglob(".*.[0-9]*"))
    run(tmp_path, mall_run)
    assert result(tmp_path) == whole


@pytest.mark.usefixtures("small")
def test_parts_that_can_not_be_looked_at_stay(mall_run, tmp_path, monkeypatch, whole):
    interrupted(write(tmp_path), mall_run, 3)
    before = {path.name for path in (tmp_path / ".out.parquet.parts").iterdir()}

    def broken(*_):
        raise OSError("a disk that fails")

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "_whole", broken)
        with pytest.raises(OSError, match="a disk that fails"):
            run(tmp_path, mall_run)
    assert {path.name for path in (tmp_path / ".out.parquet.parts").iterdir()} == before
    assert len(before) == 6
    run(tmp_path, mall_run)
    assert result(tmp_path) == whole
