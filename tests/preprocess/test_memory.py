"""A worker is granted so much memory: what asks for more is refused by name, and the others go on."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.archive.dicom_files import make_slices, stored_values, write_all
from tests.archive.volume_files import write_itk
from toolkit.archive import scan
from toolkit.archive.catalog import Scanned, catalog
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.index_cache import IndexCache
from toolkit.archive.scan import FolderTask
from toolkit.preprocess.confine import LEAST_BYTES, share
from toolkit.preprocess.identity import IdKey
from toolkit.preprocess.job import Job, Summary
from toolkit.preprocess.local import scan_in
from toolkit.preprocess.plan import Settings
from toolkit.preprocess.pool import Died, Exhausted, Pool, death
from toolkit.preprocess.run import preprocess
from toolkit.store.verify import verify

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are Linux's")
ROOM = 256 << 20


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool[Any, Any]]:
    with Pool(1, ROOM) as made:
        yield made


def hog(task: str) -> int:
    if task == "takes":
        held = []
        while True:  # by and by, and nothing is let go
            held.append(bytes(32 << 20))
    if task == "packs":
        return bytes(ROOM - (96 << 20))  # type: ignore[return-value]  # fits, and not twice: while it is sent
    return int(np.ones(ROOM // 2, np.uint8)[-1])


def test_a_hog_costs_its_task_alone(pool: Pool[str, int]) -> None:
    """Workers that are killed stand in test_pool.py."""
    results = dict(pool.map(hog, ["", "takes", "", "packs", ""]))
    assert [results[k] for k in (0, 2, 4)] == [1, 1, 1]
    assert [results[k] for k in (1, 3)] == [Exhausted(ROOM), Exhausted(ROOM)]


def test_the_refusal_says_what_was_granted_and_which_flag_grants_more() -> None:
    problem = death(Exhausted(1 << 30))
    assert (problem.code, problem.transient) == ("E-CASE-006", True)
    assert problem.measured == "more than 1 GiB"
    assert problem.expected == "at most 1 GiB"
    assert "--worker-memory" in problem.action
    killed = death(Died(-9))
    assert (killed.code, killed.measured, killed.transient) == ("E-CASE-002", "worker ended by SIGKILL", True)
    assert death(Died(3)).measured == "worker ended by code 3"
    assert "--workers" in killed.action


def test_a_share_is_an_equal_part_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for whole, workers, granted in ((64 << 30, 4, 16 << 30), (8 << 30, 64, LEAST_BYTES), (None, 4, None)):
        monkeypatch.setattr("toolkit.preprocess.confine.machine_memory", lambda whole=whole: whole)
        assert share(workers) == granted


def deadly(folder: Path) -> None:
    """A header whose first element claims 3 GiB: whoever reads what it claims asks for it at once."""
    folder.mkdir(parents=True)
    size = (3 << 30).to_bytes(4, "little")
    (folder / "bomb.dcm").write_bytes(bytes(128) + b"DICM" + b"\x08\x00\x05\x00UN\0\0" + size + bytes(64))


def test_a_file_that_asks_for_gigabytes_is_named_and_others_are_read(
    pool: Pool[Any, Any], tmp_path: Path
) -> None:
    deadly(tmp_path / "archive" / "bad")
    write_all(tmp_path / "archive" / "good", make_slices(stored_values()))
    found = catalog(
        tmp_path / "archive", None, SeriesRules(), IndexCache(None), lambda tasks: scan_in(pool, tasks)
    )
    assert [case.problem for case in found.cases] == [None]
    ((code, name),) = [(p.code, Path(p.files[0]).name) for p in found.refused]
    assert name == "bomb.dcm"
    assert code in ("E-CASE-006", "E-FILE-003")  # asked for and not granted, or not even asked for


def test_a_file_whose_header_takes_too_much_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(path: Path) -> None:
        if path.name == "0002.dcm":
            raise MemoryError
        return read(path)

    read = scan.probe_header
    monkeypatch.setattr(scan, "probe_header", greedy)
    write_all(tmp_path, make_slices(stored_values()))
    found = scan.scan_folder(FolderTask(str(tmp_path)))
    (bad,) = [entry for entry in found if entry.kind != "dicom"]
    assert (bad.name, bad.kind) == ("0002.dcm", "broken")
    problem = scan.broken(bad.facts)[1]
    assert (problem.code, problem.transient) == ("E-CASE-006", True)
    assert "--worker-memory" in problem.action


def test_a_folder_that_changed_is_read_by_a_worker_too(
    pool: Pool[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main process looks at names, sizes and times of what it knows, and opens no file."""

    def never(path: Path) -> None:
        raise AssertionError(f"{path.name} was read in the main process")

    monkeypatch.setattr("toolkit.archive.scan._identify", never)
    write_all(tmp_path / "a", make_slices(stored_values()))
    cache, another, looked = IndexCache(None), tmp_path / "a" / "x.dcm", []

    def look(new: Iterable[FolderTask]) -> Iterable[Scanned]:
        tasks = list(new)
        looked.append([Path(task.folder).name for task in tasks])
        return scan_in(pool, tasks)

    for change in ("new", "nothing", "another file", "a file gone"):
        if change == "another file":
            another.write_bytes(b"x" * 200)
        if change == "a file gone":
            another.unlink()
        assert len(catalog(tmp_path, None, SeriesRules(), cache, look).cases) == 1
    assert looked == [[tmp_path.name, "a"], [], ["a"], ["a"]]


def test_a_case_too_large_is_refused_by_name_and_made_where_there_is_room(tmp_path: Path) -> None:
    write_itk(tmp_path / "scan.nrrd", np.zeros((20, 20, 20), np.int16), np.eye(4)[[2, 1, 0, 3]])
    columns = "case_id,patient_id,image,x_mm,y_mm,z_mm,diameter_mm,nodule_id"
    points = [("few", 0), *(("many", k) for k in range(120))]  # 120 crops of 64^3 take 94 MB
    lines = [f"{case},p,scan.nrrd,10,10,{10 + k / 100},5,n{k}" for case, k in points]
    (tmp_path / "cases.csv").write_text("\n".join([columns, *lines, ""]))
    settings = Settings(size=64, margin=0)

    def make(store: str, room: int) -> Summary:
        manifest = tmp_path / "cases.csv"
        job = Job(tmp_path, tmp_path / store, IdKey(b"k"), manifest, settings=settings, worker_memory=room)
        return preprocess(job)

    limited = make("limited", 60 << 20)
    assert (limited.done, limited.refused, limited.exit_code) == (1, {"E-CASE-006": 1}, 8)
    ((name, problem),) = limited.failures
    assert (name, problem.measured, problem.expected) == (
        "many",
        "more than 0.0586 GiB",
        "at most 0.0586 GiB",
    )
    assert make("limited", 0).done == 2  # it was kept as worth another try
    assert list(verify(tmp_path / "limited")) == []
