"""The index saves headers between runs, never lies about a file, and never stands in the way."""

import os
import sqlite3

import numpy as np
import pytest

from tests.archive.dicom_files import simple_series
from tests.archive.lidc_files import message
from tests.archive.volume_files import canonical_geometry, phantom, write_itk
from toolkit.archive import index_cache, scan
from toolkit.archive.catalog import catalog
from toolkit.archive.dicom_fields import SliceHeader
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.entries import FileEntry, pack_folder, shared, unpack_folder
from toolkit.archive.index_cache import SCHEMA, IndexCache

FILE = f"index-{SCHEMA}.sqlite"


@pytest.fixture
def archive(tmp_path):
    """A series with its readings, volumes with their masks, and files that cannot be read."""
    root = tmp_path / "archive"
    simple_series(root / "ct")
    (root / "ct" / "a.xml").write_text(message())
    (root / "ct" / "bad.dcm").write_bytes(b"no DICOM" * 40)
    (root / "volumes").mkdir()
    affine = canonical_geometry().affine
    write_itk(root / "volumes" / "v.nii.gz", phantom(), affine)
    write_itk(root / "volumes" / "v_mask.mhd", (phantom() > 2000).astype(np.uint8), affine)
    return root


def run(root, folder):
    cache = IndexCache(folder)
    try:
        return catalog(root, None, SeriesRules(), cache)
    finally:
        cache.close()


def facts(found):
    """Everything of a discovery that can be compared."""
    cases = [
        (c.case_id, c.patient_id, c.image, c.masks, c.digest, c.problem, c.notes, repr(c.source.geometry))
        for c in found.cases
    ]
    return cases, found.refused, found.ignored


def test_a_second_run_reads_no_header(archive, tmp_path, monkeypatch):
    (archive / "ct" / "bad.dcm").unlink()
    first = run(archive, tmp_path / "cache")

    def fail(*_):
        raise AssertionError("a header was read again")

    monkeypatch.setattr(scan, "_identify", fail)
    second = run(archive, tmp_path / "cache")
    assert facts(second) == facts(first)
    assert len(first.cases) == 2
    files = next(c.source.files for c in second.cases if c.image.endswith("ct"))
    assert files == next(c.source.files for c in first.cases if c.image.endswith("ct"))


def test_all_kinds_survive_the_disk(archive, tmp_path):
    first = run(archive, tmp_path / "cache")
    assert {problem.code for problem in first.refused} == {"E-FILE-003"}
    assert facts(run(archive, tmp_path / "cache")) == facts(first)
    assert facts(run(archive, None)) == facts(first)


def read_again(monkeypatch):
    names = []
    real = scan._identify
    monkeypatch.setattr(scan, "_identify", lambda path: names.append(path.name) or real(path))
    return names


def test_changed_new_and_deleted_files(archive, tmp_path, monkeypatch):
    run(archive, tmp_path / "cache")
    ct = archive / "ct"
    (ct / "0005.dcm").unlink()
    os.utime(ct / "0001.dcm", ns=(1, 1))
    (ct / "new.dcm").write_bytes((ct / "0002.dcm").read_bytes())
    names = read_again(monkeypatch)
    found = run(archive, tmp_path / "cache")
    assert names == ["0001.dcm", "new.dcm"]
    series = next(case for case in found.cases if case.image == str(ct))
    assert series.source.geometry.shape_zyx[0] == 5
    assert [note.code for note in series.notes] == ["W-DCM-001"]
    names.clear()
    assert facts(run(archive, tmp_path / "cache")) == facts(found)
    assert names == []


def test_a_data_file_beside_its_header_counts(archive, tmp_path):
    before = run(archive, tmp_path / "cache")
    raw = archive / "volumes" / "v_mask.raw"
    data = bytearray(raw.read_bytes())
    data[0] ^= 1
    raw.write_bytes(data)
    os.utime(raw, ns=(5, 5))
    after = run(archive, tmp_path / "cache")
    digest = [{c.case_id: c.digest for c in found.cases}["volumes/v"] for found in (before, after)]
    assert digest[0] != digest[1]
    raw.write_bytes(data[:10])
    assert run(archive, tmp_path / "cache").cases
    raw.write_bytes(data)
    os.utime(raw, ns=(5, 5))
    assert facts(run(archive, tmp_path / "cache")) == facts(after)


@pytest.mark.parametrize("where", ["head", "pages", "empty", "foreign"])
def test_a_damaged_database_is_replaced(archive, tmp_path, where, monkeypatch):
    first = facts(run(archive, tmp_path / "cache"))
    path = tmp_path / "cache" / FILE
    data = path.read_bytes()
    damaged = {
        "head": b"\xff" * 200 + data[200:],
        "pages": data[:4096] + os.urandom(len(data) - 4096),
        "empty": b"",
        "foreign": b"not a database at all " * 99,
    }
    path.write_bytes(damaged[where])
    assert facts(run(archive, tmp_path / "cache")) == first
    names = read_again(monkeypatch)
    (archive / "ct" / "bad.dcm").unlink()
    run(archive, tmp_path / "cache")
    assert names == []


