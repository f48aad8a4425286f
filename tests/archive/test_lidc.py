import time
from pathlib import Path

import numpy as np
import pytest

from tests.archive.lidc_files import SQUARE, message, nodule, point_mark, roi, session
from toolkit.archive import lidc
from toolkit.archive.lidc import LidcRead, combine_reads, read_lidc
from toolkit.archive.lidc_head import sniff_lidc
from toolkit.errors import InputError

BOMB = '<!DOCTYPE b [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
EXTERNAL = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">'


def write(folder: Path, text: str | bytes, name: str = "a.xml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(folder: Path, *sessions: str) -> LidcRead:
    return read_lidc(write(folder, message(*sessions)))


def codes(found: LidcRead) -> list[str]:
    return [note.code for note in found.notes]


def test_reads_what_is_written(tmp_path: Path) -> None:
    outlines = roi(SQUARE, z=-1.5, uid="1.9"), roi([(3, 3), (4, 3), (3, 3)], z=-1.5, inclusion="FALSE")
    found = read(tmp_path, session(), session(nodule("n 1", *outlines, malignancy="4"), point_mark("n 2")))
    assert (found.series_uid, found.study_uid) == ("1.2.3", "1.2")
    assert (found.small_nodules, found.non_nodules, found.exclusions, found.notes) == (1, 2, 1, ())
    (reading,) = found.readings
    assert (reading.reader, reading.nodule_id, reading.malignancy) == (1, "n 1", 4)
    first, hole = reading.outlines
    assert (first.sop_uid, first.z_mm, first.inclusion, hole.inclusion) == ("1.9", -1.5, True, False)
    assert first.points_xy.dtype == np.int32
    assert first.points_xy.tolist() == [list(point) for point in SQUARE]


@pytest.mark.parametrize("prefix", ['xmlns="urn:other"', 'xmlns:q="urn:q"', ""])
def test_any_namespace(tmp_path: Path, prefix: str) -> None:
    text = message(session(nodule("1", roi(SQUARE)))).replace('xmlns="http://www.nih.gov"', prefix)
    if "xmlns:q" in prefix:
        text = text.replace("</", "\0").replace("<", "<q:").replace("\0", "</q:").replace("<q:?", "<?")
    path = write(tmp_path, text)
    assert sniff_lidc(path) == "1.2.3"
    assert len(read_lidc(path).readings) == 1


@pytest.mark.parametrize("rating", ["0", None])
def test_rating_that_is_none(tmp_path: Path, rating: str | None) -> None:
    found = read(tmp_path, session(nodule("1", roi(SQUARE), malignancy=rating)))
    assert found.readings[0].malignancy is None
    assert codes(found) == ["W-LIDC-001"]


def test_outline_without_characteristics_is_kept(tmp_path: Path) -> None:
    bare = f"<unblindedReadNodule><noduleID>5</noduleID>{roi(SQUARE)}</unblindedReadNodule>"
    assert [r.nodule_id for r in read(tmp_path, session(bare)).readings] == ["5"]
    again = read(tmp_path, session(bare, point_mark("5")))  # the same mark as a point: under 3 mm
    assert (again.readings, again.small_nodules) == ((), 2)
    rated = read(tmp_path, session(nodule("5", roi(SQUARE)), point_mark("5")))
    assert (len(rated.readings), rated.small_nodules) == (1, 1)


def test_repeated_session_is_dropped(tmp_path: Path) -> None:
    one, other = nodule("1", roi(SQUARE)), nodule("2", roi(SQUARE))
    found = read(tmp_path, session(one), session(), session(one), session(other), session())
    assert [(r.reader, r.nodule_id) for r in found.readings] == [(0, "1"), (3, "2")]
    assert (found.duplicate_sessions, codes(found)) == (1, ["W-LIDC-002"])
    rated = read(tmp_path, session(one), session(nodule("1", roi(SQUARE), malignancy="5")))
    assert (len(rated.readings), rated.notes) == (2, ())  # two readers who agree on the outline


def test_copies_of_a_file(tmp_path: Path) -> None:
    one = read(tmp_path, session(nodule("1", roi(SQUARE))), session(nodule("2", roi(SQUARE))))
    other = read(tmp_path, session(nodule("1", roi(SQUARE))))
    assert combine_reads([one]) is one
    both = combine_reads([one, one, one])
    assert (both.readings, both.duplicate_sessions, codes(both)) == (one.readings, 4, ["W-LIDC-002"])
    with pytest.raises(InputError) as caught:
        combine_reads([one, other])
    assert caught.value.problem.code == "E-LIDC-004"


GOOD = message(session(nodule("1", roi(SQUARE))))
BROKEN = {
    "empty": b"",
    "binary": b"\0\1\2" * 99,
    "cut": GOOD[:-40],
    "other root": message(session(), root="IdriReadMessage"),
    "html": "<html></html>",
    "no series": message(session(), series=""),
    "entity bomb": message(session(nodule("&i;", roi(SQUARE))), prolog=BOMB + "]>"),
    "external entity": message(session(nodule("&a;", roi(SQUARE))), prolog=EXTERNAL + "]>"),
    "bomb in UTF-16": message(prolog=BOMB + "]>").replace("UTF-8", "UTF-16").encode("utf-16"),
    "bare doctype": message(prolog="<!DOCTYPE LidcReadMessage>"),
    "unknown entity": message(session(nodule("&a;", roi(SQUARE)))),
    "unknown encoding": GOOD.replace("UTF-8", "x-none"),
    "bad bytes": GOOD.encode().replace(b"noduleID>1", b"noduleID>\xff"),
    "word for a number": GOOD.replace("<xCoord>2<", "<xCoord>two<"),
    "underscore": GOOD.replace("<xCoord>2<", "<xCoord>2_0<"),
    "fraction": GOOD.replace("<xCoord>2<", "<xCoord>2.5<"),
    "huge number": GOOD.replace("<xCoord>2<", f"<xCoord>{10**30}<"),
    "endless number": GOOD.replace("<xCoord>2<", f"<xCoord>{'9' * 5000}<"),
    "no number": GOOD.replace("<xCoord>2<", "<xCoord><"),
    "no y": GOOD.replace("<yCoord>2</yCoord>", ""),
    "y before x": GOOD.replace("xCoord", "q").replace("yCoord", "xCoord").replace("q>", "yCoord>"),
    "no z": GOOD.replace("imageZposition", "z"),
    "infinite z": message(session(nodule("1", roi(SQUARE, z=float("inf"))))),
    "no inclusion": GOOD.replace("TRUE", "PERHAPS"),
    "no points": message(session(nodule("1", roi(SQUARE), roi(())))),
    "rating 6": message(session(nodule("1", roi(SQUARE), malignancy="6"))),
    "rating word": message(session(nodule("1", roi(SQUARE), malignancy="high"))),
}


@pytest.mark.parametrize("name", BROKEN)
def test_refuses(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, BROKEN[name])
    start = time.perf_counter()
    with pytest.raises(InputError) as caught:
        read_lidc(path)
    assert time.perf_counter() - start < 1
    problem = caught.value.problem
    assert (problem.code, problem.files) == ("E-LIDC-001", (str(path),))
    assert str(tmp_path) not in problem.public
    assert len(problem.measured) < 100


def test_refuses_what_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.xml"):
        with pytest.raises(InputError, match="E-LIDC-001"):
            read_lidc(path)
        with pytest.raises(InputError, match="E-FILE-005"):
            sniff_lidc(path)


def test_refuses_a_huge_file_unread(tmp_path: Path) -> None:
    with (tmp_path / "a.xml").open("wb") as file:
        file.truncate(17 << 20)
    with pytest.raises(InputError, match="at most 16777216 are read"):
        read_lidc(tmp_path / "a.xml")


@pytest.mark.parametrize("name", ["empty", "binary", "other root", "html", "no series", "entity bomb"])
def test_sniff_knows_what_it_is_not(tmp_path: Path, name: str) -> None:
    assert sniff_lidc(write(tmp_path, BROKEN[name])) is None


def test_sniff_reads_the_head_only(tmp_path: Path) -> None:
    assert sniff_lidc(write(tmp_path, message() + "<" * 10_000)) == "1.2.3"
    late = message(session()).replace("<ResponseHeader>", f"<!--{' ' * 70_000}--><ResponseHeader>")
    assert sniff_lidc(write(tmp_path, late)) is None


def test_points_mean_the_same_one_by_one_and_in_runs(phantom_archive: Path, monkeypatch) -> None:
    """The quick way through points is no other reading: with and without it, all is equal."""
    files = sorted(phantom_archive.rglob("*.xml"))
    assert all(b"toolkit-points" in lidc.compact(path.read_bytes()) for path in files)
    quick = [read_lidc(path) for path in files]
    monkeypatch.setattr(lidc, "compact", lambda data: data)
    for path, found in zip(files, quick, strict=True):
        plain = read_lidc(path)
        assert len(found.readings) == len(plain.readings) > 0
        for one, other in zip(found.readings, plain.readings, strict=True):
            assert (one.nodule_id, one.malignancy, one.reader) == (
                other.nodule_id,
                other.malignancy,
                other.reader,
            )
            for a, b in zip(one.outlines, other.outlines, strict=True):
                assert (a.sop_uid, a.z_mm, a.inclusion) == (b.sop_uid, b.z_mm, b.inclusion)
                np.testing.assert_array_equal(a.points_xy, b.points_xy)


@pytest.mark.parametrize("text", ["1 2 3", "1 x", "", "99999999999 1"])
def test_a_file_that_lists_points_as_we_do_is_read_or_refused(tmp_path: Path, text: str) -> None:
    whole = message(session(nodule("n", roi(SQUARE))))
    begin, end = whole.index("<edgeMap>"), whole.rindex("</edgeMap>") + len("</edgeMap>")
    path = write(tmp_path, f"{whole[:begin]}<toolkit-points>{text}</toolkit-points>{whole[end:]}")
    with pytest.raises(InputError, match="E-LIDC-001"):
        read_lidc(path)
