"""The folder in which a trained model is kept: ``model.safetensors`` and ``model.json``, data only.

A single model::

    model/model.json          all of `ModelFile`
    model/model.safetensors   the weights (EMA, at the selected epoch)

An ensemble::

    model/model.json          `ModelFile` with ``members``; its raw logit is the mean of their calibrated
                              logits at `plain_prior`; its own calibration has the method ``none``
    model/<member>/...        single models
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.evaluation.calibration import Calibration
from toolkit.evaluation.labels import LabelRule
from toolkit.evaluation.thresholds import Goal

FORMAT_VERSION = 1


@dataclass(frozen=True)
class InputContract:
    """What the network is fed.

    Attributes
    ----------
    store_format
        Format version of the store.
    spacing_mm, size
        Isotropic voxel spacing, and voxels along each side of the patch.
    window_hu
        (low, high), mapped to [0, 1]; None leaves HU.
    mask_mode, edge_mm
        What the mask does; a mode other than ``none`` needs nodules with masks.
    channels
        Of the input tensor.
    measured
        Names of features that are fused at the last layer, in order (`toolkit.models.measured`).
    half_voxel
        Whether the middle of the patch lies half a voxel off the crop's, as where one of them has an odd
        number of voxels and the other an even one.
    """

    store_format: int
    spacing_mm: float
    size: int
    window_hu: tuple[float, float] | None
    mask_mode: str
    edge_mm: float
    channels: int
    measured: tuple[str, ...] = ()
    half_voxel: bool = False


@dataclass(frozen=True)
class Range:
    """Least, 1st percentile, median, 99th percentile, largest."""

    least: float
    low: float
    median: float
    high: float
    largest: float


@dataclass(frozen=True)
class ModelFile:
    """All of ``model.json``.

    Attributes
    ----------
    architecture
        ``name`` and ``options`` for `toolkit.models.registry.build`; empty for an ensemble.
    labels
        What was scored as malignant.
    prior
        Effective share of positives in training, which the raw logit carries.
    plain_prior
        Share of positives among the training nodules.
    calibration, threshold, goal
        Frozen on validation. `threshold` is on the raw logit.
    prevalence
        That `probability` refers to unless another is declared.
    seen
        Ranges of what training saw, by name: ``diameter_mm``, ``mean_hu``, ``slice_spacing_mm``,
        ``pixel_spacing_mm``.
    provenance
        Store digest, split, config digest, seed, selected epoch, versions; no paths.
    members
        Folder names of an ensemble's models.
    """

    architecture: Mapping[str, Any]
    input: InputContract
    labels: LabelRule
    prior: float
    plain_prior: float
    calibration: Calibration
    threshold: float
    goal: Goal
    prevalence: float
    seen: Mapping[str, Range] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    members: tuple[str, ...] = ()
    format: int = FORMAT_VERSION
