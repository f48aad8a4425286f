"""On a real GPU: what is tried there passes, and the facts are torch's."""

import pytest

from toolkit.doctor.report import worst
from toolkit.doctor.selftest import self_test
from toolkit.doctor.software import gather

torch = pytest.importorskip("torch")
pytest.importorskip("cupy")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]


def test_everything_is_tried_and_right() -> None:
    facts = gather()
    found = {each.name: each for each in self_test(facts, compiled=True)}
    assert worst([*found.values()]) == "ok", found
    for name in ("CUDA extraction kernel", "CUDA augmentation kernel", "training step", "torch.compile"):
        assert not found[name].found.startswith("not tried")


def test_driver_and_gpus_as_torch_sees_them() -> None:
    facts = gather()
    assert facts.driver is not None
    assert facts.driver.gpus == len(facts.gpus) == torch.cuda.device_count()
    assert facts.gpus[0].compute_capability == torch.cuda.get_device_capability(0)
    assert facts.driver.cuda >= tuple(int(part) for part in torch.version.cuda.split("."))[:1]
    assert facts.driver.version != "unknown"
