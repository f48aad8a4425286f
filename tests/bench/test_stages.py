"""Every stage at toy size: its gate is green, and red where something is wrong; its figures are whole."""

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.bench.schema import SCHEMA, wrong
from toolkit.bench import augment, extract, loader, network, pipeline, read, train, workers
from toolkit.bench.record import Figure, figure
from toolkit.bench.run import STAGES, Report, run
from toolkit.bench.setting import TOY, Bench
from toolkit.bench.stopwatch import Effort
from toolkit.errors import ToolkitError
from toolkit.training.precision import Decision

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning:nvidia")


def toy(folder: Path) -> Bench:
    """A bench in float32, whatever this machine's processor can do."""
    bench = Bench("cpu", folder, TOY, Effort(2, 0.0), threads=2)
    vars(bench)["decision"] = Decision("float32", "off", "")
    return bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return toy(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def report(bench: Bench) -> Report:
    return run(list(STAGES), bench)


def test_every_stage_has_its_figures(report: Report) -> None:
    by_name = {each.name: each for each in report.figures}
    assert {name.partition("/")[0] for name in by_name} == {*STAGES, "ceiling"}
    assert all(np.isfinite(each.value) and each.value > 0 for each in report.figures)
    assert all(each.p20 <= each.p50 <= each.p80 for each in report.figures)
    assert {"pipeline/fed", "loader/fused, threads=1"} <= {*by_name}
    assert {"train/step", "train/step, batch=2", "train/step, channels_last=false", pipeline.FED} <= {
        *by_name
    }
    assert {"preprocess/cases", "preprocess/cases, workers=1"} <= {*by_name}
    assert {f"{name}/peak memory" for name in STAGES} <= {*by_name}
    assert len(report.gates) == len(STAGES)


def test_shares_are_of_the_ceilings_that_are_told(report: Report) -> None:
    by_name = {each.name: each for each in report.figures}
    assert {each.ceiling for each in report.figures if each.share is not None} == {
        "ceiling/copy", "ceiling/read", "ceiling/inflate", "ceiling/matrix float32",
    }  # fmt: skip
    moved = by_name["extract/kernel bytes"]
    assert moved.share == pytest.approx(100 * moved.value / by_name["ceiling/copy"].value, rel=1e-3)
    assert by_name["extract/kernel"].share == pytest.approx(moved.share, rel=1e-3)


def test_json_is_as_the_schema_says(report: Report, bench: Bench) -> None:
    told = report.to_json(bench)
    assert wrong(told, SCHEMA) == []
    assert {*SCHEMA["$defs"]["figure"]["properties"]} == {each.name for each in fields(Figure)}
    assert {*SCHEMA["$defs"]["context"]["properties"]} == {*told["context"]}


def test_the_schema_refuses_what_it_does_not_describe(report: Report, bench: Bench) -> None:
    told = report.to_json(bench)
    first = told["figures"][0]
    for change in (
        {"format": 2},
        {"more": 1},
        {"figures": [{**first, "n": 0}]},
        {"figures": [{**first, "unit": "furlongs"}]},
        {"figures": [{k: v for k, v in first.items() if k != "p20"}]},
        {"gates": "green"},
        {"advice": [{"key": "batch"}]},
        {"context": {**told["context"], "cores": "two"}},
    ):
        assert wrong({**told, **change}, SCHEMA), change


def test_gates_are_green_in_the_number_type_that_this_machine_takes(tmp_path: Path) -> None:
    bench = Bench("cpu", tmp_path, TOY, Effort(2, 0.0), threads=2)
    assert all(bench.decision.amp in STAGES[name].gate(bench) for name in ("augment", "model", "train"))


def red(stage: str, bench: Bench) -> None:
    with pytest.raises(ToolkitError, match="E-BENCH-001") as caught:
        STAGES[stage].gate(bench)
    assert caught.value.exit_code == 1


def test_one_wrong_pixel_on_disk_is_red(tmp_path: Path) -> None:
    bench = toy(tmp_path)
    path = bench.scans.slices[3]
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(bytes(data))
    red("read", bench)


def test_one_wrong_voxel_of_an_extracted_crop_is_red(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    right = extract.kernels.extract

    def off(*given: Any) -> Any:
        image, occupancy = right(*given)
        image[0, 1, 2, 3] += 3
        return image, occupancy

    monkeypatch.setattr(extract.kernels, "extract", off)
    red("extract", bench)


def test_a_worker_that_makes_other_crops_is_red(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    right = workers.results

    def off(*given: Any) -> Iterator[Any]:
        for each in right(*given):
            yield replace(each, images=each.images + np.int16(1))

    monkeypatch.setattr(workers, "results", off)
    red("preprocess", bench)


def test_patches_that_are_off_are_red(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    right = augment.augment
    monkeypatch.setattr(augment, "augment", lambda *given, **more: right(*given, **more) + np.float32(0.002))
    red("augment", bench)


def test_a_loader_of_other_draws_is_red(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    right = loader.open_loader
    monkeypatch.setattr(loader, "open_loader", lambda plan, *more: right(replace(plan, seed=2), *more))
    red("loader", bench)


def test_a_network_that_sees_another_image_is_red(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    right = network.on
    monkeypatch.setattr(network, "on", lambda bench, image: right(bench, image * 1.01))
    red("model", bench)


def test_gradients_that_are_two_per_cent_off_are_red(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    import toolkit.training.learner as room

    right: Callable[..., torch.Tensor] = room.objective
    monkeypatch.setattr(room, "objective", lambda *given: 1.02 * right(*given))
    red("train", bench)


def test_what_rounding_may_do_to_gradients_is_far_from_what_a_mistake_does() -> None:
    """Unrelated gradients are 1 and more apart."""
    assert train.allowed("bfloat16", "cpu") == pytest.approx(0.34, abs=0.005)
    assert train.allowed("float16", "cuda") == train.allowed("float32", "cuda") < 0.13
    assert train.allowed("float32", "cpu") == train.FLOAT32


def test_the_checked_network_has_as_many_relus_as_the_bound_counts() -> None:
    checked = train.build(train.CHECKED_MODEL, 1, train.CHECKED_OPTIONS)
    assert sum(isinstance(each, torch.nn.ReLU) for each in checked.modules()) == train.CHECKED_RELUS


def test_steps_that_see_other_batches_are_red(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    right, seeds = pipeline.open_loader, iter((1, 2))
    changed: Callable[..., Any] = lambda plan, *more: right(replace(plan, seed=next(seeds)), *more)  # noqa: E731
    monkeypatch.setattr(pipeline, "open_loader", changed)
    red("pipeline", bench)


def test_what_a_loader_made_in_advance_is_taken_before_it_is_timed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: dict[str, int] = {}
    real, count = pipeline.fed, iter(range(10**6))

    def counted(*given: Any) -> Iterator[Any]:
        for each in real(*given):
            next(count)
            yield each

    def once(works: dict[str, Any], *more: Any) -> dict[str, list[float]]:
        for name, work in works.items():
            before = copy(count)
            work(0)
            taken[name] = next(copy(count)) - next(before)
        return {name: [1.0, 1.0] for name in works}

    monkeypatch.setattr(pipeline, "fed", counted)
    monkeypatch.setattr(pipeline, "in_turns", once)
    names = [each.name for each in pipeline.measure(bench)]
    assert list(taken.items()) == [
        ("resident", 0),
        (pipeline.SETTLING, pipeline.AHEAD),
        ("fed", pipeline.STEPS),
    ]
    assert not any(pipeline.SETTLING in name for name in names)


def test_a_red_gate_shows_no_figure_of_any_stage(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def spy(name: str) -> Callable[[Bench], list[Figure]]:
        return lambda bench: measured.append(name) or []  # type: ignore[func-returns-value]

    for name, stage in STAGES.items():
        monkeypatch.setitem(STAGES, name, replace(stage, measure=spy(name)))  # type: ignore[arg-type]
    monkeypatch.setattr(network, "on", lambda bench, image: -image)
    monkeypatch.setitem(STAGES, "model", replace(STAGES["model"], gate=network.gate))  # type: ignore[arg-type]
    with pytest.raises(ToolkitError, match="model gives wrong numbers"):
        run(["extract", "model"], bench)
    assert not measured


def test_what_does_not_run_is_left_out_and_told(bench: Bench) -> None:
    said: list[str] = []

    def fail(turn: int) -> None:
        raise RuntimeError("out of memory\nwith a long tail")

    left, first = network.possible({"a": fail, "b": lambda turn: None}, replace(bench, say=said.append))
    assert {*left} == {*first} == {"b"}
    assert said == ["left out a: RuntimeError: out of memory"]


def test_more_states_than_eight_are_compiled() -> None:
    """Torch's own limit would run the ninth eagerly."""
    import torch._dynamo as dynamo

    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, example: list[torch.Tensor]) -> Callable[..., Any]:
        compiled.append(1)
        return graph.forward

    usual = dynamo.config.recompile_limit
    # torch puts back what it changed itself; pytest would delete it, and other tests would miss it
    with dynamo.config.patch(recompile_limit=usual, fail_on_recompile_limit_hit=False):
        network.compile_all()
        layer = torch.compile(torch.nn.ReLU(), backend=backend, dynamic=False)
        for size in range(2, 12):
            layer(torch.rand(size))
    dynamo.reset()
    assert len(compiled) == 10
    assert dynamo.config.recompile_limit == usual


def test_arms_differ_from_the_base_in_one_setting(bench: Bench) -> None:
    tried = train.arms(replace(bench, compiled=True))
    base = asdict(tried.pop(""))
    assert ", compile=default" in tried
    for name, arm in tried.items():
        changed = [key for key, value in asdict(arm).items() if value != base[key]]
        assert changed == [name.removeprefix(", ").partition("=")[0]]


@pytest.fixture(autouse=True)
def _threads_stay() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before


def test_the_scans_are_read_in_the_order_of_their_patients(tmp_path: Path) -> None:
    bench = replace(toy(tmp_path), sizes=replace(TOY, scans=2))
    found = read.cases(bench)
    assert [case.patient_id for case in found] == [each.patient_id for each in bench.scans.patients]


def test_share_is_a_rate_times_what_a_unit_takes() -> None:
    ceiling = figure("ceiling/copy", [10.0], "GB/s")
    made = figure("x", [1000.0, 2000.0, 3000.0], "samples/s", of=ceiling, in_its_unit=1e-3)
    assert (made.share, made.ceiling) == (20.0, "ceiling/copy")
