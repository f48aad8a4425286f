"""Slices that are held packed: nothing of them is lost, and the way in which they come changes nothing."""

import random
import tracemalloc
import zlib
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.scale_rows import write_archive
from tests.archive.dicom_files import make_slices, stored_values, write_all
from tests.archive.volume_files import phantom, write_itk
from toolkit.archive import catalog as catalog_module
from toolkit.archive.catalog import catalog
from toolkit.archive.dicom_fields import SliceFile, SliceHeader
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.discover import Discovery
from toolkit.archive.entries import FileEntry, SliceTable, pack_folder, unpack_folder
from toolkit.archive.index_cache import IndexCache
from toolkit.archive.outcomes import outcomes
from toolkit.archive.packed import PackedSlices

TEXT = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=6).filter(lambda t: t.strip("."))
OF_TYPE = {
    str: st.text(max_size=6),
    int: st.integers(-(2**40), 2**40),
    float: st.floats(),
    bool: st.booleans(),
    type(None): st.none(),
    tuple[float, ...]: st.lists(st.floats(), max_size=4).map(tuple),
}


def of_field(hint: Any) -> st.SearchStrategy[Any]:
    return OF_TYPE[hint] if hint in OF_TYPE else st.one_of([OF_TYPE[each] for each in get_args(hint)])


HEADERS = st.builds(SliceHeader, **{k: of_field(v) for k, v in get_type_hints(SliceHeader).items()})
# surrogates are how Python shows the bytes of a name that is no UTF-8
NAMES = TEXT | st.just("M\udcfcller.dcm")


@st.composite
def slice_files(draw: st.DrawFn) -> list[SliceFile]:
    """Some slices with much or little in common, by folder and name."""
    few = draw(st.lists(HEADERS, min_size=1, max_size=3))
    paths = draw(st.lists(st.tuples(st.sampled_from(["/", "/a", "/a/b"]), NAMES), max_size=8, unique=True))
    size, time = st.integers(0, 2**50), st.integers(0, 2**62)
    return [
        SliceFile(f"{folder.rstrip('/')}/{name}", draw(size), draw(time), draw(st.sampled_from(few)))
        for folder, name in sorted(paths)
    ]


@given(slice_files())
def test_slices_come_out_as_they_went_in(files: list[SliceFile]) -> None:
    packed = PackedSlices(files)
    assert (len(packed), repr(list(packed))) == (len(files), repr(files))  # of a NaN and a -0.0 too
    assert repr([packed[k] for k in range(len(files))]) == repr(files)
    halves = PackedSlices.joined([PackedSlices(files[:3]), PackedSlices(files[3:])])
    assert (len(halves), repr(list(halves))) == (len(files), repr(files))


@given(slice_files(), st.sampled_from(["volume", "bad", "other"]))
def test_a_folder_comes_out_as_it_went_in(files: list[SliceFile], kind: str) -> None:
    entries = [FileEntry(f"{k}", f.size, f.mtime_ns, "dicom", f.header) for k, f in enumerate(files)]
    found, table, packed = unpack_folder(pack_folder([*entries, FileEntry("x", 1, 2, kind, {"a": [0.5]})]))
    assert found == [FileEntry("x", 1, 2, kind, {"a": [0.5]})]
    assert repr(list(table.headers())) == repr([file.header for file in files])
    for field in SliceHeader._fields if files else ():
        assert repr(list(table.column(field))) == repr([getattr(file.header, field) for file in files])
    assert repr(unpack_folder(packed).slices) == repr(table)


TORN = pack_folder([FileEntry("a", 1, 2, "other", None)])[:-1]
MEANINGLESS = [zlib.compress(text) for text in (b"3", b"{}", b"[[1],[],[],[],[]]")]


@pytest.mark.parametrize("damaged", [b"", b"x", TORN, *MEANINGLESS])
def test_what_is_damaged_is_said(damaged: bytes) -> None:
    with pytest.raises(ValueError, match=r"damaged|values to unpack"):
        unpack_folder(damaged)


def told(found: Discovery) -> list[Any]:
    cases = [
        (c.case_id, c.patient_id, c.image, c.digest, c.masks, c.notes, c.problem, c.points)
        for c in found.cases
    ]
    return [cases, found.refused, found.ignored, list(outcomes(found))]


@pytest.fixture
def mixed_archive(tmp_path: Path) -> Path:
    """Of everything some in each of three folders, and a series that lies in all of them."""
    root = tmp_path / "mixed"
    slices = make_slices(stored_values((9, 5, 7)))
    for k in range(3):
        write_all(root / f"{k}", slices[k::3])
        write_all(root / f"{k}", make_slices(stored_values(), series=f"1.2.{k}", patient="P"), range(10, 16))
        for name in ("notes.txt", "bad.nrrd", ".hidden"):
            (root / f"{k}" / name).write_text("text")
        (root / f"{k}" / "damaged.dcm").write_bytes(bytes(128) + b"DICM" + bytes(100))
        (root / f"{k}" / "link.dcm").symlink_to(root / f"{k}" / "0000.dcm")
        (root / f"{k}" / "out.dcm").symlink_to("/proc/version")
        write_itk(root / f"{k}" / "alone_mask.nrrd", (phantom() > 2000).astype(np.uint8), np.eye(4))
        (root / f"{k}" / "annotations.csv").write_text(
            f"seriesuid,coordX,coordY,coordZ,diameter_mm\n1.2.0,{k},0,0,5\n"
        )
    for folder in ("imagesTr", "ImagesTr", "labelsTr"):  # of two that could be meant, always the same one
        (root / folder).mkdir()
        write_itk(root / folder / "v.nrrd", phantom(), np.eye(4))
    return root


@pytest.fixture(params=["phantom_archive", "dirty_archive", "mixed_archive"])
def archive(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


def look(archive: Path, cache: IndexCache) -> list[Any]:
    return told(catalog(archive, None, SeriesRules(), cache, open_cases=False))


def test_whole_folders_and_single_slices_are_the_same_cases(archive: Path, monkeypatch) -> None:
    """A folder of one series is taken as it lies in the index; without that, slice by slice."""
    cache = IndexCache(None)
    usual = look(archive, cache)
    assert look(archive, cache) == usual
    asked = []
    monkeypatch.setattr(SliceTable, "alike", lambda *fields: asked.append(fields))
    assert look(archive, cache) == usual
    assert asked


def test_the_order_of_folders_changes_nothing(archive: Path, monkeypatch) -> None:
    cache, scanned = IndexCache(None), catalog_module._scanned
    usual = look(archive, cache)
    for seed in range(5):

        def shuffled(*given: Any, seed: int = seed) -> Any:
            folders = list(scanned(*given))
            random.Random(seed).shuffle(folders)
            return folders

        monkeypatch.setattr(catalog_module, "_scanned", shuffled)
        assert look(archive, cache) == usual


def test_a_slice_takes_a_hundred_bytes_and_not_a_thousand(tmp_path: Path) -> None:
    held = []
    for series in (10, 40):
        work = tmp_path / str(series)
        write_archive(work, series, 200)
        cache = IndexCache(work / "index")
        tracemalloc.start()
        found = catalog(work / "archive", None, SeriesRules(), cache, open_cases=False)
        held.append(tracemalloc.get_traced_memory())
        tracemalloc.stop()
        assert [len(case.unopened.files) for case in found.cases] == [200] * series
    (now, peak), (now_of_more, peak_of_more) = held
    assert (now_of_more - now) / (30 * 200) < 100
    assert (peak_of_more - peak) / (30 * 200) < 100
