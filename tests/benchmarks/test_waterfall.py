"""The waterfall at toy size: its states, its gate, and that its end is the step of ``toolkit train``."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import waterfall, waterfall_chart
from benchmarks.waterfall_step import Recipe, Stepper, make_network
from toolkit.bench.setting import TOY, Bench
from toolkit.bench.stopwatch import Effort
from toolkit.errors import ToolkitError
from toolkit.models.registry import build
from toolkit.training.balance import Balancing
from toolkit.training.config import from_table
from toolkit.training.learner import Learner
from toolkit.training.precision import Decision

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning:nvidia")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _globals_stay() -> Iterator[None]:
    from monai.data import set_track_meta

    before = torch.backends.cudnn.benchmark
    yield
    torch.backends.cudnn.benchmark = before
    set_track_meta(True)


def test_states_pile_up_and_what_a_device_has_no_use_for_is_named() -> None:
    gpu: Any = SimpleNamespace(kind="cuda", compiled=True, decision=Decision("bfloat16", "default", ""))
    found, reasons = waterfall.states(gpu)
    assert [*found] == [*waterfall.NAMES]
    assert not reasons
    assert found["plain"] == Recipe()
    last: dict[str, Any] = asdict(Recipe())
    for technique in waterfall.TECHNIQUES:
        last |= technique.changes
        assert asdict(found[technique.name]) == last
    cpu: Any = SimpleNamespace(kind="cpu", compiled=False, decision=Decision("float32", "off", ""))
    found, reasons = waterfall.states(cpu, ["guards"])
    assert [*found] == ["plain", "guards"]
    assert found["guards"] == Recipe("toolkit", True, fused=True, loader="fused", guards=True)
    assert {"autotune", "amp", "compile", "max-autotune", "graph"} <= {*reasons}


def test_the_end_is_the_step_of_training() -> None:
    recipe = Recipe("toolkit", True, fused=True, loader="fused", guards=True)
    ours = Stepper(recipe, "densenet-small", CPU)
    config = from_table({"model": {"name": "densenet-small"}})
    learner = Learner(
        build("densenet-small", 1),
        config,
        Balancing("none", 0.5, 0.5),
        Decision("float32", "off", ""),
        CPU,
        3,
    )
    for module in (learner.model, learner.average.module):
        module.load_state_dict(ours.network.state_dict())
    torch.manual_seed(1)
    image = torch.rand(4, 1, 16, 16, 16).contiguous(memory_format=torch.channels_last_3d)
    target = torch.tensor([0.0, 1.0, 0.0, 1.0])
    ours.lr.fill_(learner.lr(0))
    ours.step(image, target)
    learner.step(0, 0, image, target)
    assert torch.equal(ours.loss, learner.losses[0])
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours.parameters, learner.parameters, strict=True))
    assert ours.average is not None
    for one, other in ((ours.network, learner.model), (ours.average.module, learner.average.module)):
        for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
            # the learning rate is rounded to float32 here, decay and step go by another order of sums
            torch.testing.assert_close(a, b, rtol=2**-22, atol=2**-20 * learner.lr(0), msg=name)


def test_a_state_that_gives_other_numbers_is_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench("cpu", tmp_path, TOY, Effort(2, 0.0), threads=1)

    def scaled(kind: str, *given: Any) -> torch.nn.Module:
        network = make_network(kind, *given)
        network.register_forward_hook(lambda module, inputs, output: 1.02 * output)
        return network

    for kind in ("toolkit", "fast"):
        assert waterfall._gradients(bench, kind, Recipe(kind)).startswith(f"waterfall: {kind}, float32")
    monkeypatch.setattr("benchmarks.waterfall_step.make_network", scaled)
    with pytest.raises(ToolkitError, match="E-BENCH-001"):
        waterfall._gradients(bench, "network", Recipe("toolkit"))


def test_a_technique_that_does_not_run_is_left_out_and_those_behind_it_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gate(bench: Bench, recipes: dict[str, Recipe]) -> list[str]:
        for name, recipe in recipes.items():
            if recipe.compile == "default":
                raise waterfall.StateError(name, "does not run here: no compiler")
        return ["green"]

    monkeypatch.setattr(waterfall, "gate", gate)
    gpu: Any = SimpleNamespace(kind="cuda", compiled=True, decision=Decision("bfloat16", "default", ""))
    recipes, reasons, told = waterfall.runnable(gpu, waterfall.NAMES)
    assert told == ["green"]
    assert reasons["compile"] == "does not run here: no compiler"
    assert recipes["fused"].compile == "off"
    assert recipes["loader"].compile == "max-autotune-no-cudagraphs"


def test_a_run_is_a_record_that_becomes_a_chart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cpu_2026-01-01_abc.jsonl"
    words = ["--toy", "--workers", "0", "--turns", "2", "--steps", "loader", "--device", "cpu"]
    assert waterfall.main([*words, "--out", str(path)]) == 0
    told = capsys.readouterr().out
    assert "left out graph: there is no GPU" in told
    assert "waterfall: loader, " in told
    rows = [json.loads(text) for text in path.read_text().splitlines()]
    assert [row["name"] for row in rows if ", " not in row["name"]] == [
        "waterfall/plain", "waterfall/loader", "waterfall.ratio/loader / plain",
    ]  # fmt: skip
    assert rows[0]["config"]["left_out"]["graph"] == "there is no GPU"
    made = waterfall_chart.bars(rows)
    assert len(made) == 2
    assert all(0 < bar.resident_ms <= bar.ms for bar in made)
    assert "<svg" in waterfall_chart.draw(rows)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
def test_every_state_is_right_on_a_gpu(tmp_path: Path) -> None:
    """CUDA graph and compilers, too; the gate raises otherwise."""
    bench = Bench("cuda", tmp_path, TOY, Effort(2, 0.0), compiled=True)
    recipes, _ = waterfall.states(bench)
    assert {"graph", "compile", "autotune"} <= {*recipes}
    assert len(waterfall.gate(bench, recipes)) == len(recipes) + 2
