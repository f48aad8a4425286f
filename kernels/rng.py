"""Counter-based random numbers: a function of (key, number), the same bits on every machine.

Philox 4x32 with ten rounds (Salmon et al., SC11, section 3.3) turns a key and a counter into four words of
32 bits. A word is two halves; each picks a normal number from a table of 65,536 quantiles. The table is made
once in float64, so normals are equal to the last bit on CPU and GPU, and one call yields eight.

The normals reach 4.32 standard deviations (one in 65,536 lies beyond); mean zero, variance one.
"""

from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numba import njit
from numpy.typing import NDArray

PER_COUNTER = 8
QUANTILES = 65536

_FACTOR_0, _FACTOR_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_STEP_0, _STEP_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _WORD = np.uint64(0xFFFFFFFF), np.uint64(32)
_HALF, _SIXTEEN = np.uint32(0xFFFF), np.uint32(16)
_ROUNDS = 10


@njit
def rounds(c0, c1, c2, c3, k0, k1):
    """Return the four words of a counter of four words under a key of two; all are uint64 below 2^32.

    Its ``py_func`` does the same to NumPy arrays.
    """
    for _ in range(_ROUNDS):
        a, b = _FACTOR_0 * c0, _FACTOR_1 * c2
        c0, c1, c2, c3 = (b >> _WORD) ^ c1 ^ k0, b & _LOW, (a >> _WORD) ^ c3 ^ k1, a & _LOW
        k0, k1 = (k0 + _STEP_0) & _LOW, (k1 + _STEP_1) & _LOW
    return c0, c1, c2, c3


@njit
def philox(counter, key):
    """Return the four words, uint32, of a uint32 counter under a uint64 key."""
    zero = np.uint64(0)
    w0, w1, w2, w3 = rounds(np.uint64(counter), zero, zero, zero, key & _LOW, key >> _WORD)
    return np.uint32(w0), np.uint32(w1), np.uint32(w2), np.uint32(w3)


@njit
def normal(table, key, number):
    """Return standard normal `number` (int32) of a key: half ``number % 8`` of counter ``number // 8``."""
    w0, w1, w2, w3 = philox(np.uint32(number >> np.int32(3)), key)
    word = np.int32((number >> np.int32(1)) & np.int32(3))
    bits = w3
    if word == 0:
        bits = w0
    elif word == 1:
        bits = w1
    elif word == 2:
        bits = w2
    if number & np.int32(1):
        bits = np.uint32(bits >> _SIXTEEN)
    return table[np.int32(bits & _HALF)]


@lru_cache(maxsize=1)
def normal_table() -> NDArray[np.float32]:
    """Return the quantiles of the middles of 65,536 equal shares, scaled to variance one; read-only."""
    half = QUANTILES // 2
    quantile = NormalDist().inv_cdf
    upper = np.array([quantile((half + k + 0.5) / QUANTILES) for k in range(half)])
    table = np.concatenate([-upper[::-1], upper])
    table = np.asarray(table / np.sqrt(np.mean(table**2)), np.float32)
    table.flags.writeable = False
    return table
