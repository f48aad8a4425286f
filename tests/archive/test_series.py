"""What makes a series, what is split off, what stands in its way, and what is said of it."""

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from tests.archive.dicom_files import (
    make_slices,
    series_and_notes,
    simple_series,
    stored_values,
    whole,
    write,
    write_all,
)
from tests.archive.test_discover import run
from tests.archive.volume_files import hu
from toolkit.archive.catalog import catalog
from toolkit.archive.deflated import inflate_raw
from toolkit.archive.dicom_series import SeriesRules
from toolkit.archive.index_cache import IndexCache
from toolkit.archive.manifest import write_manifest
from toolkit.errors import UsageError


def outcome(root):
    found = run(root)
    return {c.case_id: c.problem and c.problem.code for c in found.cases}, [p.code for p in found.refused]


def notes(root):
    return {c.case_id: sorted(n.code for n in c.notes) for c in run(root).cases}


def two_volumes(folder, change, second=None):
    """Twelve slices of one series, two at each place; `change` marks the second volume."""
    for part in (0, 1):
        slices = make_slices(stored_values(seed=part))
        for k, d in enumerate(slices):
            d.SOPInstanceUID = f"1.2.3.{part}.{k + 1}"
            d.AcquisitionNumber = 1
            if part:
                change(d)
        kept = slices if second is None or not part else slices[:second]
        write_all(folder, kept, range(part, 2 * len(kept), 2))


@pytest.mark.parametrize(
    ("keyword", "value", "ids"),
    [
        ("AcquisitionNumber", 2, ["1.2.3#1", "1.2.3#2"]),
        ("ConvolutionKernel", "B70f", ["1.2.3#B30f", "1.2.3#B70f"]),
        (
            "ImageType",
            ["DERIVED", "PRIMARY", "AXIAL"],
            ["1.2.3#DERIVED-PRIMARY-AXIAL", "1.2.3#ORIGINAL-PRIMARY-AXIAL"],
        ),
    ],
)
def test_one_series_of_two_volumes_is_split(tmp_path, keyword, value, ids):
    two_volumes(tmp_path / "ct", lambda d: setattr(d, keyword, value))
    found = run(tmp_path)
    assert sorted(c.case_id for c in found.cases) == ids
    assert [c.problem for c in found.cases] == [None, None]
    assert all("W-DCM-005" in [n.code for n in c.notes] for c in found.cases)
    read = {tuple(whole(c.source).ravel()) for c in found.cases}
    assert read == {tuple(hu(stored_values(seed=s) - 1024).ravel()) for s in (0, 1)}
    manifest = tmp_path / "cases.csv"
    write_manifest(manifest, found.cases)
    again = catalog(tmp_path, manifest, SeriesRules(), IndexCache(None))
    assert [(c.case_id, c.problem) for c in again.cases] == [(i, None) for i in ids]
    np.testing.assert_array_equal(whole(again.cases[0].source), whole(found.cases[0].source))


def test_parts_that_are_no_volumes_are_not_split(tmp_path):
    two_volumes(tmp_path, lambda d: setattr(d, "AcquisitionNumber", 2), second=2)
    assert outcome(tmp_path) == ({"1.2.3": "E-GEO-002"}, [])


def test_two_volumes_that_nothing_tells_apart_are_refused(tmp_path):
    two_volumes(tmp_path, lambda d: None)
    assert outcome(tmp_path) == ({"1.2.3": "E-GEO-002"}, [])


def test_series_of_one_scan_are_named_and_can_be_chosen(tmp_path):
    simple_series(tmp_path / "a", series="1.2.3")
    simple_series(tmp_path / "b", series="1.2.4")
    simple_series(tmp_path / "c", lambda _, d: setattr(d, "StudyInstanceUID", "9"), series="1.2.5")
    assert notes(tmp_path) == {"1.2.3": ["W-DCM-007"], "1.2.4": ["W-DCM-007"], "1.2.5": []}

    def choose(*uids):
        found = catalog(tmp_path, None, SeriesRules(), IndexCache(None), series_uids=uids)
        return [c.case_id for c in found.cases]

    assert choose("1.2.4") == ["1.2.4"]
    assert choose("1.2.5", "1.2.3") == ["1.2.3", "1.2.5"]
    with pytest.raises(UsageError, match="E-CASE-005"):
        choose("1.2.4", "7")


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (["ORIGINAL", "PRIMARY", "LOCALIZER"], "CT localizers"),
        (["DERIVED", "SECONDARY", "SCREEN SAVE"], "CT screen saves"),
        (["DERIVED", "SECONDARY", "AXIAL", "MIP"], "CT projections"),
        (["DERIVED", "SECONDARY", "OTHER", "DOSE_INFO"], "CT dose reports"),
    ],
)
def test_pictures_stored_as_ct_are_skipped_and_listed(tmp_path, value, what):
    simple_series(tmp_path / "ct")
    (path, *_) = simple_series(
        tmp_path / "pictures", lambda _, d: setattr(d, "ImageType", value), series="1.9"
    )
    found = run(tmp_path)
    assert [c.case_id for c in found.cases] == ["1.2.3"]
    assert {name: len(paths) for name, paths in found.ignored.items()} == {what: 6}
    assert str(path) in found.ignored[what]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["DERIVED", "SECONDARY", "AXIAL"], ["W-DCM-004"]),
        (["DERIVED", "SECONDARY", "MPR"], ["W-DCM-004"]),
        (["DERIVED", "PRIMARY", "AXIAL"], []),
        (["ORIGINAL", "SECONDARY", "AXIAL"], []),
        (["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"], []),
    ],
)
def test_derived_cross_sections_are_read(tmp_path, value, expected):
    simple_series(tmp_path, lambda _, d: setattr(d, "ImageType", value))
    assert outcome(tmp_path) == ({"1.2.3": None}, [])
    assert notes(tmp_path) == {"1.2.3": expected}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda k, d: setattr(d, "ImagesInAcquisition", 6), []),
        (lambda k, d: setattr(d, "ImagesInAcquisition", 7), ["W-DCM-003"]),
        (lambda k, d: setattr(d, "NumberOfSeriesRelatedInstances", 8), ["W-DCM-003"]),
        (lambda k, d: setattr(d, "LossyImageCompression", "01"), ["W-DCM-002"]),
        (lambda k, d: setattr(d, "LossyImageCompression", "00"), []),
        (lambda k, d: setattr(d, "RescaleIntercept", str(-1000 - k)), ["W-HU-001"]),
    ],
)
def test_what_is_said_of_a_series_that_is_read(tmp_path, change, expected):
    simple_series(tmp_path, change)
    assert [n.code for n in series_and_notes(tmp_path)[1]] == expected


