"""What may happen to a crop: settings with their units in their names, presets, and what is refused."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_args

from toolkit.errors import Problem, UsageError
from toolkit.loading.table import MaskMode

LARGEST_EDGE_VOXELS = 15.0
FOLD = 0.4
"""A cubic B-spline grid whose points move less than 0.4 spacings along each axis does not fold space
(Choi and Lee 2000, Graphical Models 62: 0.4033)."""

Range = tuple[float, float]


def _known(given: Mapping[str, Any], values: Mapping[str, Any], prefix: str) -> None:
    for name in given:
        if name not in values:
            action = "Nothing done; correct the configuration"
            known = f"one of {', '.join(values)}"
            raise UsageError(Problem("E-AUG-002", f"unknown setting {prefix}{name}", "", known, action))


def _refuse(name: str, value: object, expected: str) -> None:
    action = "Nothing done; correct the configuration"
    raise UsageError(Problem("E-AUG-001", f"setting {name} is wrong", f"{value}", expected, action))


def _need(name: str, value: object, expected: str, least: float, most: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not least <= value <= most:  # type: ignore[operator]
        _refuse(name, value, expected)


def _need_range(name: str, value: object, expected: str, least: float, most: float) -> None:
    if not isinstance(value, tuple) or len(value) != 2:
        _refuse(name, value, "a smallest and a largest number")
        return
    for each in value:
        _need(name, each, expected, least, most)
    if value[0] > value[1]:
        _refuse(name, value, "the smallest number first")


@dataclass(frozen=True)
class Probability:
    """How likely each operation is for a sample, each in [0, 1]; flips have their own."""

    rotation: float = 1.0
    scale: float = 1.0
    anisotropic_scale: float = 1.0
    shear: float = 1.0
    shift: float = 1.0
    elastic: float = 1.0
    window: float = 1.0
    gamma: float = 1.0
    gain: float = 1.0
    bias: float = 1.0
    noise: float = 1.0

    def __post_init__(self) -> None:
        for each in fields(self):
            _need(f"probability.{each.name}", getattr(self, each.name), "in [0, 1]", 0, 1)


@dataclass(frozen=True)
class AugmentConfig:
    """How samples are changed; the defaults change nothing and map the HU window to [0, 1].

    Attributes
    ----------
    rotation_degrees
        Largest angle; the angle is uniform up to it, about an axis that is uniform on the sphere.
    scale
        How large a nodule becomes, (smallest, largest) as factors of its size, log-uniform.
    anisotropic_scale
        Each axis by another factor from 1/a to a, log-uniform.
    shear
        Each of the six off-diagonal entries, uniform from -shear to shear.
    flip_probability
        Along z, y, x.
    shift_mm
        Along each axis, uniform from -shift_mm to shift_mm.
    elastic_spacing_mm, elastic_amplitude_mm
        Distance of the control points, and how far each moves at most along each axis; 0 for none.
    window_hu
        (low, high), mapped to [0, 1]; None leaves HU as they are.
    window_jitter_hu
        Both ends move independently, uniform from -jitter to jitter.
    gamma
        (smallest, largest), log-uniform; needs a window.
    gain, bias, noise_sigma
        (smallest, largest), uniform, in units of the windowed value.
    mask_mode, edge_mm
        What the mask does, and by how much its edge is softened first.
    probability
        Of each operation.
    """

    rotation_degrees: float = 0.0
    scale: Range = (1.0, 1.0)
    anisotropic_scale: float = 1.0
    shear: float = 0.0
    flip_probability: tuple[float, float, float] = (0.0, 0.0, 0.0)
    shift_mm: float = 0.0
    elastic_spacing_mm: float = 0.0
    elastic_amplitude_mm: float = 0.0
    window_hu: Range | None = (-1000.0, 400.0)
    window_jitter_hu: float = 0.0
    gamma: Range = (1.0, 1.0)
    gain: Range = (1.0, 1.0)
    bias: Range = (0.0, 0.0)
    noise_sigma: Range = (0.0, 0.0)
    mask_mode: MaskMode = "none"
    edge_mm: float = 0.0
    probability: Probability = field(default_factory=Probability)

    def __post_init__(self) -> None:
        """Raise `UsageError` E-AUG-001 with the field's name."""
        _need("rotation_degrees", self.rotation_degrees, "0 to 180 degrees", 0, 180)
        _need_range("scale", self.scale, "0.25 to 4", 0.25, 4)
        _need("anisotropic_scale", self.anisotropic_scale, "1 to 2", 1, 2)
        _need("shear", self.shear, "0 to 0.5", 0, 0.5)
        flips: object = self.flip_probability  # whatever a file said
        if not isinstance(flips, tuple) or len(flips) != 3:
            _refuse("flip_probability", flips, "three numbers, for z, y, x")
        for each in self.flip_probability:
            _need("flip_probability", each, "in [0, 1]", 0, 1)
        _need("shift_mm", self.shift_mm, "0 to 100 mm", 0, 100)
        _need("elastic_spacing_mm", self.elastic_spacing_mm, "0 to 1000 mm", 0, 1000)
        most = FOLD * self.elastic_spacing_mm
        what = f"0 to {most:g} mm ({FOLD:g} of the spacing: more would fold space)"
        _need("elastic_amplitude_mm", self.elastic_amplitude_mm, what, 0, most)
        self._check_intensity()
        if self.mask_mode not in get_args(MaskMode):
            _refuse("mask_mode", self.mask_mode, f"one of {', '.join(get_args(MaskMode))}")
        _need("edge_mm", self.edge_mm, "0 to 30 mm", 0, 30)
        if self.edge_mm and self.mask_mode == "none":
            _refuse("edge_mm", self.edge_mm, "0 with mask_mode none")

    def _check_intensity(self) -> None:
        jitter = "0 to less than half of the window"
        if self.window_hu is not None:
            _need_range("window_hu", self.window_hu, "-32768 to 32767 HU", -32768, 32767)
            low, high = self.window_hu
            if not low < high:
                _refuse("window_hu", self.window_hu, "low below high")
            _need("window_jitter_hu", self.window_jitter_hu, jitter, 0, math.nextafter((high - low) / 2, 0))
        elif self.window_jitter_hu:
            _refuse("window_jitter_hu", self.window_jitter_hu, "0 without window_hu")
        _need_range("gamma", self.gamma, "0.1 to 10", 0.1, 10)
        if self.window_hu is None and self.gamma != (1, 1):
            _refuse("gamma", self.gamma, "(1, 1) without window_hu")
        _need_range("gain", self.gain, "-100 to 100", -100, 100)
        _need_range("bias", self.bias, "-10000 to 10000", -1e4, 1e4)
        _need_range("noise_sigma", self.noise_sigma, "0 to 10000", 0, 1e4)

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "AugmentConfig":
        """Make a configuration from a TOML table: `preset` to start from, any field, and ``[probability]``.

        Raises `UsageError` E-AUG-001 on a wrong value, E-AUG-002 on an unknown name.
        """
        given = dict(table)
        base = preset(given.pop("preset", "none"))
        values = {each.name: getattr(base, each.name) for each in fields(cls)}
        _known(given, values, "")
        if "probability" in given:
            chances = given.pop("probability")
            if not isinstance(chances, Mapping):
                _refuse("probability", chances, "a table of operations")
            old = {each.name: getattr(base.probability, each.name) for each in fields(Probability)}
            _known(chances, old, "probability.")
            values["probability"] = Probability(**old | dict(chances))
        if given.get("window_hu") is False:  # TOML has no null
            given["window_hu"] = None
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        return cls(**values | given)


