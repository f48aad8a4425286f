"""The benchmark of the training step at toy size: the gate, every arm, and what is told of them."""

import torch

from benchmarks import step


def test_the_gate_is_green_and_can_be_red(monkeypatch) -> None:
    image = torch.rand(2, 1, 16, 16, 16)
    assert step.gate("densenet-small", image) < step.BOUND
    monkeypatch.setattr(step, "build", lambda name, channels: _scaled(name, channels))
    assert step.gate("densenet-small", image) > step.BOUND


def _scaled(name: str, channels: int) -> torch.nn.Module:
    from toolkit.models.registry import build

    network = build(name, channels)
    network.register_forward_hook(lambda module, inputs, output: output * 1.01)
    return network


def test_every_arm_is_measured() -> None:
    device = torch.device("cpu")
    found = step.measure("densenet-small", 16, 4, device, 2, compiled=False)
    by_name = {each.name: each for each in found}
    assert by_name["step/monai eager float32"].unit == "samples/s"
    ratio = by_name["step.ratio/toolkit eager float32 / monai eager float32"]
    assert ratio.n == 2
    assert all(each.value > 0 for each in found)
    ours, theirs = (by_name[f"step/{name} eager float32"].samples for name in ("toolkit", "monai"))
    assert abs(ratio.samples[0] - ours[0] / theirs[0]) < 1e-4 * ratio.samples[0]
