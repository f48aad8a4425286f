"""Benchmarks are programs, too: each runs here in its smallest form, so that none rots."""

import json
from pathlib import Path

import numpy as np
import pytest

from toolkit.bench import record

pytest.importorskip("SimpleITK", reason="SimpleITK is absent: install the extra `peers` or `test`")

from benchmarks.peers import copies, gate, kernel, kernel_gpu
from benchmarks.peers.grids import samples


@pytest.mark.filterwarnings("default")  # of other people's libraries
def test_kernel_benchmark(tmp_path: Path) -> None:
    figures = kernel.measure(None, size=12, bricks=2, rounds=2)
    names = {found.name for found in figures}
    for grid in ("0.6mm", "1.0mm", "0.6mm-oblique"):
        assert f"kernel/{grid}/ratio/sitk-image+mask / toolkit-image+mask" in names
    assert all(found.value > 0 and found.n == 2 for found in figures)
    record.append(figures, tmp_path / "results" / "device.jsonl")
    lines = [json.loads(text) for text in (tmp_path / "results" / "device.jsonl").read_text().splitlines()]
    assert len(lines) == len(figures)
    assert {"name", "value", "unit", "p20", "p50", "p80", "n", "cpu", "versions", "commit", "date"} <= {
        *lines[0]
    }
    assert {"python", "numpy", "numba", "SimpleITK"} <= {*lines[0]["versions"]}


def test_kernel_gate_is_red_when_the_output_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernel.c.toolkit_both

    def wrong(sample: kernel.Sample) -> tuple[np.ndarray, np.ndarray]:
        image, occupancy = right(sample)
        return image + np.int16(1), occupancy

    monkeypatch.setattr(kernel.c, "toolkit_both", wrong)
    with pytest.raises(gate.UnequalError, match="image differs by 1"):
        kernel.measure(None, size=12, bricks=1, rounds=1)


def test_preprocess_gate_is_red_when_one_voxel_in_500_differs() -> None:
    ours = np.zeros((10, 10, 10), np.int16)
    theirs = ours.astype(np.float32)
    gate.check(gate.summary(ours, theirs + 0.5))
    theirs[0, 0, :2] = 40
    with pytest.raises(gate.UnequalError):
        gate.check(gate.summary(ours, theirs))


def test_reidentified_bytes_keep_their_length() -> None:
    uid = b"1.3.6.1.4.1.14519.5.2.1.6279.6001." + b"123456789012345678901234567890"
    data = b"head " + uid + b"\0 LIDC-IDRI-0001 tail"
    other = copies.reidentified(data, 7)
    assert other == b"head " + uid[:34] + b"9007" + uid[38:] + b"\0 PEER-COPY-0007 tail"
    assert len(other) == len(data)


@pytest.mark.parametrize("peer", ["torch_grid_sample", "volresample_grid_sample"])
def test_kernel_gate_is_red_when_a_peer_is_half_a_voxel_off(
    peer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if peer.startswith("volresample"):
        pytest.importorskip("volresample")
    group = samples(None, 0.6, 12.0, 12, 1)
    name = peer.replace("_", "-", 1) + "-image"
    kernel.check_peers("oblique", group, {name: getattr(kernel.c, peer)()})
    right = kernel.c.unit_grid
    monkeypatch.setattr(
        kernel.c,
        "unit_grid",
        lambda brick, size, align_corners: right(brick, size, align_corners=not align_corners),
    )
    with pytest.raises(gate.UnequalError, match=f"{name} differs by"):
        kernel.check_peers("oblique", group, {name: getattr(kernel.c, peer)()})


def test_gpu_kernel_benchmark_as_far_as_a_cpu_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """SciPy stands where CuPy will, and tensors lie on the CPU: the matrices and grids are the same."""
    monkeypatch.setattr(kernel_gpu, "SETS", 1)
    names = {found.name for found in kernel_gpu.measure(12, 2, 1, "cpu")}
    assert {"gpu.kernel/axial/cupyx", "gpu.kernel/oblique/ratio/toolkit / torch"} <= names
    right = kernel_gpu.grid_sample
    monkeypatch.setattr(kernel_gpu, "grid_sample", lambda batch: 1.01 * right(batch))
    with pytest.raises(gate.UnequalError, match="torch differs by"):
        kernel_gpu.measure(12, 2, 1, "cpu")
