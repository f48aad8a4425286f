"""The profile of a step: what it adds up, and that the alarm rings."""

from types import SimpleNamespace

import torch

from benchmarks.profile_step import profile, summarize
from toolkit.models.registry import build
from toolkit.training.balance import Balancing
from toolkit.training.config import from_table
from toolkit.training.learner import Learner
from toolkit.training.precision import Decision


def test_a_real_step_is_taken_apart() -> None:
    config = from_table({"model": {"name": "densenet-small"}})
    decision = Decision("float32", "off", "")
    learner = Learner(
        build("densenet-small", 1), config, Balancing("none", 0.5, 0.5), decision, torch.device("cpu"), 1
    )
    image = torch.rand(4, 1, 16, 16, 16).contiguous(memory_format=torch.channels_last_3d)
    found = profile(learner, image, torch.tensor([0.0, 1.0, 0.0, 1.0]), steps=2)
    names = " ".join(each.name for each in found.operations)
    assert "convolution" in names
    assert found.total_ms > 0
    assert 0 <= found.layout_share < 0.5
    assert found.fallback_share < 0.5


def test_fallbacks_and_layouts_are_found() -> None:
    events = [
        SimpleNamespace(key="aten::mkldnn_convolution", count=10, self_cpu_time_total=6000.0),
        SimpleNamespace(key="nchwToNhwcKernel", count=4, self_cpu_time_total=3000.0),
        SimpleNamespace(key="aten::slow_conv3d", count=2, self_cpu_time_total=1000.0),
        SimpleNamespace(key="idle", count=2, self_cpu_time_total=0.0),
    ]
    found = summarize(events, 2, on_device=False)
    assert found.total_ms == 5.0
    assert found.layout_share == 0.3
    assert found.fallback_share == 0.1
    assert found.fallbacks == ("aten::slow_conv3d",)
    assert found.operations[0].calls == 5
