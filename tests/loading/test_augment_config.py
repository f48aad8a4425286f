"""Settings: what a TOML table may say, and what is refused by name."""

import tomllib

import pytest

from toolkit.errors import UsageError
from toolkit.loading.augment import PRESETS, AugmentConfig, Probability, margin_voxels, preset


def test_a_table_overrides_a_preset():
    text = """
        preset = "default"
        rotation_degrees = 5
        window_hu = [-1350, 150]
        mask_mode = "soft"
        [probability]
        noise = 0.25
    """
    config = AugmentConfig.from_table(tomllib.loads(text))
    assert config.rotation_degrees == 5
    assert config.window_hu == (-1350, 150)
    assert config.mask_mode == "soft"
    assert config.probability == Probability(noise=0.25, gamma=0.5)
    assert config.shift_mm == preset("default").shift_mm
    assert AugmentConfig.from_table({}) == PRESETS["none"] == AugmentConfig()
    assert AugmentConfig.from_table({"window_hu": False}).window_hu is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rotation_degrees", -1), ("rotation_degrees", 181), ("rotation_degrees", float("nan")),
        ("rotation_degrees", "much"), ("rotation_degrees", True), ("scale", [0, 1]), ("scale", [1.2, 0.9]),
        ("scale", 1.1), ("anisotropic_scale", 0.9), ("shear", 0.6), ("flip_probability", [0.5, 0.5]),
        ("flip_probability", [0.5, 0.5, 1.5]), ("shift_mm", -0.1), ("elastic_amplitude_mm", 1),
        ("window_hu", [400, -1000]), ("window_hu", [0, 0]), ("window_jitter_hu", -1),
        ("window_jitter_hu", 700), ("gamma", [0, 1]), ("gain", [1]), ("bias", [0, float("inf")]),
        ("noise_sigma", [-0.1, 0.1]), ("mask_mode", "sharp"), ("edge_mm", 2), ("preset", "wild"),
        ("probability", 0.5),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_name(field, value):
    with pytest.raises(UsageError, match=rf"E-AUG-001 setting {field}"):
        AugmentConfig.from_table({field: value})


def test_what_only_a_window_allows_is_refused_without_one():
    for more in ({"gamma": [0.9, 1.1]}, {"window_jitter_hu": 5}):
        with pytest.raises(UsageError, match=f"E-AUG-001 setting {next(iter(more))}"):
            AugmentConfig.from_table({"window_hu": False} | more)


def test_unknown_names_and_wrong_probabilities_are_refused():
    with pytest.raises(UsageError, match="E-AUG-002 unknown setting rotation: one of rotation_degrees"):
        AugmentConfig.from_table({"rotation": 5})
    with pytest.raises(UsageError, match=r"E-AUG-002 unknown setting probability\.flip"):
        AugmentConfig.from_table({"probability": {"flip": 0.5}})
    with pytest.raises(UsageError, match=r"E-AUG-001 setting probability\.noise"):
        AugmentConfig.from_table({"probability": {"noise": 2}})


def test_margins_grow_with_what_may_happen():
    assert margin_voxels(AugmentConfig(), 64, 0.7) == 0
    assert margin_voxels(AugmentConfig(shift_mm=2), 64, 0.5) == 4
    assert margin_voxels(AugmentConfig(scale=(0.5, 1)), 64, 1) == 32
    turned = margin_voxels(AugmentConfig(rotation_degrees=180), 64, 1)
    assert turned == margin_voxels(AugmentConfig(rotation_degrees=90), 64, 1) == 24  # 32 (sqrt(3) - 1) = 23.4
