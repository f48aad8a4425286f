"""What each side of `benchmarks.peers.luna25_recipe` does once, its batches, and its training step."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import step
from benchmarks.peers import command
from benchmarks.peers import luna25_baseline as recipe
from benchmarks.peers.luna25_data import Archive
from toolkit.bench.data import endless
from toolkit.bench.machine import Kind
from toolkit.loading.augment import AugmentConfig, margin_voxels
from toolkit.loading.open import open_loader
from toolkit.loading.plan import Plan
from toolkit.loading.sampler import BalancedSampler, members
from toolkit.models.registry import build
from toolkit.store import Store
from toolkit.training.balance import Balancing
from toolkit.training.config import from_table
from toolkit.training.learner import Learner
from toolkit.training.precision import decide

AUGMENTED = AugmentConfig(rotation_degrees=35.0, shift_mm=recipe.SHIFT_MM, window_hu=recipe.WINDOW_HU)
"""An angle uniform up to 35 degrees is as large in root mean square as three of up to 20 together."""
SIDES = ("scans", "blocks", "toolkit")
Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]
Step = Callable[[torch.Tensor, torch.Tensor], None]


@dataclass(frozen=True)
class Settings:
    """What is run: the network, the patch's voxels a side, samples a batch, batches a turn, processes."""

    model: str = "densenet121"
    size: int = recipe.SIZE
    batch: int = 16
    batches: int = 4
    workers: int = 2
    turns: int = 3
    device: Kind = "cpu"

    @property
    def voxel_mm(self) -> float:
        """Of the patch."""
        return recipe.FIELD_MM / self.size


def sources(archive: Archive) -> list[recipe.Source]:
    """Return the archive's nodules, each with its whole scan."""
    return [recipe.Source(n.scan, n.center_lps_mm[::-1], n.label) for n in archive.nodules]


def prepare(side: str, archive: Archive, folder: Path, settings: Settings) -> Any:
    """Do what a side does once for all epochs, and return what its loader reads."""
    whole = sources(archive)
    if side == "scans":
        return whole
    if side == "blocks":
        return blocks(whole, folder, settings.workers)
    margin = margin_voxels(AUGMENTED, settings.size, settings.voxel_mm)
    return preprocessed(archive, folder, settings, settings.voxel_mm, margin)


def blocks(whole: Sequence[recipe.Source], folder: Path, workers: int) -> list[recipe.Source]:
    """Run the recipe's own preprocessing, interpreter start included."""
    words = [sys.executable, "-m", recipe.__name__, str(folder), str(max(1, workers))]
    given = json.dumps([asdict(source) for source in whole])
    root = Path(__file__).parents[2]
    done = subprocess.run(words, input=given, cwd=root, stdout=subprocess.PIPE, text=True, check=True)
    return [recipe.Source(**each) for each in json.loads(done.stdout)]


def preprocessed(archive: Archive, folder: Path, settings: Settings, voxel_mm: float, margin: int) -> Store:
    """Run ``toolkit preprocess``; its index of headers is new, too."""
    options = ["--cases", str(archive.manifest), "--size", str(settings.size), "--margin", str(margin)]
    index = folder.with_name(f"{folder.name}-index")
    command.preprocess(archive.folder, folder, index, voxel_mm, max(1, settings.workers), options)
    return Store.open(folder)


def batches_of(side: str, prepared: Any, settings: Settings) -> Batches:
    """Yield batches without end."""
    if side != "toolkit":
        pin = settings.device == "cuda"
        yield from recipe.endless_batches(prepared, settings.size, settings.batch, settings.workers, pin)
    sampler = BalancedSampler(members(prepared.nodules), batch=settings.batch, positives=settings.batch // 2)
    amp = decide(from_table({}).compute, settings.device).amp
    plan = Plan(prepared, sampler, AUGMENTED, settings.size, 1, amp)
    with open_loader(plan, "auto", settings.device, max(1, settings.workers)) as ours:
        for batch in endless(ours):
            yield batch.image, batch.label


def their_step(settings: Settings) -> Step:
    """Return the recipe's step: Adam, float32, eager, contiguous; the loss is fetched each time."""
    torch.manual_seed(0)
    network = step.theirs(settings.model).to(settings.device)
    optimizer = torch.optim.Adam(network.parameters(), recipe.LR, weight_decay=recipe.WEIGHT_DECAY)
    lossf = torch.nn.BCEWithLogitsLoss()

    def train(image: torch.Tensor, label: torch.Tensor) -> None:
        image, label = image.to(settings.device), label.to(settings.device)
        optimizer.zero_grad()
        loss = lossf(network(image).squeeze(1), label)
        loss.backward()
        optimizer.step()
        loss.item()

    return train


def our_step(settings: Settings) -> Step:
    """Return the step of ``toolkit train`` with the number type and compiler that this device gets."""
    torch.manual_seed(0)
    config = from_table({"model": {"name": settings.model}})
    decision = decide(config.compute, settings.device)
    network, device = build(settings.model, 1), torch.device(settings.device)
    learner = Learner(network, config, Balancing("none", 0.5, 0.5), decision, device, settings.batches)
    return lambda image, label: learner.step(0, 0, image.to(device, decision.dtype), label.to(device))
