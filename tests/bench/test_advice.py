"""Recommendations: a gain beyond the noise changes a setting, anything less does not."""

from pathlib import Path
from typing import Any

import pytest

from toolkit.bench import setting, transfers
from toolkit.bench.advice import Advice, advise, write_config
from toolkit.bench.record import Figure, figure
from toolkit.errors import UsageError

BASE = {"batch": 32, "amp": "float32", "compile": "off", "channels_last": True, "threads": 2}


def step(rate: float, spread: float = 0.01, **changed: Any) -> Figure:
    names = [f"{key}={str(value).lower()}" for key, value in changed.items() if value != BASE[key]]
    samples = [rate * (1 - spread), rate * (1 - spread), rate, rate * (1 + spread), rate * (1 + spread)]
    return figure(", ".join(["train/step", *names]), samples, "samples/s", config=BASE | changed)


def of(key: str, *figures: Figure) -> Advice:
    (found,) = [each for each in advise(figures) if each.key == key]
    return found


def test_a_clear_gain_changes_a_setting() -> None:
    found = of("compute.amp", step(100), step(140, amp="bfloat16"))
    assert (found.value, found.changed) == ("bfloat16", True)
    assert found.flag == '--set compute.amp="bfloat16"'
    assert "1.40x" in found.why


@pytest.mark.parametrize(("rate", "spread"), [(102, 0.001), (115, 0.2), (80, 0.01)])
def test_little_or_noisy_gains_change_nothing(rate: float, spread: float) -> None:
    found = of("compute.channels_last", step(100, spread), step(rate, spread, channels_last=False))
    assert (found.value, found.changed, found.flag) == (True, False, "")


def test_of_batches_that_are_equally_fast_the_smallest_is_taken() -> None:
    figures = [step(100), step(198, batch=64), step(200, batch=128), step(201, batch=256), step(60, batch=8)]
    found = of("batch", *figures)
    assert (found.value, found.flag) == (64, "--set batch=64")


def test_a_usual_batch_that_is_as_fast_as_any_stays() -> None:
    found = of("batch", step(100), step(101, batch=64), step(99, batch=16))
    assert (found.value, found.changed) == (32, False)


def test_the_loader_is_a_flag_and_starvation_a_remark() -> None:
    fused = figure("loader/fused", [10.0] * 3, "samples/s", config={"loader": "fused", "threads": 2})
    dali = figure("loader/dali", [20.0] * 3, "samples/s", config={"loader": "dali", "threads": 2})
    assert of("loader", fused, dali).flag == "--loader dali"
    assert of("loader", fused).flag == ""
    assert "keeps up" in of("", figure("pipeline/fed of resident", [99.0], "%")).why
    assert "wait for the loader" in of("", figure("pipeline/fed of resident", [60.0], "%")).why


def test_the_file_is_one_that_train_reads(tmp_path: Path) -> None:
    figures = [
        step(100), step(200, batch=64), step(150, amp="bfloat16"), step(180, compile="default"),
        step(50, channels_last=False), step(130, threads=1),
        figure("loader/fused", [10.0], "samples/s", config={"loader": "fused", "threads": 2}),
    ]  # fmt: skip
    config = write_config(tmp_path / "s.toml", advise(figures))
    assert config.batch == 64
    assert config.compute.amp == "bfloat16"
    assert config.compute.compile == "default"
    assert config.compute.channels_last is True
    assert config.compute.threads == 1
    assert "# a flag, not a setting: toolkit train --loader fused" in (tmp_path / "s.toml").read_text()


def test_threads_are_pinned_only_where_fewer_are_faster(tmp_path: Path) -> None:
    assert write_config(tmp_path / "s.toml", advise([step(100), step(60, threads=1)])).compute.threads == 0


def test_what_compiling_costs_is_told() -> None:
    cost = figure("train/compile time, compile=default", [21.0], "s")
    assert "compiling takes 21 s" in of("compute.compile", step(100), step(150, compile="default"), cost).why
    assert "compiling" not in of("compute.compile", step(100), step(90, compile="default"), cost).why


def cases(rate: float, workers: int, name: str = "") -> Figure:
    return figure(f"preprocess/cases{name}", [rate] * 3, "cases/s", config={"workers": workers})


def test_workers_are_a_flag_of_preprocess(tmp_path: Path) -> None:
    found = of("workers", cases(10, 8), cases(14, 4, ", workers=4"), cases(6, 2, ", workers=2"))
    assert (found.value, found.flag) == (4, "--workers 4")
    assert of("workers", cases(10, 8), cases(8, 4, ", workers=4")).flag == ""
    path = tmp_path / "s.toml"
    write_config(path, advise([step(100), step(90, batch=8), cases(10, 8), cases(14, 4, ", workers=4")]))
    assert "# a flag, not a setting: toolkit preprocess --workers 4" in path.read_text()


def test_how_many_threads_of_the_loader_are_enough_is_told() -> None:
    rates = {1: 50.0, 2: 99.0, 4: 101.0}
    figures = [
        figure(f"loader/fused, threads={n}", [rate], "samples/s", config={"loader": "fused", "threads": n})
        for n, rate in rates.items()
    ]
    all_of_them = figure("loader/fused", [102.0], "samples/s", config={"loader": "fused", "threads": 8})
    assert any(
        each.why.startswith("2 threads of the fused loader") for each in advise([all_of_them, *figures])
    )


@pytest.mark.parametrize(("fast", "said"), [(150.0, "two streams: 1.50x"), (101.0, "neither pinned memory")])
def test_whether_pinned_memory_and_streams_pay_is_told(fast: float, said: str) -> None:
    rates = dict(zip(transfers.FORMS, (100.0, 100.5, fast), strict=True))
    figures = [figure(f"extract/{form}", [rate] * 3, "nodules/s") for form, rate in rates.items()]
    (told,) = advise(figures)
    assert said in told.why
    assert told.flag == ""


def test_every_way_to_compile_is_one_that_train_takes(tmp_path: Path) -> None:
    for mode in setting.FULL_GPU.modes:
        if mode == "off":
            continue
        figures = [step(100), step(200, compile=mode)]
        assert write_config(tmp_path / "s.toml", advise(figures)).compute.compile == mode


def test_nothing_tried_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="E-BENCH-004"):
        write_config(tmp_path / "s.toml", [])
    assert not (tmp_path / "s.toml").exists()