PRESETS = {
    # what validation and prediction see
    "none": AugmentConfig(),
    # what changes no appearance: nodules have no up or left, and their centres are drawn by hand
    "light": AugmentConfig(flip_probability=(0.5, 0.5, 0.5), shift_mm=1.0),
    # what the store's default margin holds. Any diameter within 10 %, so that size keeps its meaning; 15
    # degrees and 2 mm, since a reader's centre is no better; noise from a standard to a low dose (0.02 is
    # 28 HU); window, gain and gamma for kernels and scanners, which move a soft-tissue nodule by tens of HU
    "default": AugmentConfig(
        rotation_degrees=15.0,
        scale=(1 / 1.1, 1.1),
        flip_probability=(0.5, 0.5, 0.5),
        shift_mm=2.0,
        window_jitter_hu=30.0,
        gamma=(0.9, 1.1),
        gain=(0.95, 1.05),
        bias=(-0.02, 0.02),
        noise_sigma=(0.0, 0.02),
        probability=Probability(noise=0.5, gamma=0.5),
    ),
    # for small data: any orientation, shapes bent by a millimetre or two, which leaves a spiculated edge
    # spiculated. Reaches beyond the default margin; what lies there is air
    "strong": AugmentConfig(
        rotation_degrees=180.0,
        scale=(0.8, 1.25),
        anisotropic_scale=1.1,
        shear=0.05,
        flip_probability=(0.5, 0.5, 0.5),
        shift_mm=3.0,
        elastic_spacing_mm=12.0,
        elastic_amplitude_mm=2.0,
        window_jitter_hu=60.0,
        gamma=(0.75, 1.33),
        gain=(0.9, 1.1),
        bias=(-0.05, 0.05),
        noise_sigma=(0.0, 0.05),
        probability=Probability(elastic=0.5, noise=0.5),
    ),
}


def preset(name: str) -> AugmentConfig:
    """Return a preset by name; raises `UsageError` E-AUG-001."""
    if name not in PRESETS:
        _refuse("preset", name, f"one of {', '.join(PRESETS)}")
    return PRESETS[name]


def margin_voxels(config: AugmentConfig, size: int, spacing_mm: float) -> int:
    """Return a margin around a patch of `size` voxels that keeps every draw inside the crop.

    A cube of half-side a turned by t about any axis reaches at most ``a min(sqrt(3), cos t + sqrt(2) sin t)``
    along an axis; shears, scales, shifts and the grid add their most.
    """
    angle = min(math.radians(config.rotation_degrees), math.atan(math.sqrt(2)))
    turned = math.cos(angle) + math.sqrt(2) * math.sin(angle)
    factor = turned * config.anisotropic_scale * (1 + 2 * config.shear) / config.scale[0]
    moved = (config.shift_mm + config.elastic_amplitude_mm) / spacing_mm
    return max(0, math.ceil(size / 2 * (factor - 1) + moved - 1e-9))
