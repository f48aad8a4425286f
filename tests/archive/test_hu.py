"""The look-up table against DICOM's own words, one pixel at a time."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.archive.dicom_fields import SliceHeader
from toolkit.archive.dicom_pixels import hu_rule
from toolkit.archive.hu import clip_hu, hu_table, reinterpret


def plain_value(pattern, stored, high_bit, signed):
    """The pixel cell's bits, read as a number."""
    value = 0
    for bit in range(stored):
        value += ((pattern >> (high_bit - stored + 1 + bit)) & 1) << bit
    return value - (1 << stored) if signed and value >= 1 << (stored - 1) else value


def plain_hu(pattern, slope, intercept, allocated, stored, high_bit, signed, padding):
    value = plain_value(pattern, stored, high_bit, signed)
    # a padding value too wide for the cell can only be meant for the whole word
    word = value
    if high_bit == stored - 1:
        word = pattern - (1 << allocated) if signed and pattern >= 1 << (allocated - 1) else pattern
    if padding is not None and any(min(padding) <= v <= max(padding) for v in (value, word)):
        return -1024
    hu = value * slope + intercept
    lower = math.floor(hu)
    rounded = lower if hu - lower < 0.5 or (hu - lower == 0.5 and lower % 2 == 0) else lower + 1
    return min(max(rounded, -1024), 3071)


@st.composite
def rules(draw):
    allocated = draw(st.sampled_from([8, 16]))
    stored = draw(st.integers(1, allocated))
    high_bit = draw(st.one_of(st.just(stored - 1), st.integers(stored - 1, allocated - 1)))
    signed = draw(st.booleans())
    limits = st.integers(-(1 << 15), (1 << 15) - 1) if signed else st.integers(0, (1 << 16) - 1)
    near = st.integers(-300, 300) if signed else st.integers(0, 600)
    padding = draw(st.none() | st.tuples(near, near) | limits.map(lambda p: (p, p)))
    slope = draw(st.sampled_from([1.0, 0.5, 2.0, -1.0]) | st.floats(0.01, 4))
    intercept = draw(st.sampled_from([0.0, -1024.0, -1000.5, 4096.0]) | st.floats(-3000, 3000))
    return slope, intercept, allocated, stored, high_bit, signed, padding


@settings(max_examples=150, deadline=None)
@given(rules(), st.lists(st.integers(0, 65535), min_size=50, max_size=50))
def test_table_is_the_definition(rule, patterns):
    table = hu_table(*rule)
    allocated = rule[2]
    assert table.shape == (1 << allocated,)
    assert table.dtype == np.int16
    edges = [0, 1, 127, 128, 255, 2047, 2048, 4095, 32767, 32768, 63536, 65535]
    chosen = range(256) if allocated == 8 else [*patterns, *edges]
    for pattern in chosen:
        assert table[pattern] == plain_hu(pattern, *rule), pattern


def header(**fields):
    usual = {"bits_allocated": 16, "bits_stored": 16, "high_bit": 15, "signed": 1, "slope": 1.0}
    return SliceHeader(**{**usual, "intercept": 0.0, **fields})


def word(value):
    return value % 65536


def test_padding_stored_unsigned_beside_signed_pixels():
    assert reinterpret(63536, 16, signed=True) == -2000
    assert reinterpret(63536, 16, signed=False) == 63536
    table = hu_rule(header(padding=63536), "x").table
    assert table[word(-2000)] == -1024
    assert table[word(-999)] == -999
    inverted = hu_rule(header(padding=63536, slope=-1.0), "x").table  # clipping cannot hide it
    assert inverted[word(-2000)] == -1024
    assert inverted[word(-1999)] == 1999


def test_padding_range_in_either_order():
    for ends in ((100, 200), (200, 100)):
        table = hu_rule(header(padding=ends[0], padding_limit=ends[1]), "x").table
        assert (table[100:201] == -1024).all()
        assert table[99] == 99
        assert table[201] == 201


def test_padding_wider_than_the_cell_means_the_whole_word():
    narrow = header(bits_stored=12, high_bit=11, padding=word(-3024), intercept=100.0)
    table = hu_rule(narrow, "x").table
    assert table[word(-3024)] == -1024
    assert table[word(-3024) & 0xFFF] == 1172  # the same cell without the upper bits is a real value


def test_overlay_bits_are_no_part_of_the_value():
    for overlay in (0x1000, 0x8000, 0xF000):
        table = hu_rule(header(bits_stored=12, high_bit=11, signed=0, padding=0), "x").table
        assert table[overlay | 5] == 5
        assert table[overlay] == -1024
    shifted = hu_rule(header(bits_stored=12, high_bit=15, signed=0, padding=100), "x").table
    assert shifted[100 << 4] == -1024
    assert shifted[100] == 6  # the low four bits are no part of the cell


def test_clipping_and_rounding():
    np.testing.assert_array_equal(
        clip_hu(np.array([-4000.0, -1024.4, -0.5, 0.5, 1.5, 3070.6, 1e9])),
        [-1024, -1024, 0, 0, 2, 3071, 3071],
    )
    assert not hu_table(1.0, 0.0, 8, 8, 7, False, None).flags.writeable
