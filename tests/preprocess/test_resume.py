"""Whatever happens on the way, the store at the end is the same, byte for byte."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.long import LONG
from tests.preprocess.archives import identity
from toolkit.phantom.archive import write_archive
from toolkit.preprocess.identity import IdKey
from toolkit.preprocess.plan import Settings
from toolkit.preprocess.run import Job, preprocess
from toolkit.store import ledger
from toolkit.store.ledger import committed, read_ledger
from toolkit.store.verify import verify

CROPS = ("--spacing", "1.5", "--size", "40", "--margin", "4", "--id-key", "test")
KILLS, KILLS_A_RUN = (50, 5) if LONG else (12, 4)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty patients: three shards."""
    out = tmp_path_factory.mktemp("resume") / "archive"
    write_archive(out, patients=20, seed=11, formats=("dicom", "nifti"), workers=2)
    return out


def command(archive: Path, store: Path, *more: str) -> list[str]:
    cases = ("--cases", str(archive / "cases.csv"), "--index-cache", str(archive.parent / "index"))
    return [sys.executable, "-m", "toolkit", "preprocess", str(archive), str(store), *CROPS, *cases, *more]


def finish(archive: Path, store: Path, *more: str) -> None:
    ended = subprocess.run(command(archive, store, *more), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def whole(archive: Path) -> tuple[Path, float]:
    """An uninterrupted run, and how long a second one takes."""
    for name in ("whole", "again"):
        start = time.monotonic()
        finish(archive, archive.parent / name)
    assert identity(archive.parent / "whole") == identity(archive.parent / "again")
    return archive.parent / "whole", time.monotonic() - start


@pytest.mark.slow
def test_sigkill_at_random_moments_then_resume(
    archive: Path, whole: tuple[Path, float], tmp_path: Path
) -> None:
    reference, seconds = whole
    moments = random.Random(0)
    cut_short = partial = 0
    for number in range(KILLS // KILLS_A_RUN):
        store = tmp_path / str(number) / "store"
        store.parent.mkdir()
        for kill in range(KILLS_A_RUN):
            run = subprocess.Popen(
                command(archive, store),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            if kill == 0:  # as soon as something is committed, which chance would rarely hit
                while run.poll() is None and not committed(store):
                    time.sleep(0.001)
            else:
                time.sleep(moments.uniform(0, seconds))
            if moments.random() < 0.5:
                os.killpg(run.pid, signal.SIGKILL)
            else:
                run.kill()
            cut_short += run.wait() != 0
            partial += 0 < len(committed(store)) < 3
            for shard in committed(store):  # what is committed is whole
                assert read_ledger(store, shard)
            problems = list(verify(store)) if (store / "store.json").exists() else []
            assert {p.code for p in problems} <= {"E-STORE-003", "E-STORE-006"}
            assert not [p for p in problems if p.code == "E-STORE-003" and "digest" in p.measured]
        finish(archive, store)
        assert identity(store) == identity(reference)
        assert list(verify(store)) == []
        shutil.rmtree(store)
    assert cut_short >= KILLS // 2, "the kills came too late to mean anything"
    assert partial > 0, "no kill fell between two shards"


@pytest.mark.parametrize("workers", ["1", "2", "4"])
def test_any_number_of_workers(
    archive: Path, whole: tuple[Path, float], tmp_path: Path, workers: str
) -> None:
    finish(archive, tmp_path / "store", "--workers", workers)
    assert identity(tmp_path / "store") == identity(whole[0])


@pytest.mark.parametrize("parts", [["1/2", "2/2"], ["0/3", "2/3", "1/3"]])
def test_shard_runs_one_after_another(
    archive: Path, whole: tuple[Path, float], tmp_path: Path, parts
) -> None:
    for part in parts:
        finish(archive, tmp_path / "store", "--shard", part)
    assert identity(tmp_path / "store") == identity(whole[0])


def test_shard_runs_at_once(archive: Path, whole: tuple[Path, float], tmp_path: Path) -> None:
    store = tmp_path / "store"
    runs = [
        subprocess.Popen(
            command(archive, store, "--shard", f"{i}/3", "--workers", "1"), stdout=subprocess.DEVNULL
        )
        for i in (1, 2, 3)
    ]
    assert [run.wait() for run in runs] == [0, 0, 0]
    assert identity(store) == identity(whole[0])


def test_a_full_disk_loses_nothing(archive: Path, whole: tuple[Path, float], tmp_path: Path) -> None:
    store = tmp_path / "store"
    run = subprocess.run(
        command(archive, store),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000)),
    )
    assert run.returncode == 75
    assert "E-DISK-001" in run.stderr
    assert "Traceback" not in run.stderr
    finish(archive, store)
    assert identity(store) == identity(whole[0])


def test_sigterm_ends_with_75_and_resumes(archive: Path, whole: tuple[Path, float], tmp_path: Path) -> None:
    store = tmp_path / "store"
    run = subprocess.Popen(
        command(archive, store), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while not (store / "plan.jsonl").exists():
        time.sleep(0.005)
    run.terminate()
    _, talk = run.communicate()
    assert run.returncode == 75
    assert "again to resume" in talk
    assert "Traceback" not in talk
    finish(archive, store)
    assert identity(store) == identity(whole[0])


def test_a_killed_worker_costs_its_case_alone(
    archive: Path, whole: tuple[Path, float], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    run = subprocess.Popen(
        command(archive, store, "--workers", "2"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (store / "shards").exists():
        time.sleep(0.002)
    children = [p for p in psutil.Process(run.pid).children() if "spawn_main" in " ".join(p.cmdline())]
    children[0].kill()
    _, talk = run.communicate()
    if run.returncode == 0:
        pytest.skip("the worker was idle when it was killed")
    assert run.returncode == 8
    assert "E-CASE-002" in talk
    assert "PHANTOM-" in talk
    entries = [entry for shard in committed(store) for entry in read_ledger(store, shard)]
    assert sorted(entry.status for entry in entries) == ["done"] * 19 + ["refused"]
    finish(archive, store)
    assert identity(store) == identity(whole[0])


@pytest.mark.parametrize("damage", ["truncate", "flip", "ledger", "remove"])
def test_damage_is_named_and_mended(
    archive: Path, whole: tuple[Path, float], tmp_path: Path, damage: str
) -> None:
    store = tmp_path / "store"
    shutil.copytree(whole[0], store)
    image = store / "shards/00001.images.npy"
    if damage == "truncate":
        os.truncate(image, image.stat().st_size // 2)
    elif damage == "remove":
        image.unlink()
    elif damage == "flip":
        content = bytearray(image.read_bytes())
        content[len(content) // 2] ^= 4
        image.write_bytes(content)
    else:
        image = store / "ledger/00001.jsonl"
        os.truncate(image, image.stat().st_size - 10)
    problems = list(verify(store))
    assert str(image) in {name for problem in problems for name in problem.files}
    if damage == "flip":  # the one that a glance at sizes cannot see: the message says what to do
        assert "ledger/" in problems[0].action
        (store / "ledger/00001.jsonl").unlink()
    finish(archive, store)
    assert identity(store) == identity(whole[0])


def test_new_cases_open_new_shards(archive: Path, tmp_path: Path) -> None:
    lines = (archive / "cases.csv").read_text().splitlines(keepends=True)
    few = archive / "few.csv"
    few.write_text("".join([lines[0], *(line for line in lines[1:] if line < "PHANTOM-0010")]))
    ended = subprocess.run([*command(archive, tmp_path / "s"), "--cases", str(few)], check=False)
    assert ended.returncode == 0
    before = identity(tmp_path / "s")
    finish(archive, tmp_path / "s")
    after = identity(tmp_path / "s")
    grown = {"nodules.csv", "plan.jsonl"}
    assert {name: after[name] for name in before if name not in grown} == {
        name: before[name] for name in before if name not in grown
    }
    assert len(after) > len(before)


def test_a_changed_input_is_made_anew(tmp_path: Path) -> None:
    write_archive(tmp_path / "archive", patients=4, seed=1, formats=("nifti",))
    finish(tmp_path / "archive", tmp_path / "s")
    write_archive(tmp_path / "archive", patients=4, seed=2, formats=("nifti",))
    finish(tmp_path / "archive", tmp_path / "s")
    finish(tmp_path / "archive", tmp_path / "fresh")
    assert identity(tmp_path / "s") == identity(tmp_path / "fresh")


@pytest.mark.parametrize("more", [(), ("--shard", "1/3")])
def test_a_lost_table_is_written_again(
    archive: Path, whole: tuple[Path, float], tmp_path: Path, more: tuple[str, ...]
) -> None:
    """A run that finds everything done has read the ledgers; one of a part has read its own only."""
    store = tmp_path / "store"
    shutil.copytree(whole[0], store)
    (store / "nodules.csv").unlink()
    finish(archive, store, *more)
    assert identity(store) == identity(whole[0])


def test_ledgers_of_a_finished_store_are_read_once(
    archive: Path, whole: tuple[Path, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, reads = tmp_path / "store", []
    shutil.copytree(whole[0], store)
    unseal_lines = ledger.unseal_lines
    monkeypatch.setattr(ledger, "unseal_lines", lambda path: reads.append(path.name) or unseal_lines(path))
    settings = Settings(spacing_mm=1.5, size=40, margin=4)
    job = Job(archive, store, IdKey(b"test"), manifest=archive / "cases.csv", settings=settings)
    assert preprocess(job).resumed == 20
    assert reads == [f"{name}.jsonl" for name in committed(store)]
