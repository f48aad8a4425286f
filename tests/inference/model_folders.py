"""Untrained networks in model folders, for tests of everything around the network."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from toolkit.evaluation.calibration import Calibration
from toolkit.evaluation.labels import LabelRule
from toolkit.evaluation.thresholds import Goal
from toolkit.models.folder import InputContract, ModelFile, Range, write_ensemble, write_model
from toolkit.models.registry import build

SIZE, SPACING_MM, WINDOW_HU = 32, 1.0, (-1000.0, 400.0)
CONTRACT = InputContract(1, SPACING_MM, SIZE, WINDOW_HU, "none", 0.0, 1)
FILE = ModelFile(
    architecture={"name": "densenet-small", "options": {}, "dropout": 0.0, "stem_stride": 2},
    input=CONTRACT,
    labels=LabelRule(),
    prior=0.5,
    plain_prior=0.2,
    calibration=Calibration(1.3, -0.4, 0.2, "platt"),
    threshold=0.1,
    goal=Goal(),
    prevalence=0.1,
)


def network(file: ModelFile, seed: int) -> torch.nn.Module:
    """A network whose logits differ between nodules, as those of a fresh one hardly do."""
    torch.manual_seed(seed)
    options = {k: v for k, v in file.architecture.items() if k not in ("name", "options")}
    contract = file.input
    made = build(
        file.architecture["name"],
        contract.channels,
        file.architecture["options"],
        **options,
        measured=contract.measured,
    )
    with torch.no_grad():
        for name, tensor in made.state_dict().items():
            if name.endswith("running_mean"):
                tensor.normal_(std=0.1)
            elif name.endswith("class_layers.out.weight"):
                tensor.mul_(40)
            elif name.endswith("measured.weight"):
                tensor.normal_()
    return made.eval()


def write_single(path: Path, seed: int = 0, **changes: Any) -> torch.nn.Module:
    """Write a model folder with fields of `FILE` changed, and return its network."""
    file = replace(FILE, **changes)
    made = network(file, seed)
    write_model(path, file, made.state_dict())
    return made


def write_members(path: Path, count: int = 3, **changes: Any) -> list[tuple[ModelFile, torch.nn.Module]]:
    """Write an ensemble whose members are calibrated differently, and return them."""
    found, folders = [], {}
    for k in range(count):
        file = replace(FILE, calibration=Calibration(0.5 + k, 0.1 * k - 0.2, 0.1 + 0.1 * k, "platt"))
        found.append((file, network(file, 10 + k)))
        folders[f"m{k}"] = path.with_name(f"{path.name}-m{k}")
        write_model(folders[f"m{k}"], file, found[-1][1].state_dict())
    none = Calibration(1.0, 0.0, FILE.plain_prior, "none")
    whole = replace(FILE, architecture={}, calibration=none, members=tuple(folders))
    write_ensemble(path, replace(whole, **changes), folders)
    return found


def ranges(**largest: float) -> Mapping[str, Range]:
    """Ranges from 0 to a largest value, the middle 98 % up to half of it."""
    return {name: Range(0.0, 0.0, 0.25 * top, 0.5 * top, top) for name, top in largest.items()}
