"""The extraction kernel on a GPU: gate, time with events, bytes moved, share of the copy bandwidth.

``python -m benchmarks.gpu [--out FILE]``. Inputs are phantom bricks, rotated so that no batch is in the
cache; the gate (GPU = CPU within 1 HU and 1/255) comes first, and there is no figure without it.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

import kernels
from benchmarks import RESULTS
from toolkit.archive.case import Finding
from toolkit.bench.record import Figure, append, default_path, figure, line
from toolkit.phantom.anatomy import make_patient
from toolkit.preprocess.extract import read_bricks
from toolkit.preprocess.plan import Settings

PATIENTS, COPIES, SETS, REPEATS = 8, 16, 4, 30
SETTINGS = Settings(spacing_mm=1.0, size=64, margin=0)


class _Volume:
    """A phantom as a source."""

    def __init__(self, patient) -> None:
        self.geometry, self._hu = patient.geometry, patient.hu

    def read_boxes(self, boxes, tally=None):
        return [self._hu[box.slices].copy() for box in boxes]


def batch(seed: int) -> kernels.Bricks:
    """Pack a ragged batch of phantom nodules on the host."""
    bricks: list[kernels.Brick] = []
    for index in range(PATIENTS):
        patient = make_patient(seed, index)
        findings = [
            Finding(str(k), n.center_lps_mm, n.diameter_mm, "volume", n.volume_mm3, box=n.box, mask=n.mask)
            for k, n in enumerate(patient.nodules)
        ]
        bricks += read_bricks(_Volume(patient), findings, SETTINGS)[0]
    return kernels.pack(bricks * COPIES, SETTINGS.side)


def gate(host: kernels.Bricks, device: kernels.Bricks) -> tuple[int, int]:
    """Return the largest difference of GPU and CPU, in HU and in 1/255 of a voxel."""
    image, occupancy = kernels.extract(host, SETTINGS.side)
    other_image, other_occupancy = (array.get() for array in kernels.extract(device, SETTINGS.side))
    hu = np.abs(image.astype(np.int32) - other_image).max()
    return int(hu), int(np.abs(occupancy.astype(np.int32) - other_occupancy).max())


def milliseconds(work, sets) -> list[float]:
    """Time `work` on each of several inputs in turn, by events, after a warm-up."""
    import cupy

    times = []
    for repeat in range(REPEATS + 3):
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record()
        work(sets[repeat % len(sets)])
        end.record()
        end.synchronize()
        times.append(cupy.cuda.get_elapsed_time(begin, end))
    return times[3:]


def main() -> int:
    """Run the gate, then the measurements."""
    import cupy

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    out = parser.parse_args().out or default_path(RESULTS, "cuda")
    hosts = [batch(seed) for seed in range(SETS)]
    devices = [kernels.to_device(host) for host in hosts]
    worst_hu, worst_share = gate(hosts[0], devices[0])
    print(f"{name}: GPU against CPU at most {worst_hu} HU and {worst_share}/255")
    if worst_hu > 1 or worst_share > 1:
        print("gate is red: no figures", file=sys.stderr)
        return 1
    count = len(hosts[0].offset)
    kernel = milliseconds(lambda d: kernels.extract(d, SETTINGS.side), devices)
    whole = milliseconds(lambda h: kernels.extract(kernels.to_device(h), SETTINGS.side)[0].get(), hosts)
    buffer = cupy.ones(1 << 28, cupy.uint8)
    copy = milliseconds(lambda other: cupy.copyto(other, buffer), [cupy.empty_like(buffer)])
    moved = np.mean([h.hu.nbytes + h.mask.nbytes for h in hosts]) + count * SETTINGS.side**3 * 3
    ceiling = 2 * buffer.nbytes / np.median(copy) / 1e6
    rate = [moved / ms / 1e6 for ms in kernel]
    figures: list[Figure] = [
        figure(
            "gpu.extract.kernel", [count / ms * 1e3 for ms in kernel], "nodules/s", "64^3, events, resident"
        ),
        figure("gpu.extract.bandwidth", rate, "GB/s", "each input and output byte counted once"),
        figure(
            "gpu.copy",
            [2 * buffer.nbytes / ms / 1e6 for ms in copy],
            "GB/s",
            "device to device, read + write",
        ),
        figure("gpu.extract.share", [100 * r / ceiling for r in rate], "%", "of the copy bandwidth"),
        figure(
            "gpu.extract.whole", [count / ms * 1e3 for ms in whole], "nodules/s", "pageable copies both ways"
        ),
    ]
    for found in figures:
        print(line(found))
    append(figures, out, "cuda")
    print(out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
