"""Augmentation as a table: one row of parameters a sample, drawn before anything is computed.

Random parameters are drawn in one place (`draw`) and applied in others: the fused kernels and the DALI
pipeline read the same table, so they can be compared number by number.

What a row means, in this order. ``p = matrix[:, :3] @ t + matrix[:, 3]`` is where voxel t (zyx) of the
patch lies in the stored crop, in voxels of the crop, plus the displacement that the elastic grid has at t.
HU there is interpolated trilinearly; each of the eight neighbours that lies outside the crop counts as
-1024 HU and as no nodule. Then::

    v = clip((hu - low_hu) / width_hu, 0, 1)     with a window; v = hu without one
    v = v ** gamma
    v = v * gain + bias
    v = v + noise_sigma * normal(noise_key, voxel of the patch)
    v = v * weight                               mask modes hard and soft

The weight is 1 or 0 with mask mode ``hard`` (occupancy of at least a half), the occupancy in [0, 1]
with ``soft``; where it is 0, v is 0. Mode ``channel`` leaves v alone and adds the occupancy as a second
channel. With ``edge_voxels`` above 0 the mask is first spread in the crop, on the crop's own voxels, by a
tent of half-width ``1 + edge_voxels`` whose weights add up to one, and rounded to 255ths
(`kernels.augment.spread`); then all goes on as if that were the mask. A gamma other than 1 needs a window.
A row of the identity (a whole-voxel shift, no window, gamma and gain 1, the rest 0) is a bit-exact copy.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

MaskMode = Literal["none", "hard", "soft", "channel"]


@dataclass(frozen=True, eq=False)
class AugmentTable:
    """The parameters of one batch of b samples; arrays are C-contiguous.

    Attributes
    ----------
    index
        int64 (b,): which crop of the store.
    matrix
        float32 (b, 3, 4): patch voxel zyx to crop voxel zyx.
    low_hu, width_hu
        float32 (b,): the HU window; a width of 0 leaves HU as they are.
    gamma, gain, bias, noise_sigma
        float32 (b,), in units of v.
    noise_key
        uint64 (b,): the noise of a voxel is a function of this and its number in the patch, C order.
    elastic
        float32 (b, 3, g, g, g): displacement in crop voxels along z, y, x at the control points of a
        uniform cubic B-spline over the patch, the outermost points one spacing outside it; None for none.
    size
        Voxels along each side of the patch.
    mask_mode, edge_voxels
        One for all rows.
    """

    index: NDArray[np.int64]
    matrix: NDArray[np.float32]
    low_hu: NDArray[np.float32]
    width_hu: NDArray[np.float32]
    gamma: NDArray[np.float32]
    gain: NDArray[np.float32]
    bias: NDArray[np.float32]
    noise_sigma: NDArray[np.float32]
    noise_key: NDArray[np.uint64]
    elastic: NDArray[np.float32] | None
    size: int
    mask_mode: MaskMode = "none"
    edge_voxels: float = 0.0

    def __len__(self) -> int:
        return len(self.index)

    @property
    def channels(self) -> int:
        """Channels of the model's input."""
        return 2 if self.mask_mode == "channel" else 1
