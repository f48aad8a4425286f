"""A cluster makes the bytes that one machine makes, whatever dies; see `tests.preprocess.cluster`."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.long import long
from tests.preprocess.archives import identity
from tests.preprocess.cluster import (
    KEY,
    PATIENTS,
    PLANTED,
    ROOT,
    SETTINGS,
    Cluster,
    Made,
    end,
    made,
    start,
    until,
)
from toolkit.archive.index_cache import IndexCache
from toolkit.preprocess.cluster import commit, shard_task
from toolkit.preprocess.shards import ShardTask, do_shard
from toolkit.preprocess.versions import versions
from toolkit.store.format import digest, images_path, ledger_path, masks_path
from toolkit.store.ledger import committed


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(tmp_path_factory.mktemp("dask"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory):
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.ready()
        yield made
    finally:
        made.close()


def on(cluster: Cluster, one: Made, store: Path) -> "subprocess.Popen[str]":
    return start(
        one.archive, store, *one.options, "--engine", "dask", "--scheduler", cluster.file, "--workers", "1"
    )


def ended(run: "subprocess.Popen[str]", code: int) -> str:
    _, talk = run.communicate(timeout=120)
    assert run.returncode == code, talk
    assert "Traceback" not in talk
    return talk


def stop_a_worker(cluster: Cluster, store: Path) -> psutil.Process:
    """Stop a worker once shards go out, and wait until the other has made some."""
    worker = cluster.worker_of(cluster.nannies[0])
    until(lambda: store.with_name(f"{store.name}.crosswalk.csv").exists())
    worker.suspend()
    until(lambda: committed(store))
    return worker


def test_other_code_is_refused_before_any_shard(cluster: Cluster, one: Made, tmp_path: Path) -> None:
    for room in ("toolkit", "kernels"):
        shutil.copytree(ROOT / room, tmp_path / "other" / room, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "other/kernels/arith.py").open("a") as file:
        file.write("# another day\n")
    log = cluster.folder / "log"
    there = log.read_text().count("Register worker")
    odd = cluster.worker("odd", code=tmp_path / "other")
    try:
        until(lambda: log.read_text().count("Register worker") > there)
        talk = ended(on(cluster, one, tmp_path / "store"), 2)
    finally:
        end(odd)
    assert "E-DASK-003" in talk
    assert "code" in talk
    assert not (tmp_path / "store").exists()


def test_a_killed_worker_costs_nothing_but_time(cluster: Cluster, one: Made, tmp_path: Path) -> None:
    store = one.planned(tmp_path / "store")
    run = on(cluster, one, store)
    stop_a_worker(cluster, store).kill()
    ended(run, 0)
    assert identity(store) == identity(one.whole)


def test_a_shard_that_kills_its_workers_is_named(cluster: Cluster, one: Made, tmp_path: Path) -> None:
    tolerate(cluster, 0)
    store = one.planned(tmp_path / "store")
    run = on(cluster, one, store)
    stop_a_worker(cluster, store).kill()
    talk = ended(run, 8)
    tolerate(cluster, 3)
    lost = PATIENTS - len(committed(store))
    assert lost > 0
    assert talk.count("E-DASK-006") == talk.count("refused PHANTOM-") == lost
    assert "KilledWorker" in talk
    ended(on(cluster, one, store), 0)
    assert identity(store) == identity(one.whole)


def tolerate(cluster: Cluster, deaths: int) -> None:
    """Tell the scheduler how many workers may die on a task."""
    script = (
        "from distributed import Client\n"
        f"def f(dask_scheduler): dask_scheduler.allowed_failures = {deaths}\n"
        f"Client(scheduler_file={str(cluster.file)!r}).run_on_scheduler(f)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


@long
def test_ctrl_c_on_a_cluster_of_this_machine_says_one_line(one: Made, tmp_path: Path) -> None:
    """A terminal sends it to all processes of the run; the workers, too, say nothing of it."""
    for delay in (0.0, 1.5):
        store = one.planned(tmp_path / f"store{delay}")
        options = (*one.options, "--engine", "dask", "--workers", "2")
        run = start(one.archive, store, *options, start_new_session=True)
        until(lambda store=store: store.with_name(f"{store.name}.crosswalk.csv").exists())
        time.sleep(delay)
        os.killpg(run.pid, signal.SIGINT)
        lines = ended(run, 75).splitlines()
        assert ["again to resume" in line for line in lines] == [True]
        one.finish(store)


def test_sigterm_ends_with_75_and_a_lost_scheduler_too(cluster: Cluster, one: Made, tmp_path: Path) -> None:
    store = one.planned(tmp_path / "store")
    run = on(cluster, one, store)
    until(lambda: committed(store))
    run.terminate()
    assert "again to resume" in ended(run, 75)
    assert len(committed(store)) < PATIENTS
    other = one.planned(tmp_path / "other")
    run = on(cluster, one, other)
    stopped = stop_a_worker(cluster, other)
    cluster.scheduler.kill()
    talk = ended(run, 75)
    stopped.kill()
    assert "E-DASK-005" in talk
    assert 0 < len(committed(other)) < PATIENTS
    for begun in (store, other):
        one.finish(begun)


def test_nobody_is_named_where_dask_logs(cluster: Cluster) -> None:
    """The last test of this cluster, after all that went wrong on it."""
    log = (cluster.folder / "log").read_text()
    assert "marked as failed because" in log  # tasks are named ...
    assert not [name for name in PLANTED if name in log]  # ... nobody else


@long
def test_a_cluster_of_this_machine(one: Made, tmp_path: Path) -> None:
    store = one.planned(tmp_path / "store")
    run = start(one.archive, store, *one.options, "--engine", "dask", "--workers", "2", "--json")
    open_ports = set()
    while run.poll() is None:
        for process in [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)]:
            try:
                found = process.net_connections()
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            open_ports |= {port.laddr.ip for port in found if port.status == psutil.CONN_LISTEN}
        time.sleep(0.05)
    ended(run, 0)
    assert open_ports == {"127.0.0.1"}
    assert identity(store) == identity(one.whole)


def test_a_missing_extra_is_named(one: Made, tmp_path: Path) -> None:
    code = "import sys; sys.modules['distributed'] = None; from toolkit.cli import main; main()"
    command = [sys.executable, "-c", code, "preprocess", one.archive, tmp_path / "s", "--engine", "dask"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "E-DASK-001" in run.stderr
    assert "pip install 'toolkit[dask]'" in run.stderr


def shard(one: Made, **changes: object) -> ShardTask:
    found = digest((one.whole / "store.json").read_bytes())
    task = ShardTask("00000", versions(), one.archive, one.whole, found, SETTINGS, (), (), patience_s=0)
    return replace(task, **changes)


def test_a_worker_with_other_code_or_another_disk_does_nothing(one: Made, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for code, changes in {
        "E-DASK-003": [{"versions": {**versions(), "numpy": "1.0"}}],
        "E-DASK-004": [{"archive": tmp_path / "empty"}, {"store": tmp_path}, {"store_digest": "0"}],
        "E-DASK-006": [{"tasks": (None,)}],
    }.items():
        for change in changes:
            done = do_shard(shard(one, **change))
            assert (done.problem.code, done.mark) == (code, "")
            assert "DOE" not in repr(done) + repr(shard(one, **change))


def test_a_shard_done_twice_at_once_is_harmless(one: Made, tmp_path: Path) -> None:
    job = one.job(one.planned(tmp_path / "store"))
    work, seen = one.work(), digest((job.store / "store.json").read_bytes())
    cache = IndexCache(one.index)
    chosen = work.todo[0]
    task = shard_task(job, work, cache, chosen, seen)
    cache.close()
    sent = pickle.dumps(task)
    assert KEY.secret not in sent
    assert b"DOE^JANE" in sent  # the files must be found; case and patient need no name
    assert not any(f.header.patient_id for t in task.tasks if t.case.unopened for f in t.case.unopened.files)
    assert {(t.case.case_id, t.case.patient_id) for t in task.tasks} == {("", "")}
    with ThreadPoolExecutor(2) as two:
        first, second = two.map(do_shard, [task, task])
    assert first.mark
    assert second.mark not in ("", first.mark)
    commit(job, work, chosen, first)
    assert do_shard(task).mark == ""  # committed already: nothing is done
    commit(job, work, chosen, second)
    for path in (ledger_path, images_path, masks_path):
        assert path(job.store, chosen.name).read_bytes() == path(one.whole, chosen.name).read_bytes()
    left = do_shard(replace(task, keys=()))  # of a client that dies before it takes the result
    assert left.mark
    one.finish(job.store)
