"""The types of the CPU kernels, given beforehand so that they are compiled once and cached."""

from numba import boolean, float32, int16, int32, int64, uint8, void

_TABLE = (
    int16[::1],  # hu
    uint8[::1],  # mask
    int64[::1],  # offset
    int32[:, ::1],  # shape
    float32[:, :, ::1],  # matrix
    float32[:, ::1],  # norm
    float32[::1],  # positions
    int64[::1],  # position_start
    boolean[::1],  # has_mask
)
EXTRACT_BRICK = void(*_TABLE, int64, int16[:, :, ::1], uint8[:, :, ::1])  # brick, image, occupancy
