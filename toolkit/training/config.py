"""The configuration of a run: every setting with its unit, its range and what it is for.

A TOML file holds any of them; ``--set section.key=value`` speaks last. Nothing is evaluated: values are TOML.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from toolkit.errors import Problem, UsageError
from toolkit.evaluation.labels import LabelRule
from toolkit.evaluation.thresholds import Goal
from toolkit.loading.augment import AugmentConfig

Balance = Literal["sampler", "weight", "logit-adjust", "focal", "none"]
Metric = Literal["auroc", "average_precision", "balanced_accuracy", "f_beta", "loss"]
SHOWN = 5


class Section(BaseModel):
    """A group of settings: frozen, and no unknown name."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Model(Section):
    """The network.

    `name` is ``densenet121``, ``densenet169``, ``densenet201``, ``densenet-small``, an entry point, or an
    import path (``monai.networks.nets:ResNet``), whose `options` are its arguments. `measured` names
    features that are fused at the last layer: ``diameter``, ``volume``, ``mean_hu``, ``solid_share``.
    """

    name: str = "densenet121"
    dropout: float = Field(default=0.1, ge=0, lt=1)
    stem_stride: Literal[1, 2] = 2
    measured: tuple[str, ...] = ()
    options: dict[str, Any] = {}


class Input(Section):
    """The patch: `size` voxels along each side, 0 for all of the crop without its margin."""

    size: int = Field(default=0, ge=0, le=512)


class Labels(Section):
    """What is learned and what is scored; see `toolkit.evaluation.labels.LabelRule`."""

    source: Literal["label", "rating"] = "label"
    benign_to: float = Field(default=0.5, ge=0, lt=1)
    malignant_from: float = Field(default=0.5, gt=0, le=1)

    @property
    def rule(self) -> LabelRule:
        """The rule itself."""
        return LabelRule(self.source, self.benign_to, self.malignant_from)


class Loss(Section):
    """The loss beside `balance`.

    `pos_weight` is that of a malignant nodule with ``balance = "weight"``; benign to malignant ones when
    absent. `focal_gamma` and `adjust_tau` belong to the balances of their names.
    """

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    pos_weight: float | None = Field(default=None, gt=0)
    focal_gamma: float = Field(default=2.0, ge=0)
    adjust_tau: float = Field(default=1.0, gt=0)


