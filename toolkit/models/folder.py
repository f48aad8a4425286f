"""The folder in which a trained model is kept: ``model.safetensors`` and ``model.json``, data only.

A single model::

    model/model.json          all of `ModelFile`
    model/model.safetensors   the weights (EMA, at the selected epoch)

An ensemble::

    model/model.json          `ModelFile` with ``members``; its raw logit is the mean of their calibrated
                              logits at `plain_prior`; its own calibration has the method ``none``
    model/<member>/...        single models

``model.json`` is one sealed line: it ends with the digest of the rest of it, and ``files`` holds the digest
of the weights, or of each member's ``model.json``. A folder is written beside its place and put there in one
step.

A folder may come from anybody. Nothing in it is executed, and an import path in it is followed only into
networks of trusted packages (`toolkit.models.trust`), unless the caller allows it, since importing a module
runs its code. What such a network allocates for its options is bounded by the machine alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import StoreError
from toolkit.evaluation.calibration import Calibration
from toolkit.evaluation.labels import LabelRule
from toolkit.evaluation.results import to_json
from toolkit.evaluation.thresholds import Goal
from toolkit.models.measured import check_features
from toolkit.models.trust import check_architecture, check_member, read_regular, refuse
from toolkit.store.files import new_folder, sync_folder, write_synced
from toolkit.store.format import canonical_json, digest, sealed, unseal

if TYPE_CHECKING:
    import torch

FORMAT_VERSION = 1
JSON, WEIGHTS = "model.json", "model.safetensors"
JSON_LIMIT = 16 * 2**20  # bytes; a real one takes a few thousand


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
        ``name``, ``options``, ``dropout`` and ``stem_stride`` for `toolkit.models.registry.build`, which has
        the rest from `input`; empty for an ensemble.
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
    measured
        (center, scale) of each measured feature, by name (`toolkit.models.measured.Scaling`).
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
    measured: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    format: int = FORMAT_VERSION


def write_model(path: str | Path, file: ModelFile, state: Mapping[str, "torch.Tensor"]) -> None:
    """Write a single model, replacing what lies at `path` in one step.

    What could not be loaded again is not written. Raises `UsageError` E-MODEL-002, E-MODEL-003, and
    `ResourceError` E-DISK-001.
    """
    from toolkit.models.weights import to_bytes

    data = to_bytes(state)
    with new_folder(Path(path)) as folder:
        write_synced(folder / WEIGHTS, data)
        _write(folder, file, {WEIGHTS: digest(data)})
        load_model(folder, allow_import=True)


def write_ensemble(path: str | Path, file: ModelFile, members: Mapping[str, Path]) -> None:
    """Write an ensemble: copies of model folders, under the names in ``file.members``.

    Raises as `write_model` does.
    """
    with new_folder(Path(path)) as folder:
        digests = {}
        for name in file.members:
            check_member(name, folder)
            (folder / name).mkdir()
            for part in (JSON, WEIGHTS):
                write_synced(folder / name / part, read_regular(members[name] / part))
            sync_folder(folder / name)
            digests[name] = digest(read_regular(folder / name / JSON))
        _write(folder, file, digests)
        load_members(folder, allow_import=True)


def read_model_file(path: str | Path) -> ModelFile:
    """Return what a model folder says of its model, checked; weights are not read.

    Raises `UsageError` E-MODEL-002 where it is missing, damaged, of another version or not to be believed,
    E-MODEL-004 where a measured feature is unknown.
    """
    return _read(Path(path))[0]


def load_model(
    path: str | Path, device: "str | torch.device" = "cpu", *, allow_import: bool = False
) -> tuple[ModelFile, "torch.nn.Module"]:
    """Return a single model in eval mode; torch's random stream is left as it was.

    `allow_import` follows an import path into any package. Raises as `read_model_file` does, and
    `UsageError` E-MODEL-001 where the network cannot be built, E-MODEL-003 where weights do not fit it or are
    no numbers, E-MODEL-005 where code or data from elsewhere would be needed.
    """
    from toolkit.models.weights import built, from_bytes

    path = Path(path)
    file, digests = _read(path)
    if file.members:
        refuse(path, "an ensemble is no single model", f"{len(file.members)} members", "one model")
    if not allow_import:
        check_architecture(file.architecture, path)
    data = read_regular(path / WEIGHTS)
    if digest(data) != digests.get(WEIGHTS):
        refuse(path / WEIGHTS, "damaged weights", "a digest other than that in model.json")
    return file, built(file, from_bytes(data, path / WEIGHTS), path / WEIGHTS).to(device)


def load_members(
    path: str | Path, device: "str | torch.device" = "cpu", *, allow_import: bool = False
) -> tuple[ModelFile, tuple[tuple[ModelFile, "torch.nn.Module"], ...]]:
    """Return what a folder says and its members, as `load_model` does; a single model is its one member."""
    path = Path(path)
    file, digests = _read(path)
    if not file.members:
        return file, (load_model(path, device, allow_import=allow_import),)
    for name in file.members:
        if digest(read_regular(path / name / JSON, JSON_LIMIT)) != digests.get(name):
            refuse(path / name / JSON, "a damaged member", "a digest other than that in the ensemble's file")
    return file, tuple(load_model(path / name, device, allow_import=allow_import) for name in file.members)


def _write(folder: Path, file: ModelFile, digests: Mapping[str, str]) -> None:
    write_synced(folder / JSON, sealed({**to_json(file), "files": dict(digests)}))


def _read(path: Path) -> tuple[ModelFile, Mapping[str, str]]:
    """Return ``model.json`` and the digests in it."""
    from pydantic import TypeAdapter, ValidationError

    place = path / JSON
    try:
        value = unseal(read_regular(place, JSON_LIMIT), place)
    except StoreError as error:
        refuse(place, "a damaged model file", "a digest that does not match", cause=error)
    if value.get("format") != FORMAT_VERSION:
        refuse(place, "a model of another format", f"{value.get('format')!r:.40}", str(FORMAT_VERSION))
    try:
        digests = TypeAdapter(dict[str, str]).validate_python(value.pop("files", None), strict=True)
        file = TypeAdapter(ModelFile).validate_json(canonical_json(value), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:100]
        refuse(place, "a wrong model file", f"{where}: {first['msg'][:100]}", cause=error)
    _check(file, place)
    return file, digests


def _check(file: ModelFile, place: Path) -> None:
    """Refuse numbers that no training gives."""
    shares = {"prior": file.prior, "plain_prior": file.plain_prior, "prevalence": file.prevalence}
    shares["calibration.prevalence"] = file.calibration.prevalence
    wrong = [name for name, share in shares.items() if not 0 < share < 1]
    above = {"calibration.slope": file.calibration.slope, "input.spacing_mm": file.input.spacing_mm}
    above |= {"input.size": file.input.size, "input.channels": file.input.channels}
    wrong += [name for name, number in above.items() if not number > 0]
    wrong += [f"measured.{name}.scale" for name, (_, scale) in file.measured.items() if not scale > 0]
    if not isinstance(file.architecture.get("options", {}), dict):
        wrong.append("architecture.options")
    if wrong:
        refuse(place, "a wrong model file", f"{wrong[0][:100]} is out of range")
    check_features(file.input.measured)
    if {*file.input.measured} != {*file.measured}:
        refuse(place, "a wrong model file", "measured features without center and scale, or the reverse")
    if len({*file.members}) != len(file.members):
        refuse(place, "a wrong model file", "two members of one name")
    for name in file.members:
        check_member(name, place.parent)
