"""A model folder gives back what was written, or an error with a code."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.models.test_densenet import monai, unlike
from toolkit.errors import UsageError
from toolkit.evaluation.calibration import Calibration
from toolkit.evaluation.labels import LabelRule
from toolkit.evaluation.thresholds import Goal
from toolkit.models.folder import (
    InputContract,
    ModelFile,
    Range,
    load_members,
    load_model,
    read_model_file,
    write_ensemble,
    write_model,
)
from toolkit.models.registry import build
from toolkit.store.format import digest, sealed, unseal

SMALL = {"name": "densenet-small", "options": {}, "dropout": 0.1, "stem_stride": 1}
CONTRACT = InputContract(1, 1.0, 32, (-1000.0, 400.0), "none", 0.0, 1)
FILE = ModelFile(
    SMALL, CONTRACT, LabelRule(), 0.5, 0.1, Calibration(1.5, -0.25, 0.1, "platt"), 0.375, Goal("cost"), 0.1,
    {"diameter_mm": Range(3.0, 4.0, 8.5, 30.0, 41.0)}, {"seed": 3, "versions": {"torch": "2"}},
)  # fmt: skip
FUSED = replace(
    FILE,
    input=replace(CONTRACT, measured=("volume", "diameter")),
    measured={"volume": (5.5, 1.25), "diameter": (2.0, 0.5)},
)


def network(file: ModelFile = FILE, seed: int = 0) -> torch.nn.Module:
    made = build("densenet-small", 1, dropout=0.1, stem_stride=1, measured=file.input.measured)
    unlike(made, seed)
    return made.eval()


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change model.json as somebody would who can seal it again."""
    value = unseal((folder / "model.json").read_bytes(), folder)
    change(value)
    (folder / "model.json").write_bytes(sealed(value))


def reweigh(folder: Path, data: bytes) -> None:
    (folder / "model.safetensors").write_bytes(data)
    rewrite(folder, lambda value: value["files"].update({"model.safetensors": digest(data)}))


def code(folder: Path, **more: Any) -> str:
    with pytest.raises(UsageError) as told:
        load_members(folder, **more)
    assert str(folder) not in told.value.problem.public
    return told.value.problem.code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path / "model", FILE, network().state_dict())
    return tmp_path / "model"


@pytest.mark.parametrize("file", [FILE, FUSED], ids=["alone", "fused"])
def test_a_model_comes_back(tmp_path: Path, file: ModelFile) -> None:
    before = network(file)
    write_model(tmp_path / "model", file, before.state_dict())
    assert read_model_file(tmp_path / "model") == file
    random = torch.get_rng_state()
    told, model = load_model(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), random)
    assert told == file
    assert not any(module.training for module in model.modules())
    image, measured = torch.rand(2, 1, 32, 32, 32), torch.randn(2, 2) if file.measured else None
    assert torch.equal(model(image, measured), before(image, measured))
    for name, value in before.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert {each.name for each in (tmp_path / "model").iterdir()} == {"model.json", "model.safetensors"}
    assert [*tmp_path.iterdir()] == [tmp_path / "model"]
    model.train()(image, measured).sum().backward()  # it can be trained on


def test_the_weights_are_monais(folder: Path) -> None:
    monai("densenet-small").load_state_dict(load_file(folder / "model.safetensors"), strict=True)


def test_weights_in_any_memory_order_are_written_alike(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    write_model(folder, FILE, network().to(memory_format=torch.channels_last_3d).state_dict())
    assert (folder / "model.safetensors").read_bytes() == data


def test_a_folder_is_replaced_whole_or_left_as_it_was(folder: Path) -> None:
    write_model(folder, replace(FILE, threshold=1.0), network(seed=1).state_dict())
    assert read_model_file(folder).threshold == 1.0
    assert torch.equal(load_model(folder)[1].state_dict()["features.conv0.weight"],
                       network(seed=1).state_dict()["features.conv0.weight"])  # fmt: skip
    bad = {**network().state_dict(), "features.norm0.weight": torch.full((16,), torch.nan)}
    with pytest.raises(UsageError, match="E-MODEL-003"):
        write_model(folder, FILE, bad)
    assert read_model_file(folder).threshold == 1.0
    assert [*folder.parent.iterdir()] == [folder]


def test_an_ensemble_comes_back(tmp_path: Path) -> None:
    singles = {}
    for k in range(3):
        singles[f"fold-{k}"] = tmp_path / f"run{k}"
        write_model(tmp_path / f"run{k}", replace(FILE, threshold=k / 4), network(seed=k).state_dict())
    top = replace(
        FILE,
        architecture={},
        members=("fold-0", "fold-1", "fold-2"),
        calibration=Calibration(1, 0, 0.1, "none"),
    )
    write_ensemble(tmp_path / "all", top, singles)
    told, loaded = load_members(tmp_path / "all")
    assert told == top
    image = torch.rand(2, 1, 32, 32, 32)
    for k, (file, model) in enumerate(loaded):
        assert file.threshold == k / 4
        assert torch.equal(model(image, None), network(seed=k)(image, None))
    with pytest.raises(UsageError, match=r"E-MODEL-002 an ensemble is no single model"):
        load_model(tmp_path / "all")
    write_model(tmp_path / "all/fold-1", FILE, network(seed=9).state_dict())  # whole, but another
    assert code(tmp_path / "all") == "E-MODEL-002"


def test_a_single_model_is_its_own_member(folder: Path) -> None:
    told, members = load_members(folder)
    assert told == FILE
    assert [file for file, _ in members] == [FILE]
