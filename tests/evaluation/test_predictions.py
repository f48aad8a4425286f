"""Predictions come back bit for bit, and damage is told by line."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import UsageError
from toolkit.evaluation.predictions import COLUMNS, TEXT, Predictions, read_predictions, write_predictions

finite = st.floats(allow_nan=False, allow_infinity=False)
maybe = st.one_of(st.just(float("nan")), st.floats(0, 1))
text = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)
lines = st.tuples(
    text, text, text, text, maybe, st.sampled_from([0.0, 1.0, float("nan")]),
    finite, finite, st.floats(0, 1), finite, st.integers(0, 1),
    st.one_of(st.just(float("nan")), st.floats(0.1, 1e3)),
)  # fmt: skip


def made(rows: list[tuple]) -> Predictions:
    columns = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
    types = [str if name in TEXT else np.int64 if name == "decision" else np.float64 for name in COLUMNS]
    return Predictions(*(np.array(each, kind) for each, kind in zip(columns, types, strict=True)))


ROW = ("holdout", "n1", "c1", "p1", 0.7, 1.0, 0.1 + 0.2, -1 / 3, 0.25, 1e-300, 1, float("nan"))


@settings(deadline=None, max_examples=40)
@given(st.lists(lines, max_size=5))
def test_the_round_trip_is_exact(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple]) -> None:
    path = tmp_path_factory.mktemp("predictions") / "predictions_test.csv"
    written = made(rows)
    write_predictions(path, written)
    read = read_predictions(path)
    for name in COLUMNS:
        one, other = getattr(written, name), getattr(read, name)
        assert one.dtype.kind == other.dtype.kind
        assert one.tolist() == other.tolist() or np.array_equal(one, other, equal_nan=True)
        if one.dtype.kind == "f":
            np.testing.assert_array_equal(np.signbit(one), np.signbit(other))
    first = path.read_bytes()
    write_predictions(path, read)
    assert path.read_bytes() == first


def test_unknown_is_an_empty_field(tmp_path: Path) -> None:
    path = tmp_path / "predictions_val.csv"
    write_predictions(path, made([ROW]))
    assert path.read_text().splitlines() == [
        ",".join(COLUMNS),
        "holdout,n1,c1,p1,0.7,1.0,0.30000000000000004,-0.3333333333333333,0.25,1e-300,1,",
    ]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("label", "2"), ("label", "0.5"), ("decision", ""), ("decision", "0.5"), ("logit", ""),
        ("logit", "nan"), ("logit", "inf"), ("probability", "1.01"), ("probability", "x"),
        ("diameter_mm", "-1"), ("target", "-0.1"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_with_its_line(tmp_path: Path, column: str, value: str) -> None:
    path = tmp_path / "predictions_test.csv"
    write_predictions(path, made([ROW, ROW]))
    lines = path.read_text().splitlines()
    fields = lines[2].split(",")
    fields[COLUMNS.index(column)] = value
    path.write_text("\n".join([*lines[:2], ",".join(fields)]) + "\n")
    with pytest.raises(UsageError, match=f"E-EVAL-002 .*line 3: {column}") as told:
        read_predictions(path)
    assert str(path) in told.value.problem.files
    assert str(path) not in told.value.problem.public


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda data: data[:-3], "line 3 is cut short"),
        (lambda data: b"", "line 1 is cut short"),
        (lambda data: data.replace(b"decision", b"choice"), "line 1 does not name"),
        (lambda data: data.replace(b"n1,c1", b"n1", 1), "line 2 has 11 fields"),
        (lambda data: b"\xff" + data, "no text"),
        (lambda data: data + b'"open\n', "line"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, spoil: object, said: str) -> None:
    path = tmp_path / "predictions_test.csv"
    write_predictions(path, made([ROW, ROW]))
    path.write_bytes(spoil(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(UsageError, match=f"E-EVAL-002 .*{said}"):
        read_predictions(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="E-EVAL-002"):
        read_predictions(tmp_path / "predictions_test.csv")