@pytest.mark.filterwarnings("ignore")  # pydicom speaks of the value that we write on purpose
def test_counts_that_are_no_numbers_do_no_harm(tmp_path):
    paths = simple_series(tmp_path, lambda _, d: setattr(d, "AcquisitionNumber", 4))
    for path in paths:
        data = path.read_bytes()
        assert b"\x20\x00\x12\x00IS\x02\x004 " in data
        path.write_bytes(data.replace(b"\x20\x00\x12\x00IS\x02\x004 ", b"\x20\x00\x12\x00IS\x02\x00x "))
    assert outcome(tmp_path) == ({"1.2.3": None}, [])


@pytest.mark.parametrize("left", [150, 300, 400, 450, 500, 600, 690])
def test_a_slice_cut_in_its_header_refuses_its_series_and_no_other(tmp_path, left):
    """At the end of the stack geometry would not miss it."""
    paths = simple_series(tmp_path, series="1.2.3")
    other = simple_series(tmp_path / "other", series="1.2.4")
    moved = [p.rename(tmp_path / f"b{p.name}") for p in other]
    data = paths[0].read_bytes()
    assert left < len(data) - 70
    paths[0].write_bytes(data[:left])
    cases, _ = outcome(tmp_path)
    series = data[:left].find(b"\x20\x00\x0e\x00UI") > 0
    assert cases["1.2.4"] is None
    if series:
        assert cases["1.2.3"].startswith("E-")
        problem = next(c.problem for c in run(tmp_path).cases if c.case_id == "1.2.3")
        assert str(paths[0]) in problem.files
    else:  # nobody can tell whose it was: both series say so
        assert all("W-DCM-006" in codes for codes in notes(tmp_path).values())
    for path in moved:
        path.unlink()
    assert outcome(tmp_path)[0]["1.2.3"].startswith("E-")  # alone in its folder, it must be


@pytest.mark.parametrize("content", [b"", bytes(5000), b"\0" * 128 + b"DICM" + b"\xff" * 300])
def test_what_an_interrupted_copy_leaves_refuses_the_series_beside_it(tmp_path, content):
    simple_series(tmp_path / "a", series="1.2.3")
    simple_series(tmp_path / "b", series="1.2.4")
    (tmp_path / "a" / "0099.dcm").write_bytes(content)
    found = run(tmp_path)
    assert {c.case_id: c.problem and c.problem.code for c in found.cases} == {
        "1.2.3": "E-DCM-008",
        "1.2.4": None,
    }
    assert found.cases[0].problem.files == (str(tmp_path / "a" / "0099.dcm"),)
    assert [p.code for p in found.refused] == ["E-FILE-003"]


def test_a_text_named_dcm_harms_nobody(tmp_path):
    simple_series(tmp_path)
    (tmp_path / "readme.dcm").write_text("These are the slices of one patient. " * 10)
    assert outcome(tmp_path) == ({"1.2.3": None}, ["E-FILE-003"])


def test_the_index_remembers_a_damaged_slice(tmp_path):
    paths = simple_series(tmp_path / "a")
    paths[0].write_bytes(paths[0].read_bytes()[:700])
    cache = IndexCache(tmp_path / "index")
    states = [catalog(tmp_path / "a", None, SeriesRules(), cache).cases[0].problem for _ in range(2)]
    assert states[0] == states[1]
    assert states[0] is not None


def test_a_deflated_bomb_is_not_inflated(tmp_path):
    """A thousand to one: 64 MiB of zeros before the pixels, and as many in them."""
    d = make_slices(stored_values((1, 5, 7)))[0]
    d.private_block(0x0029, "MAKER", create=True).add_new(0x10, "OB", bytes(64 << 20))
    path = write(tmp_path / "a.dcm", d, DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 1 << 20
    import tracemalloc

    tracemalloc.start()
    found = run(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [p.code for p in found.refused] == ["E-FILE-003"]
    assert peak < 24 << 20


def test_pixels_of_a_deflated_file_are_inflated_as_far_as_needed(tmp_path):
    slices = make_slices(stored_values())
    for d in slices:
        d.PixelData = d.PixelData + bytes(32 << 20)
    write_all(tmp_path, slices, syntax=DeflatedExplicitVRLittleEndian)
    series, _ = series_and_notes(tmp_path)
    np.testing.assert_array_equal(whole(series), hu(stored_values() - 1024))
    meta = pydicom.filereader.read_file_meta_info(tmp_path / "0000.dcm")
    start = 132 + 12 + meta.FileMetaInformationGroupLength
    assert len(inflate_raw(str(tmp_path / "0000.dcm"), start, 100, skip=1000)) == 100
