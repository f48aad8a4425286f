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
from toolkit.bench import roofline
from toolkit.bench.record import append, default_path, figure, line
from toolkit.bench.setting import QUICK_GPU, Bench
from toolkit.bench.stopwatch import Effort, Work, in_turns, rates
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
    effort = Effort(REPEATS, 0.0, warm=3)
    works: dict[str, Work] = {
        "kernel": lambda turn: kernels.extract(devices[turn % SETS], SETTINGS.side),
        "whole": lambda turn: kernels.extract(kernels.to_device(hosts[turn % SETS]), SETTINGS.side)[0].get(),
    }
    taken = in_turns(works, effort, "cuda")
    ceiling = roofline.copy(Bench("cuda", Path(), QUICK_GPU, effort))
    moved = np.mean([h.hu.nbytes + h.mask.nbytes for h in hosts]) + count * SETTINGS.side**3 * 3
    rate = rates(taken["kernel"], moved / 1e9)
    share = [100 * each / ceiling.value for each in rate]
    resident, copied = (rates(taken[name], count) for name in works)
    figures = [
        ceiling,
        figure("gpu.extract.kernel", resident, "nodules/s", "64^3, events, resident"),
        figure("gpu.extract.bandwidth", rate, "GB/s", "each input and output byte counted once"),
        figure("gpu.extract.share", share, "%", "of the copy bandwidth"),
        figure("gpu.extract.whole", copied, "nodules/s", "pageable copies both ways"),
    ]
    for found in figures:
        print(line(found))
    append(figures, out, "cuda")
    print(out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
