"""The noise of `kernels.rng`, bit for bit, from DALI's arithmetic.

DALI's own `random.normal` keeps its state from batch to batch, so a resumed run would see other noise, and
so would another number of ranks. Philox 4x32 (Salmon et al., SC11, section 3.3) needs only products,
divisions by 2**32 and exclusive ors, which DALI has, and it is faster too.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

ROUNDS = 10
FACTORS = (0xD2511F53, 0xCD9E8D57)
STEPS = np.array([0x9E3779B9, 0xBB67AE85], np.uint64)
PER_COUNTER = 8


def round_keys(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the two words that each round adds in, uint64 (b, 10, 2), of keys (b,)."""
    low = np.uint64(0xFFFFFFFF)
    words = np.stack([keys & low, keys >> np.uint64(32)], axis=-1)
    counted = np.arange(ROUNDS, dtype=np.uint64)[:, None] * STEPS
    added: NDArray[np.uint64] = (words[:, None, :] + counted) & low
    return added


def normals(keys: Any, size: int) -> Any:
    """Return a node of standard normals, float32 (size, size, size, 1).

    `keys` is a node of `round_keys`, on the device that shall do the work.
    """
    from nvidia.dali import fn, types

    from kernels.rng import QUANTILES, normal_table

    counters = -(-(size**3) // PER_COUNTER)
    factors = [types.Constant(factor, dtype=types.UINT64) for factor in FACTORS]
    word, low = (types.Constant(number, dtype=types.UINT64) for number in (2**32, 2**32 - 1))
    # kept as uint64, since a product needs the room
    c0 = types.Constant(np.arange(counters, dtype=np.uint64), device=keys.device)
    c1 = c2 = c3 = types.Constant(np.zeros(counters, np.uint64), device=keys.device)
    for number in range(ROUNDS):
        a, b = factors[0] * c0, factors[1] * c2
        c0, c1, c2, c3 = (
            (b // word) ^ c1 ^ keys[number, 0],
            b & low,
            (a // word) ^ c3 ^ keys[number, 1],
            a & low,
        )
    words = fn.stack(*(fn.cast(c, dtype=types.UINT32) for c in (c0, c1, c2, c3)), axis=1)
    halves = fn.reinterpret(words, shape=[PER_COUNTER * counters], dtype=types.UINT16)
    table = normal_table().tolist()
    drawn = fn.lookup_table(halves, keys=list(range(QUANTILES)), values=table, dtype=types.FLOAT)
    return fn.reshape(drawn[: size**3], shape=[size, size, size, 1])
