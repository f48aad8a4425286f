"""What a phantom nodule is like, and the one place that decides whether it is malignant.

The label is one Bernoulli draw from `malignancy_logit`. Its coefficients are frozen: over nodules of
`draw_params` about 17 % are malignant (the field has thousands benign to a few hundred malignant), the
diameter alone ranks them with an AUROC of 0.75, and the logit itself, which no classifier can beat,
with 0.92. All that the logit sees is drawn into the image: size, spicules, lobes, edge and texture.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

Texture = Literal["solid", "part-solid", "ground-glass"]
Placement = Literal["free", "pleura", "vessel"]

MIN_DIAMETER_MM, MAX_DIAMETER_MM = 4.0, 30.0

_MEDIAN_DIAMETER_MM = 9.0
_LOG_DIAMETER_SD = 0.5
_TEXTURES: tuple[Texture, ...] = ("solid", "part-solid", "ground-glass")
_TEXTURE_SHARES = (0.70, 0.16, 0.14)
_PLACEMENTS: tuple[Placement, ...] = ("free", "pleura", "vessel")
_PLACEMENT_SHARES = (0.50, 0.25, 0.25)

# Frozen: a change makes another benchmark of every phantom that was ever trained on.
_INTERCEPT = -6.72
_PER_LOG_DIAMETER = 3.6
_PER_SPICULATION = 6.0
_PER_LOBULATION = 2.15
_PER_BLUR = 1.45
_TEXTURE_TERM: dict[Texture, float] = {"solid": 0.0, "part-solid": 1.9, "ground-glass": -0.95}


@dataclass(frozen=True)
class NoduleParams:
    """A nodule before it is drawn.

    Attributes
    ----------
    diameter_mm
        Diameter of the sphere of the same volume, 4 to 30.
    lobulation, spiculation, blur
        0 to 1: depth of the lobes, height and number of the spicules, width of the edge.
    solid_share
        Share of the volume that is solid: 1 for solid, 0 for ground-glass.
    solid_hu, ground_hu
        Mean HU of the solid and of the ground-glass part.
    placement
        What it lies beside.
    seed
        Seeds the shape (which lobes, which spicules) and the inner texture.
    """

    diameter_mm: float
    lobulation: float
    spiculation: float
    blur: float
    texture: Texture
    solid_share: float
    solid_hu: float
    ground_hu: float
    placement: Placement
    seed: int


def draw_params(rng: np.random.Generator) -> NoduleParams:
    """Draw one nodule; size, margin and texture are independent of each other.

    Parameters
    ----------
    rng
        Consumed by a varying number of draws, so give each nodule a stream of its own.
    """
    diameter_mm = 0.0
    while not MIN_DIAMETER_MM <= diameter_mm <= MAX_DIAMETER_MM:
        diameter_mm = _MEDIAN_DIAMETER_MM * math.exp(_LOG_DIAMETER_SD * rng.standard_normal())
    texture = _TEXTURES[rng.choice(len(_TEXTURES), p=_TEXTURE_SHARES)]
    share = {"solid": 1.0, "part-solid": float(rng.uniform(0.1, 0.5)), "ground-glass": 0.0}[texture]
    return NoduleParams(
        diameter_mm=diameter_mm,
        lobulation=float(rng.beta(0.9, 1.4)),
        spiculation=float(rng.beta(0.6, 1.2)),
        blur=float(rng.beta(1.2, 1.8)),
        texture=texture,
        solid_share=share,
        solid_hu=float(rng.normal(25.0, 20.0)),
        ground_hu=float(rng.uniform(-680.0, -480.0)),
        placement=_PLACEMENTS[rng.choice(len(_PLACEMENTS), p=_PLACEMENT_SHARES)],
        seed=int(rng.integers(2**32)),
    )


def malignancy_logit(params: NoduleParams) -> float:
    """Return the frozen log-odds of malignancy."""
    return (
        _INTERCEPT
        + _PER_LOG_DIAMETER * math.log(params.diameter_mm / _MEDIAN_DIAMETER_MM)
        + _PER_SPICULATION * params.spiculation
        + _PER_LOBULATION * params.lobulation
        + _PER_BLUR * params.blur
        + _TEXTURE_TERM[params.texture]
    )


def malignancy_probability(params: NoduleParams) -> float:
    """Return the probability of malignancy, in (0, 1)."""
    return 1.0 / (1.0 + math.exp(-malignancy_logit(params)))


def draw_label(params: NoduleParams, rng: np.random.Generator) -> int:
    """Draw the label: 1 malignant, 0 benign."""
    return int(rng.random() < malignancy_probability(params))
