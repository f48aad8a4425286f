"""The self-test is no looser than it must be, and a planted wrong result is caught."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from kernels import extract, oracle
from kernels.augment import augment
from tests import tolerances, tolerances_augment
from tests.doctor.machines import SOUND
from toolkit.doctor import try_kernels, try_training
from toolkit.doctor.report import worst
from toolkit.doctor.selftest import Trial, attempt, self_test, trials
from toolkit.doctor.try_kernels import SIZE, WrongError, bricks, patches, try_augmentation, try_extraction
from toolkit.training.precision import Decision


def test_bounds_of_extraction_are_the_derived_ones() -> None:
    packed = bricks()
    derived = [tolerances.extraction(packed, b, SIZE) for b in range(3)]
    hu, share = (0.5 + max(part[k].max() for part in derived) for k in (0, 1))
    assert hu <= try_kernels.HU_ERROR <= 0.5 + 2 * (hu - 0.5)
    assert share <= try_kernels.OCCUPANCY_ERROR <= 0.5 + 2 * (share - 0.5)
    assert not oracle.extract(packed, SIZE)[2].any()
    assert not any(tolerances.undecided(packed, b, SIZE).any() for b in range(3))


@pytest.mark.parametrize("elastic", [True, False])
def test_bound_of_augmentation_is_the_derived_one(elastic: bool) -> None:
    images, _, table = patches(elastic=elastic)
    derived = max(tolerances_augment.augmented(images[k], table, k)[0].max() for k in range(2))
    assert derived <= try_kernels.VALUE_ERROR
    if elastic:
        assert 2 * derived >= try_kernels.VALUE_ERROR


def test_right_results_pass() -> None:
    assert "HU" in try_extraction(extract)
    assert "off at most" in try_augmentation(augment)


def one_voxel(image: np.ndarray) -> np.ndarray:
    image[1, 3, 4, 5] += 1 if image[1, 3, 4, 5] < 0 else -2
    return image


WRONG: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "one voxel": one_voxel,
    "an axis flipped": lambda image: image[:, ::-1],
    "a brick for another": lambda image: image[::-1],
    "nothing written": np.zeros_like,
    "not a number": lambda image: np.where(image == image.max(), np.nan, image.astype(float)),
}


@pytest.mark.parametrize("how", WRONG)
def test_a_planted_error_in_extraction_is_caught(how: str) -> None:
    def planted(packed, size):
        image, occupancy = extract(packed, size)
        return WRONG[how](image), occupancy

    with pytest.raises(WrongError):
        try_extraction(planted)


def test_a_planted_error_in_the_occupancy_is_caught() -> None:
    def planted(packed, size):
        image, occupancy = extract(packed, size)
        return image, np.where(occupancy > 250, 250, occupancy)

    with pytest.raises(WrongError):
        try_extraction(planted)


COLUMNS = {
    "gamma": 1.004,
    "gain": 1.001,
    "bias": 1.02,
    "noise_sigma": 1.01,
    "low_hu": 1.001,
    "matrix": 1.0001,
}


@pytest.mark.parametrize("column", COLUMNS)
def test_each_parameter_that_is_a_little_off_is_caught(column: str) -> None:
    def planted(images, masks, table):
        changed = getattr(table, column) * np.float32(COLUMNS[column])
        return augment(images, masks, replace(table, **{column: changed}))

    with pytest.raises(WrongError):
        try_augmentation(planted)


def test_a_mask_mode_and_noise_of_another_key_are_caught() -> None:
    for change in ({"mask_mode": "hard"}, {"noise_key": np.array([8, 9], np.uint64)}):
        with pytest.raises(WrongError):
            try_augmentation(lambda i, m, table, change=change: augment(i, m, replace(table, **change)))


@pytest.mark.parametrize("amp", ["float32", "bfloat16", "float16"])
def test_a_training_step_in_each_type(amp: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On maps of 3^3 voxels and more, where this torch gets bfloat16 right on a CPU."""
    monkeypatch.setattr(try_training, "decide", lambda *_: Decision(amp, "off", ""))
    assert try_training.try_step("cpu").startswith(amp)


def test_gradients_of_another_loss_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.training import learner

    right = learner.objective
    for factor in (1.02, -1.0, float("nan")):
        with monkeypatch.context() as patched:
            patched.setattr(learner, "objective", lambda *a, f=factor: f * right(*a))
            patched.setattr(try_training, "decide", lambda *_: Decision("float32", "off", ""))
            with pytest.raises(WrongError):
                try_training.try_step("cpu")


def test_difference_is_that_of_numpy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 7))
    found = try_training.difference([torch.tensor(a)], [torch.tensor(b)])
    assert found == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(b))


def raises(error: Exception) -> Callable[[], str]:
    def run() -> str:
        raise error

    return run


def test_whatever_is_raised_becomes_a_finding_without_a_path() -> None:
    broken = raises(OSError("/home/somebody/lib.so: cannot open shared object file"))
    found = attempt(Trial("a", broken, fix="do this"))
    assert (found.status, found.found, found.fix) == ("failed", "ended with OSError", "do this")
    found = attempt(Trial("a", raises(ModuleNotFoundError("No module", name="cupy")), used=False))
    assert (found.status, found.found) == ("trap", "ended with ModuleNotFoundError of cupy")
    wrong = attempt(Trial("a", raises(WrongError("2 HU off"))))
    assert (wrong.status, wrong.found) == ("failed", "2 HU off")
    assert attempt(Trial("a", broken, skip="no GPU")).status == "ok"


def test_what_is_tried_follows_the_facts() -> None:
    on_gpu = {each.name: each for each in trials(SOUND, compiled=True)}
    assert not any(each.skip for each in on_gpu.values())
    assert [name for name, each in on_gpu.items() if not each.used] == ["DALI pipeline"]
    bare = replace(
        SOUND,
        chosen=replace(SOUND.chosen, device="cpu", why_no_gpu="0 devices", compile="off"),
        torch=replace(SOUND.torch, error="OSError", sees_gpu=False),
        software=replace(SOUND.software, versions={}),
    )
    skipped = [each.name for each in trials(bare, compiled=True) if each.skip]
    assert len(skipped) == 5
    assert not any(name.startswith("CPU") for name in skipped)


def test_a_wrong_kernel_fails_the_self_test_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import kernels
    from toolkit.doctor.software import gather

    facts = gather()
    assert worst(self_test(facts, compiled=False)) == "ok"

    def planted(packed, size):
        image, occupancy = extract(packed, size)
        return one_voxel(image), occupancy

    monkeypatch.setattr(kernels, "extract", planted)
    failed = [each for each in self_test(facts, compiled=False) if each.status == "failed"]
    assert [each.name for each in failed] == ["CPU extraction kernel"]