def test_damaged_values_are_read_anew(archive, tmp_path):
    first = facts(run(archive, tmp_path / "cache"))
    for blob in (b"", b"no zlib", b"x\x9c\x03\x00\x00\x00\x00\x01"):
        with sqlite3.connect(tmp_path / "cache" / FILE) as connection:
            connection.execute("UPDATE entry SET value = ?", (blob,))
        connection.close()
        assert facts(run(archive, tmp_path / "cache")) == first


@pytest.mark.parametrize("kind", ["file", "folder", "device"])
def test_an_unusable_place_costs_nothing_but_time(archive, tmp_path, kind):
    folder = tmp_path / "cache"
    if kind == "file":
        folder.write_text("in the way")
    elif kind == "folder":
        (folder / FILE).mkdir(parents=True)
    else:
        folder = tmp_path.__class__("/proc/no/such/place")
    assert len(run(archive, folder).cases) == 2


def test_a_database_that_cannot_be_written(archive, tmp_path):
    run(archive, tmp_path / "cache")
    cache = IndexCache(tmp_path / "cache")
    cache._connection.execute("PRAGMA query_only = ON")
    (archive / "ct" / "0005.dcm").unlink()
    assert len(catalog(archive, None, SeriesRules(), cache).cases) == 2
    cache.close()


def test_two_processes_do_not_wait_for_each_other(tmp_path):
    one, two = IndexCache(tmp_path), IndexCache(tmp_path)
    two._connection.execute("PRAGMA busy_timeout = 0")
    one.put("folder", "a", [1])
    two.put("folder", "b", [2])
    two.commit()
    one.commit()
    for cache in (one, two):
        assert (cache.get("folder", "a"), cache.get("folder", "b")) == ([1], [2])
        assert cache.get("mask", "a") is None
        cache.close()


def test_names_that_are_no_text(tmp_path):
    folder = os.fsdecode(bytes(str(tmp_path), "ascii") + b"/M\xfcller")
    simple_series(tmp_path.__class__(folder) / "ct")
    assert len(run(tmp_path.__class__(folder), tmp_path / "cache").cases) == 1


def test_the_folder_is_private(tmp_path):
    IndexCache(tmp_path / "cache").close()
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


def test_what_waits_is_written_before_it_fills_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(index_cache, "WAITING_BYTES", 1000)
    cache, other = IndexCache(tmp_path), IndexCache(tmp_path)
    cache.put("folder", "small", 1)
    assert other.get("folder", "small") is None
    for k in range(100):
        cache.put("folder", str(k), [os.urandom(50).hex()])
        assert cache._waiting_bytes <= 1000
    assert other.get("folder", "small") == 1  # as a run that is killed now leaves it
    assert cache.get("folder", "99") is not None
    cache.close()
    assert other.get("folder", "99") is not None
    other.close()


def test_slices_share_what_they_have_in_common(tmp_path):
    folder = str(tmp_path / "ct")
    simple_series(tmp_path / "ct")
    entries = scan.scan_folder(scan.FolderTask(folder))
    task = scan.FolderTask(folder, pack_folder(entries))
    again = scan.recall_folder(task, scan.list_files(folder)[1])
    assert again == unpack_folder(task.known)
    assert (again.entries, list(again.slices.names)) == ([], [entry.name for entry in entries])
    assert list(again.slices.headers()) == [entry.facts for entry in entries]
    first, second = list(again.slices.headers())[:2]
    for name in ("series_uid", "patient_id", "transfer_syntax", "orientation", "spacing", "slope", "rows"):
        assert getattr(first, name) is getattr(second, name)
        assert again.slices.alike(name)
    assert not again.slices.alike("position")
    (tmp_path / "ct" / entries[0].name).unlink()
    assert scan.recall_folder(task, scan.list_files(folder)[1]) is None
    assert scan.scan_folder(task) == entries[1:]


def test_a_zero_keeps_its_sign():
    like, header = (SliceHeader(orientation=(1.0, zero, 0.0), slope=zero) for zero in (0.0, -0.0))
    assert str(shared(header, like).orientation) == "(1.0, -0.0, 0.0)"
    packed = pack_folder([FileEntry("a", 0, 0, "dicom", h) for h in (like, header)])
    found = list(unpack_folder(packed).slices.headers())
    assert str([(h.orientation[1], h.slope) for h in found]) == "[(0.0, 0.0), (-0.0, -0.0)]"
