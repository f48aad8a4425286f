"""Order by chance that is the same on every machine and in every version of NumPy.

Philox4x64-10 is a counter-based generator whose raw bits NumPy promises to keep; the methods of its
`Generator` may change. Only the raw bits are used here.
"""

import numpy as np
from numpy.typing import NDArray


def permutation(count: int, seed: int, stream: int, cycle: int = 0) -> NDArray[np.int64]:
    """Return the numbers 0 to count - 1 in an order that (seed, stream, cycle) alone decide.

    Parameters
    ----------
    seed, stream
        The key, each at least 0 and below 2**64.
    cycle
        The third word of the counter: cycles of one key are 2**128 draws apart.
    """
    bits = np.random.Philox(key=np.array([seed, stream], np.uint64), counter=[0, 0, cycle, 0])
    return np.argsort(bits.random_raw(count), kind="stable").astype(np.int64, copy=False)
