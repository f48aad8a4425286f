"""A model folder gives back what was written, or an error with a code."""

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

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


def _truncate(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:-100])


def _flip(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)


def _remove(folder: Path, name: str) -> None:
    (folder / name).unlink()


def _be_a_folder(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()


def _be_a_pipe(folder: Path, name: str) -> None:
    """Reading it would wait for ever."""
    (folder / name).unlink()
    os.mkfifo(folder / name)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
@pytest.mark.parametrize("spoil", [_truncate, _flip, _remove, _be_a_folder, _be_a_pipe])
def test_damage_is_refused_by_name(folder: Path, name: str, spoil: Callable[[Path, str], None]) -> None:
    spoil(folder, name)
    with pytest.raises(UsageError, match="E-MODEL-002") as told:
        load_model(folder)
    assert told.value.problem.files == (str(folder / name),)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null\n",
        b"[1]\n",
        b'{"digest": NaN}\n',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe\n",
        b'{"a":' + b"9" * 5000 + b"}\n",
        b" " * (16 * 2**20 + 1),
    ],
    ids=["empty", "null", "list", "nan", "deep list", "deep table", "no text", "long number", "long"],
)
def test_what_is_no_model_file_is_refused(folder: Path, data: bytes) -> None:
    (folder / "model.json").write_bytes(data)
    assert code(folder) == "E-MODEL-002"


def _set(*keys: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(value: dict[str, Any]) -> None:
        for key in keys[:-1]:
            value = value[key]
        value[keys[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_set("format", to=2), "E-MODEL-002"),
        (_set("format", to="1"), "E-MODEL-002"),
        (_set("files", to=None), "E-MODEL-002"),
        (_set("files", to={"model.safetensors": 3}), "E-MODEL-002"),
        (_set("prior", to="half"), "E-MODEL-002"),
        (_set("prior", to=1.0), "E-MODEL-002"),
        (_set("prior", to=True), "E-MODEL-002"),
        (_set("prior", to=None), "E-MODEL-002"),
        (_set("prevalence", to=-0.1), "E-MODEL-002"),
        (_set("calibration", "slope", to=-1.0), "E-MODEL-002"),
        (_set("calibration", "method", to="isotonic"), "E-MODEL-002"),
        (_set("goal", "name", to="luck"), "E-MODEL-002"),
        (_set("labels", "source", to=[]), "E-MODEL-002"),
        (_set("input", "size", to=32.5), "E-MODEL-002"),
        (_set("input", "spacing_mm", to=0.0), "E-MODEL-002"),
        (_set("input", "channels", to=0), "E-MODEL-002"),
        (_set("input", "window_hu", to=[1.0]), "E-MODEL-002"),
        (_set("seen", to={"diameter_mm": [1, 2, 3, 4, 5]}), "E-MODEL-002"),
        (_set("architecture", to="densenet121"), "E-MODEL-002"),
        (_set("measured", to={"volume": [1.0, 2.0]}), "E-MODEL-002"),
        (_set("input", "measured", to=["volume"]), "E-MODEL-002"),
        (_set("input", "measured", to=["texture"]), "E-MODEL-004"),
        (_set("members", to=["../model"]), "E-MODEL-002"),
        (_set("members", to=["a/b"]), "E-MODEL-002"),
        (_set("members", to=[".."]), "E-MODEL-002"),
        (_set("members", to=["/etc"]), "E-MODEL-002"),
        (_set("members", to=["a\\b"]), "E-MODEL-002"),
        (_set("members", to=["a\x00"]), "E-MODEL-002"),
        (_set("members", to=["."]), "E-MODEL-002"),
        (_set("members", to=["absent"]), "E-MODEL-002"),
        (_set("members", to=["a", "a"]), "E-MODEL-002"),
        (_set("architecture", to={}), "E-MODEL-001"),
        (_set("architecture", "name", to=7), "E-MODEL-001"),
        (_set("architecture", "name", to="densenet-huge"), "E-MODEL-001"),
        (_set("architecture", "options", to=["x"]), "E-MODEL-002"),
        (_set("architecture", "options", to={"blocks": [10**9]}), "E-MODEL-001"),
        (_set("architecture", "options", to={"forward": "x"}), "E-MODEL-001"),
        (_set("architecture", "dropout", to="much"), "E-MODEL-001"),
        (_set("architecture", "dropout", to=2.0), "E-MODEL-001"),
        (_set("architecture", "stem_stride", to=0), "E-MODEL-001"),
        (_set("architecture", "options", to={"blocks": [64, 64, 64], "growth": 4096}), "E-MODEL-003"),
        (_set("architecture", "name", to="densenet121"), "E-MODEL-003"),
        (_set("input", "channels", to=2), "E-MODEL-003"),
        (_set("input", "channels", to=10**12), "E-MODEL-001"),
        (_set("architecture", "name", to="os:system"), "E-MODEL-005"),
        (_set("architecture", "name", to="subprocess:Popen"), "E-MODEL-005"),
        (_set("architecture", "name", to="monai_evil:Net"), "E-MODEL-005"),
        (_set("architecture", "name", to="torch.hub:load"), "E-MODEL-005"),
        (_set("architecture", "name", to="torch.nn:init"), "E-MODEL-001"),
        (_set("architecture", "name", to="toolkit.store:Store"), "E-MODEL-001"),
        (
            _set("architecture", to={"name": "monai.networks.nets:HoVerNet",
                                     "options": {"pretrained_url": "http://localhost:9"}}),
            "E-MODEL-005",
        ),
    ],
)  # fmt: skip
def test_a_hostile_model_file_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], None], expected: str
) -> None:
    """Sealed anew, so that every digest is right."""
    rewrite(folder, change)
    assert code(folder) == expected


