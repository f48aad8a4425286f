"""Near-valid manifests and tables of labels and positions, against the csv module and plain arithmetic."""

import csv
import io
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.built import examples, mostly, number_of, read_or_refused, spelled
from toolkit.archive.labels import LUNA16_NAMES, read_labels
from toolkit.archive.luna16 import read_luna16, sniff_luna16
from toolkit.archive.manifest import COLUMNS, POINT, REQUIRED, read_manifest

PLACE = ("x_mm", "y_mm", "z_mm")
WORDS = st.sampled_from(
    ["a", "b", "c", "a b", 'say "x"', "J\u00f6rg, P.", "two\nlines", "0", " a", "a ", "\u3000"]
)
PER_CASE = ("patient_id", "image", "series_uid", "split")
NUMBERS = (*POINT, "label", "coordX", "coordY", "coordZ")
CELLS = {
    "label": mostly(spelled(0, 1), spelled(), 30),
    "diameter_mm": mostly(spelled(1, 400), spelled(), 30),
    "class": mostly(st.sampled_from(["0", "1", "1.0"]), spelled(), 30),
    "split": mostly(st.sampled_from(["train", "val", "test"]), WORDS, 30),
}


@st.composite
def tables(draw, needed, others, groups=()):
    """Draw the bytes of a table: columns in any order, lines that fill some cells, quoted in some way."""
    columns = (
        [*needed, *draw(st.lists(st.sampled_from(others), unique=True, max_size=4))] if others else [*needed]
    )
    for group in draw(st.lists(st.sampled_from(groups), unique=True)) if groups else ():
        columns += [name for name in group if name not in columns]
    if others:
        columns = draw(mostly(st.permutations(columns), st.lists(st.sampled_from([*columns, "", "x"])), 15))
    lines, same = [], {}
    for _ in range(draw(st.integers(0, 5))):
        left = {name for group in groups for name in group if draw(st.booleans())}
        cells = {name: "" if name in left else draw(_cell(name, name in needed)) for name in columns}
        for name in {*PER_CASE} & {*cells} if draw(st.integers(0, 9)) else ():
            cells[name] = same.setdefault((cells.get("case_id"), name), cells[name])
        lines.append([cells[name] for name in columns])
        if draw(st.integers(0, 30)) == 0:
            lines[-1] = draw(st.sampled_from([lines[-1][:-1], [*lines[-1], "1"], []]))
    text = io.StringIO(newline="")
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    csv.writer(text, quoting=quoting, lineterminator=end).writerows([columns, *lines])
    return text.getvalue().encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig"])))


def _cell(name, filled):
    known = CELLS.get(name, spelled() if name in NUMBERS else WORDS)
    return known if filled else mostly(known, st.just(""), 3)


def independent(data):
    """Return the lines that say something, as mappings of stripped cells."""
    header, *lines = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    names = [name.strip() for name in header]
    return [dict(zip(names, map(str.strip, line), strict=True)) for line in lines if line]


def optional(text):
    return number_of(text) if text else None


@examples(60)
@given(data=tables(REQUIRED, [*COLUMNS[3:6], "nodule_id", "label", "split"], [POINT]))
def test_a_manifest_says_what_its_cells_say(tmp_path, data):
    (tmp_path / "cases.csv").write_bytes(data)
    found = read_or_refused(read_manifest, tmp_path / "cases.csv")
    if found is None:
        return
    lines = independent(data)
    assert list(found) == list(dict.fromkeys(line["case_id"] for line in lines))
    for case, rows in found.items():
        own = [line for line in lines if line["case_id"] == case]
        for row, line in zip(rows, own, strict=True):
            place = [optional(line.get(name, "")) for name in POINT]
            assert [*(row.center_lps_mm or [None] * 3), row.diameter_mm] == place
            assert row.label == optional(line.get("label", ""))
            assert row.image == tmp_path.resolve() / line["image"]
            assert row.mask == (tmp_path.resolve() / line["mask"] if line.get("mask") else None)
            for name in ("patient_id", "series_uid", "mask_series_uid", "nodule_id", "split"):
                assert getattr(row, name) == line.get(name, "")


@examples(60)
@given(
    data=st.one_of(
        tables(
            ["case_id", "label"], ["nodule_id", "diameter_mm", "note"], [PLACE, ("series_uid", "patient_id")]
        ),
        tables(["seriesuid", "coordX", "coordY", "coordZ", "label"], ["diameter_mm"]),
    )
)
def test_labels_are_those_of_their_lines(tmp_path, data):
    (tmp_path / "labels.csv").write_bytes(data)
    found = read_or_refused(read_labels, tmp_path / "labels.csv")
    if found is None:
        return
    expected = defaultdict(list)
    for line in independent(data):
        line = {LUNA16_NAMES.get(name, name): cell for name, cell in line.items()}
        if line["label"]:
            (key,) = [(k, line[k]) for k in ("case_id", "series_uid", "patient_id") if line.get(k)]
            place = [optional(line.get(name, "")) for name in PLACE]
            told = (None if place[0] is None else tuple(place), optional(line.get("diameter_mm", "")))
            expected[key].append((number_of(line["label"]), line.get("nodule_id", ""), *told))
    said = {
        key: [(t.value, t.nodule_id, t.center_lps_mm, t.diameter_mm) for t in told]
        for key, told in found.lines.items()
    }
    assert said == expected


@examples(60)
@given(last=st.sampled_from(["diameter_mm", "class"]), data=st.data())
def test_positions_are_those_of_their_lines(tmp_path, last, data):
    table = data.draw(tables(["seriesuid", "coordX", "coordY", "coordZ", last], []))
    (tmp_path / "a.csv").write_bytes(table)
    kind = sniff_luna16(tmp_path / "a.csv")
    assert kind == {"diameter_mm": "annotations", "class": "candidates"}[last]
    found = read_or_refused(read_luna16, tmp_path / "a.csv", kind)
    if found is None:
        return
    expected = []
    for line in independent(table):
        uid, *numbers = line["seriesuid"], *(number_of(line[name]) for name in list(line)[1:])
        if last == "diameter_mm" or numbers[-1] == 1:
            expected.append((uid, *numbers[:3], numbers[3] if last == "diameter_mm" else None))
    assert [tuple(row) for row in found] == expected
