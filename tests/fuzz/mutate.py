"""Damage to a valid file, drawn from a seed: the same seed gives the same bytes on any machine."""

import json
import re
from collections.abc import Sequence
from copy import deepcopy
from random import Random
from typing import Any, NamedTuple

BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF)
WORDS = {
    2: (0, 1, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF),
    4: (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF),
    8: (0, 1, 1 << 31, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1),
}
NUMBERS = (
    *(b"0", b"-1", b"1", b"2", b"255", b"65535", b"65536", b"2147483647", b"2147483648", b"-2147483648"),
    *(b"9223372036854775807", b"18446744073709551616", b"1e308", b"-1e308", b"1e400", b"1e-320", b"0.5"),
    *(b"nan", b"inf", b"-inf", b"1_0", b"0x10", b"", b"1,5", b"9" * 40, b"9" * 5000, "\u0663".encode()),
)
_NUMBER = re.compile(rb"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
HEAD = 2048  # half of all damage is done to the beginning, where headers are

Hot = tuple[tuple[int, int], ...]


class Seed(NamedTuple):
    """A valid file; `hot` are the places (offset, width) of the lengths and counts in it."""

    name: str
    data: bytes
    hot: Hot = ()


def damaged(seed: Seed, rng: Random, tokens: Sequence[bytes], others: Sequence[Seed]) -> bytes:
    """Return the seed after one to four changes."""
    data = bytearray(seed.data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        if seed.hot and len(data) == len(seed.data) and rng.random() < 0.35:
            at, width = rng.choice(seed.hot)
            _word(data, rng, at, width)
        else:
            _change(data, rng, tokens, others)
    return bytes(data)


def _place(data: bytearray, rng: Random) -> int:
    return rng.randrange(max(1, min(len(data), HEAD) if rng.random() < 0.5 else len(data)))


def _word(data: bytearray, rng: Random, at: int, width: int) -> None:
    value = rng.choice(WORDS[width])
    if rng.random() < 0.4:
        value = (int.from_bytes(data[at : at + width], "little") + rng.randint(-9, 9)) % (1 << 8 * width)
    data[at : at + width] = value.to_bytes(width, rng.choice(("little", "little", "big")))


def _change(data: bytearray, rng: Random, tokens: Sequence[bytes], others: Sequence[Seed]) -> None:
    """Change the data in place in one of a dozen ways."""
    at, how = _place(data, rng), rng.randrange(12)
    span = rng.choice((1, 2, 4, 8, 16, 64, 512))
    if how == 0 and data:
        data[at] ^= 1 << rng.randrange(8)
    elif how == 1 and data:
        data[at] = rng.choice(BYTES)
    elif how == 2:
        del data[at:]
    elif how == 3:
        del data[at : at + span]
    elif how == 4:
        data[at:at] = data[at : at + span] * rng.choice((1, 1, 2, 50))
    elif how == 5:
        other = _place(data, rng)
        data[at : at + span], data[other : other + span] = data[other : other + span], data[at : at + span]
    elif how == 6:
        _word(data, rng, at, rng.choice((2, 4, 8)))
    elif how in (7, 8):
        _number(data, rng, at)
    elif how == 9 and tokens:
        token = rng.choice(tokens)
        data[at : at + rng.choice((0, len(token)))] = token
    elif how == 10:
        data[at : at + span] = bytes([rng.choice(BYTES)]) * span
    else:
        other_data = rng.choice(others).data
        start = rng.randrange(max(1, len(other_data)))
        data[at : at + span] = other_data[start : start + span]


def _number(data: bytearray, rng: Random, at: int) -> None:
    """Replace the next number that is written as text."""
    found = _NUMBER.search(data, at, at + 400)
    if found:
        data[found.start() : found.end()] = rng.choice(NUMBERS)


VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 255, 1 << 31, 1 << 63, 1 << 64, 10**40, 0.5, -0.0, 1e308, 5e-324),
    *("", "0", "nan", "train", "none", "\u0000", "\ud800", "../..", "a" * 300, [], {}, [[]], {"": ""}),
)


def damaged_json(value: Any, rng: Random) -> Any:
    """Return a JSON value after one to three changes of its leaves, lists and keys."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2, 3))):
        holder, key = _leaf(value, rng)
        if holder is None:
            return deepcopy(rng.choice(VALUES))
        how = rng.randrange(6)
        if how <= 2:
            holder[key] = deepcopy(rng.choice(VALUES))  # the next change may be to the inside of it
        elif how == 3:
            del holder[key]
        elif how == 4 and isinstance(holder, list):
            holder.insert(key, json.loads(json.dumps(holder[key])))
        elif isinstance(holder, dict):
            holder[rng.choice((*holder, "more"))] = deepcopy(holder[key])
        else:
            holder[key] = [holder[key]]
    return value


def _leaf(value: Any, rng: Random) -> tuple[Any, Any]:
    """Return a list or mapping somewhere in a value, and one of its keys."""
    holder, key = None, None
    while isinstance(value, dict | list) and value:
        holder = value
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        value = holder[key]
        if rng.random() < 0.15:
            break
    return holder, key
