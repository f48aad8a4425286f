"""Near-valid LIDC annotation files, against a plain walk through ElementTree that knows no short cuts."""

from xml.etree import ElementTree

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.built import examples, mostly, number_of, read_or_refused
from toolkit.archive.lidc import read_lidc
from toolkit.archive.lidc_head import sniff_lidc

GAPS = st.sampled_from(["", "", "", "\n", " ", "\t\n", "\r\n", "<!-- n -->", "<?x y?>", "<other/>", "x"])
ODD_NAMES = ["", " a ", "&lt;a&gt;", "<![CDATA[a]]>", "\u00e9"]
ODD_COORDINATES = [
    "-3",
    "+4",
    " 5 ",
    "1.0",
    "",
    "1_0",
    "00007",
    "\u0663",
    "2147483648",
    "<b/>",
    "<!-- 1 -->2",
    "1 2",
]


def element(tag, inside, draw):
    """Return an element, spelled as usual or not."""
    how = draw(st.integers(0, 60))
    attributes = {1: ' uid="1"', 2: ' xmlns=""', 3: " "}.get(how, "")
    gap = draw(GAPS) if how in (4, 5) else ""
    return f"<{tag}{attributes}>{gap}{inside}</{tag}>{draw(GAPS) if how > 55 else ''}"


@st.composite
def rois(draw):
    whole = mostly(st.integers(0, 511).map(str), st.sampled_from(ODD_COORDINATES), 60)
    points = draw(st.lists(st.tuples(whole, whole), min_size=1, max_size=5))
    edges = [
        element("edgeMap", element("xCoord", x, draw) + element("yCoord", y, draw), draw) for x, y in points
    ]
    z = draw(mostly(st.floats(-500, 500).map(repr), st.sampled_from(["", "nan", "1e999", "1_0", "-1,5"]), 40))
    inclusion = draw(mostly(st.sampled_from(["TRUE", "FALSE", "true", " True "]), st.just("maybe"), 40))
    fields = [
        element("imageZposition", z, draw),
        element("imageSOP_UID", draw(st.sampled_from(["1.2", " 1.3 "])), draw),
        element("inclusion", inclusion, draw),
    ]
    parts = [*fields, *edges]
    if draw(st.integers(0, 20)) == 0:
        parts = draw(st.permutations(parts))[draw(st.integers(0, 1)) :]
    return element("roi", "".join(parts), draw)


@st.composite
def messages(draw):
    """Draw an annotation file as bytes."""
    sessions = []
    for _ in range(draw(st.integers(0, 3))):
        nodules = []
        for _ in range(draw(st.integers(0, 3))):
            rating = draw(
                mostly(st.sampled_from("012345"), st.sampled_from(["", "6", "-1", "3.0", "1_0"]), 30)
            )
            traits = element("characteristics", element("malignancy", rating, draw), draw)
            name = element(
                "noduleID", draw(mostly(st.sampled_from("abc"), st.sampled_from(ODD_NAMES), 9)), draw
            )
            outlines = draw(st.lists(rois(), min_size=1, max_size=3))
            parts = [name, *draw(st.sampled_from([[traits], [traits], [], [traits, traits]])), *outlines]
            nodules.append(element("unblindedReadNodule", "".join(parts), draw))
        sessions.append(
            element("readingSession", "".join(nodules) + draw(st.sampled_from(["", "<nonNodule/>"])), draw)
        )
    sessions += draw(st.lists(st.sampled_from(sessions), max_size=1)) if sessions else []
    uid = draw(mostly(st.sampled_from(["1.2.3", " 1.2.3\n"]), st.just(""), 20))
    name = draw(st.sampled_from(["SeriesInstanceUid", "SeriesInstanceUID", "CTSeriesInstanceUid"]))
    head = element("ResponseHeader", element(name, uid, draw), draw)
    root = draw(mostly(st.just("LidcReadMessage"), st.just("IdriReadMessage"), 30))
    space = draw(st.sampled_from(["", ' xmlns="http://www.nih.gov"', ' xmlns:n="http://www.nih.gov"']))
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-16", "latin-1"]))
    prolog = f'<?xml version="1.0" encoding="{encoding}"?>{draw(GAPS)}'
    text = f"{prolog}<{root}{space}>{head}{''.join(sessions)}</{root}>"
    return text.encode(encoding, errors="xmlcharrefreplace")


def local(element):
    return element.tag.rpartition("}")[2]


def text(element):
    return (element.text or "").strip()


def whole_of(string):
    if number_of(string) != int(string):
        raise ValueError(string)
    return int(string)


def parts(element, name):
    return [child for child in element if local(child) == name]


def outline(roi):
    """Return (uid, z, inclusion, points) of a roi."""
    (z,), (inclusion,) = parts(roi, "imageZposition")[-1:], parts(roi, "inclusion")[-1:]
    points = []
    for edge in parts(roi, "edgeMap"):
        x, y = edge
        assert (local(x), local(y)) == ("xCoord", "yCoord")
        points.append((whole_of(x.text), whole_of(y.text)))
    uid = [text(e) for e in parts(roi, "imageSOP_UID")]
    return uid[-1] if uid else "", number_of(text(z)), text(inclusion).upper() == "TRUE", points


def independent(data):
    """Return name, rating and outlines of each reading; a point beats an unrated outline of its name."""
    sessions = []
    for session in parts(ElementTree.fromstring(data), "readingSession"):
        marks, outlined = set(), []
        for nodule in parts(session, "unblindedReadNodule"):
            name = "".join(text(e) for e in parts(nodule, "noduleID"))
            traits = [child for part in parts(nodule, "characteristics") for child in part]
            outlines = [outline(roi) for roi in parts(nodule, "roi")]
            if max((len(o[3]) for o in outlines), default=0) < 2:
                marks.add(name)
            else:  # a point's rating is not asked for
                ratings = [whole_of(text(e)) for e in traits if local(e) == "malignancy"]
                outlined.append((name, ratings[0] or None if ratings else None, outlines, bool(traits)))
        sessions.append([r[:3] for r in outlined if r[3] or r[0] not in marks])
    kept = []
    for session in sessions:
        if not session or session not in kept:
            kept.append(session)
    return [reading for session in kept for reading in session]


@examples(80)
@given(data=messages())
def test_an_annotation_file_says_what_its_elements_say(tmp_path, data):
    path = tmp_path / "a.xml"
    path.write_bytes(data)
    sniffed = read_or_refused(sniff_lidc, path)
    found = read_or_refused(read_lidc, path)
    if found is None:
        return
    assert found.series_uid == sniffed
    said = [
        (
            r.nodule_id,
            r.malignancy,
            [(o.sop_uid, o.z_mm, o.inclusion, list(map(tuple, o.points_xy.tolist()))) for o in r.outlines],
        )
        for r in found.readings
    ]
    assert said == independent(data)
    assert all(o.points_xy.dtype == np.int32 for r in found.readings for o in r.outlines)
