"""Schedule, averaged weights, precision and checkpoints, each against what it is defined as."""

from pathlib import Path

import numpy as np
import pytest
import torch

from toolkit.errors import StoreError, UsageError
from toolkit.training import checkpoint
from toolkit.training.averaging import Average
from toolkit.training.config import Compute
from toolkit.training.precision import decide
from toolkit.training.schedule import Schedule


def test_schedule_rises_straight_and_falls_as_a_cosine() -> None:
    schedule = Schedule(lr=1.0, final=0.1, warmup=4, steps=24)
    rates = [schedule.at(step) for step in range(24)]
    np.testing.assert_allclose(rates[:4], [0.25, 0.5, 0.75, 1.0])
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(
        torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0), 20, eta_min=0.1
    )
    reference = []
    for _ in range(20):
        reference.append(cosine.get_last_lr()[0])
        cosine.optimizer.step()
        cosine.step()
    np.testing.assert_allclose(rates[4:], reference, rtol=1e-12)


def test_average_follows_parameters_and_statistics() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv3d(1, 3, 1), torch.nn.BatchNorm3d(3)).double()
    average = Average(model, decay=0.9)
    expected = {name: value.double().clone() for name, value in model.state_dict().items()}
    for step in range(30):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(2, 1, 2, 2, 2).double())
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value.double()
    state = average.module.state_dict()
    for name in expected:
        if name.endswith("num_batches_tracked"):
            assert state[name] == 30
        else:
            torch.testing.assert_close(state[name], expected[name], rtol=1e-12, atol=1e-14)
    assert not average.module.training


def test_without_a_decay_the_average_is_the_network() -> None:
    model = torch.nn.Linear(3, 2)
    average = Average(model, decay=0.0)
    with torch.no_grad():
        model.weight.add_(1)
    average.update(100)
    assert torch.equal(average.module.weight, model.weight)


def wrong_gradient() -> float:
    """Return the relative error of a bfloat16 gradient at 2^3 voxels against float64, memory filled first."""
    torch.manual_seed(1)
    image, weight, back = (
        torch.randn(8, 64, 2, 2, 2),
        torch.randn(16, 64, 3, 3, 3),
        torch.randn(8, 16, 2, 2, 2),
    )
    worst = 0.0
    for _ in range(5):
        found = []
        for dtype in (torch.float64, torch.bfloat16):
            filled = [torch.full((1 << bits,), float("nan")) for bits in range(10, 22)]
            del filled
            kernel = weight.to(dtype).clone().requires_grad_()
            torch.nn.functional.conv3d(image.to(dtype), kernel, padding=1).backward(back.to(dtype))
            found.append(kernel.grad.double())
        error = ((found[1] - found[0]).norm() / found[0].norm()).item()
        worst = max(worst, error if error == error else float("inf"))
    return worst


def test_precision_is_decided_by_what_the_processor_has_and_gets_right() -> None:
    flags = Path("/proc/cpuinfo").read_text()
    able = "avx512_bf16" in flags or "amx_tile" in flags
    decision = decide(Compute(), "cpu")
    assert decision.compile == "off"
    assert decide(Compute(amp="float32", compile="default"), "cpu").amp == "float32"
    if able and wrong_gradient() <= 0.02:
        assert decision.amp == "bfloat16"
        return
    assert decision.amp == "float32"
    if wrong_gradient() > 0.02:
        assert able <= ("gradients wrong" in decision.why)
        with pytest.raises(UsageError, match="E-DEV-002"):
            decide(Compute(amp="bfloat16"), "cpu")


def test_checkpoint_gives_back_every_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = {
        "a": torch.randn(3, 4),
        "b": torch.randn(2, 2, 3, 3, 3).to(memory_format=torch.channels_last_3d),
        "c": torch.tensor(7),
        "d": torch.full((3,), float("nan")),
        "e": torch.empty(0, 5),
        "f": torch.randn(4).bfloat16(),
    }
    checkpoint.save(tmp_path / "x.safetensors", tensors, {"epoch": 3, "text": "ä"})
    found, state = checkpoint.load(tmp_path / "x.safetensors")
    assert state == {"epoch": 3, "text": "ä"}
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name].nan_to_num(9), value.nan_to_num(9))


@pytest.mark.parametrize("where", [4, 60, 300, -1])
def test_checkpoint_with_a_flipped_bit_is_refused(tmp_path: Path, where: int) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, {"a": torch.arange(100.0)}, {"epoch": 3})
    data = bytearray(path.read_bytes())
    data[where] ^= 4
    path.write_bytes(data)
    with pytest.raises(StoreError, match="E-CKPT-001"):
        checkpoint.load(path)


@pytest.mark.parametrize("keep", [0, 7, 200, -3])
def test_checkpoint_cut_short_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, {"a": torch.arange(100.0)}, {"epoch": 3})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StoreError, match="E-CKPT-001"):
        checkpoint.load(path)


def test_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="E-CKPT-001"):
        checkpoint.load(tmp_path / "none.safetensors")
