"""What it means that an extraction is right: inside the derived tolerance of the oracle, voxel by voxel."""

import numpy as np

from kernels import Bricks, oracle
from tests import tolerances

POISON_HU = 12345  # no HU: an output that was never written stands out
POISON_OCCUPANCY = 77


def assert_equals_oracle(packed: Bricks, size: int, image: np.ndarray, occupancy: np.ndarray) -> None:
    """Compare every voxel that rounding does not decide, and see that these are nearly all."""
    hu, share, outside = oracle.extract(packed, size)
    exempt = 0
    for b in range(len(packed.offset)):
        ok = ~tolerances.undecided(packed, b, size)
        exempt += int(np.sum(~ok))
        hu_error, share_error = tolerances.extraction(packed, b, size)
        hu_error, share_error = (np.where(outside[b].ravel(), 0.0, e) for e in (hu_error, share_error))
        _assert_rounded(image[b].ravel()[ok], hu[b].ravel()[ok], hu_error[ok])
        _assert_rounded(occupancy[b].ravel()[ok], share[b].ravel()[ok], share_error[ok])
    assert exempt <= tolerances.EXEMPT_SHARE * image.size


def _assert_rounded(actual: np.ndarray, exact: np.ndarray, error: np.ndarray) -> None:
    """Assert that `actual` is `exact`, at most `error` off, rounded with halves upwards."""
    low, high = np.floor(exact - error + 0.5), np.floor(exact + error + 0.5)
    wrong = np.flatnonzero((actual < low) | (actual > high))
    worst = [(int(i), float(actual[i]), float(exact[i]), float(error[i])) for i in wrong[:10]]
    assert not len(wrong), f"{len(wrong)} of {len(actual)} voxels (voxel, actual, exact, error): {worst}"