def test_an_imported_network_needs_to_be_allowed(tmp_path: Path) -> None:
    name = "tests.models.foreign_network:Net"
    file = replace(FILE, architecture={"name": name, "options": {"width": 3}})
    sys.modules.pop("tests.models.foreign_network", None)
    write_model(tmp_path / "model", file, build(name, 1, {"width": 3}).state_dict())
    sys.modules.pop("tests.models.foreign_network", None)
    assert code(tmp_path / "model") == "E-MODEL-005"
    assert "tests.models.foreign_network" not in sys.modules  # nothing of it ran
    _, model = load_model(tmp_path / "model", allow_import=True)
    assert model(torch.rand(2, 1, 8, 8, 8), None).shape == (2,)


def header(text: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04N.",
        header(b"{}", length=2**63),
        header(b"{" * 10_000),
        header(b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'),
        header(b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', b"1234"),
        header(b'{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}', b"1234"),
        header(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', b"1234"),
        header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}', b"1234"),
    ],
    ids=["empty", "pickle", "length", "depth", "size", "shape", "type", "short", "order"],
)
def test_hostile_weights_are_refused(folder: Path, data: bytes) -> None:
    reweigh(folder, data)
    assert code(folder) == "E-MODEL-002"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: s.pop("features.norm0.bias"), r"no features\.norm0\.bias, float32 \(16,\) expected"),
        (lambda s: s.update({"x": torch.ones(2)}), r"x float32 \(2,\), no such key expected"),
        (
            lambda s: s.update({"class_layers.out.bias": torch.ones(2)}),
            r"class_layers\.out\.bias float32 \(2,\), float32 \(1,\) expected",
        ),
        (
            lambda s: s.update({"class_layers.out.bias": torch.ones(1).half()}),
            r"class_layers\.out\.bias float16 \(1,\), float32 \(1,\) expected",
        ),
        (
            lambda s: s.update({"class_layers.out.bias": torch.tensor([torch.inf])}),
            r"no numbers: class_layers\.out\.bias",
        ),
    ],
    ids=["missing", "unexpected", "shape", "type", "infinite"],
)
def test_weights_that_do_not_fit_are_refused_by_key(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], None], told: str
) -> None:
    state = network().state_dict()
    change(state)
    reweigh(folder, save({name: value.contiguous() for name, value in state.items()}))
    with pytest.raises(UsageError, match=f"E-MODEL-003 .*{told}"):
        load_model(folder)


def test_a_model_of_monai_with_options_comes_back(tmp_path: Path) -> None:
    options = {"block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [4, 8, 8, 8], "spatial_dims": 3,
               "n_input_channels": 1, "num_classes": 1}  # fmt: skip
    file = replace(FUSED, architecture={"name": "monai.networks.nets:ResNet", "options": options})
    before = build("monai.networks.nets:ResNet", 1, options, measured=("volume", "diameter")).eval()
    torch.nn.init.normal_(before.measured.weight)
    write_model(tmp_path / "model", file, before.state_dict())
    random = torch.get_rng_state()
    _, model = load_model(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), random)
    image, measured = torch.rand(2, 1, 32, 32, 32), torch.randn(2, 2)
    assert torch.equal(model(image, measured), before(image, measured))


def test_a_model_folder_is_read_without_torch(folder: Path) -> None:
    shown = "import sys; from toolkit.models.folder import read_model_file as r; r(sys.argv[1]); "
    shown += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", shown, folder], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_killed_writer_leaves_the_old_model(folder: Path) -> None:
    """A process that dies with the new folder half written, and one that follows it."""
    code = (
        "import os, sys; from pathlib import Path; from toolkit.store.files import new_folder\n"
        "with new_folder(Path(sys.argv[1])) as half:\n"
        "    (half / 'model.json').write_text('x'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, folder], check=False).returncode == 9
    assert folder.with_name("model.tmp").is_dir()
    assert load_model(folder)[0] == FILE
    write_model(folder, replace(FILE, threshold=2.0), network().state_dict())
    assert load_model(folder)[0].threshold == 2.0
    assert [*folder.parent.iterdir()] == [folder]


def test_a_folder_is_replaced_where_names_cannot_be_exchanged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.store.files._exchange", lambda one, other: False)
    write_model(folder, replace(FILE, threshold=2.0), network().state_dict())
    assert load_model(folder)[0].threshold == 2.0
    assert [*folder.parent.iterdir()] == [folder]