class Optimizer(Section):
    """AdamW: warm-up over `warmup_epochs`, then a cosine down to `final_share` of `lr`.

    Gradients are clipped at a norm of `clip_norm` (0: not); `ema_decay` is that of the averaged weights,
    which validation and the model file use (0: the weights as they are).
    """

    lr: float = Field(default=3e-4, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    warmup_epochs: float = Field(default=1.0, ge=0)
    final_share: float = Field(default=0.01, ge=0, le=1)
    clip_norm: float = Field(default=1.0, ge=0)
    ema_decay: float = Field(default=0.99, ge=0, lt=1)


class Selection(Section):
    """Which epoch is kept and when training ends; see `toolkit.training.stopping`.

    The metric of validation is smoothed over `smoothing` epochs. Training ends after `patience` epochs
    without a gain beyond the noise, not before `min_epochs`. 0 for `patience`: never.
    """

    metric: Metric = "auroc"
    smoothing: int = Field(default=5, ge=1)
    min_epochs: int = Field(default=10, ge=1)
    patience: int = Field(default=15, ge=0)


class Threshold(Section):
    """How the threshold is chosen on validation; see `toolkit.evaluation.thresholds.Goal`.

    `wish` is what you care for; a goal that works against it is explained.
    """

    goal: Literal["sensitivity", "specificity", "balanced_accuracy", "f_beta", "cost"] = "balanced_accuracy"
    at: float = Field(default=0.9, gt=0, lt=1)
    beta: float = Field(default=2.0, gt=0)
    miss_cost: float = Field(default=10.0, gt=0)
    wish: Literal["recall", "precision"] | None = None

    @property
    def rule(self) -> Goal:
        """The goal itself."""
        return Goal(self.goal, self.at, self.beta, self.miss_cost)


class Compute(Section):
    """How it is computed; ``auto`` is decided by device and probes, and told.

    `impl` is how our networks compute the same function: as they are written down, or with less traffic to
    memory (`toolkit.models.fast`); ``auto`` tries both for a few steps on a GPU. `graph` records the whole
    step as one CUDA graph (`toolkit.training.graph`).
    """

    amp: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    compile: Literal[
        "auto", "off", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"
    ] = "auto"
    impl: Literal["auto", "plain", "fast"] = "auto"
    graph: bool = False
    channels_last: bool = True
    threads: int = Field(default=0, ge=0)


class Logging(Section):
    """Where curves go besides ``metrics.jsonl``."""

    tensorboard: bool = True
    wandb: Literal["off", "offline", "online"] = "off"
    wandb_project: str = "toolkit"


class TrainConfig(Section):
    """All settings of a run.

    `batch` is the global batch, `positives` how many of its places the balanced sampler gives to
    malignant nodules (0: half, or all there are). `prevalence` is the one that probabilities refer to
    (absent: that of the training side). `augment` is a table for
    `toolkit.loading.augment.AugmentConfig.from_table`. `force_double_balance` allows, as an experiment,
    what is refused otherwise.
    """

    epochs: int = Field(default=60, ge=1)
    batch: int = Field(default=32, ge=2)
    seed: int = Field(default=0, ge=0, lt=2**63)
    balance: Balance = "sampler"
    positives: int = Field(default=0, ge=0)
    prevalence: float | None = Field(default=None, gt=0, lt=1)
    force_double_balance: bool = False
    model: Model = Model()
    input: Input = Input()
    labels: Labels = Labels()
    augment: dict[str, Any] = {"preset": "default"}
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    selection: Selection = Selection()
    threshold: Threshold = Threshold()
    compute: Compute = Compute()
    logging: Logging = Logging()

    @property
    def augmentation(self) -> AugmentConfig:
        """The augmentation of training; raises `UsageError` E-AUG-001, E-AUG-002."""
        return AugmentConfig.from_table(self.augment)


def from_table(table: Mapping[str, Any]) -> TrainConfig:
    """Return the configuration of a nested table.

    Raises `UsageError` E-CONF-001 with each wrong setting's name, its value and what was expected, E-CONF-002
    where settings contradict each other.
    """
    try:
        config = TrainConfig.model_validate(dict(table))
    except ValidationError as error:
        told = "; ".join(_told(each) for each in error.errors()[:SHOWN])
        raise UsageError(
            Problem("E-CONF-001", "the configuration is wrong", told, "", "Nothing done; correct it")
        ) from error
    if config.labels.benign_to > config.labels.malignant_from:
        measured = f"benign_to {config.labels.benign_to:g}, malignant_from {config.labels.malignant_from:g}"
        problem = Problem("E-CONF-002", "labels overlap", measured, "benign_to at most malignant_from")
        raise UsageError(problem)
    _ = config.augmentation
    return config


def _told(error: Any) -> str:
    name = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"unknown setting {name}"
    return f"{name} = {error['input']!r:.60}: {error['msg'][:1].lower()}{error['msg'][1:]}"


def read_config(
    path: Path | None, sets: Sequence[str] = (), flags: Mapping[str, Any] | None = None
) -> TrainConfig:
    """Return the configuration of a TOML file, then of ``key=value`` texts, then of flags.

    Raises `UsageError` E-CONF-001, E-CONF-002.
    """
    table: dict[str, Any] = {}
    if path is not None:
        try:
            table = tomllib.loads(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            what = "the configuration cannot be read"
            raise UsageError(Problem("E-CONF-001", what, str(error), "TOML", files=(str(path),))) from error
    for text in sets:
        key, sep, value = text.partition("=")
        if not sep or not key.strip():
            raise UsageError(Problem("E-CONF-001", "--set is no key=value", f"{text!r:.60}", "key=value"))
        _put(table, key.strip(), _value(value.strip()))
    for key, value in (flags or {}).items():
        if value is not None:
            _put(table, key, value)
    return from_table(table)


def _value(text: str) -> Any:
    """Read a TOML value; what is none, is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _put(table: dict[str, Any], dotted: str, value: Any) -> None:
    *groups, name = dotted.split(".")
    for group in groups:
        table = table.setdefault(group, {})
        if not isinstance(table, dict):
            raise UsageError(
                Problem("E-CONF-001", f"{group} is no group of settings", dotted, "section.key=value")
            )
    table[name] = value
