"""The configuration round-trips through TOML and JSON, and refuses what makes no sense."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from raytrace_face.cli import settings_of
from raytrace_face.config import CHOICES, RANGES, Config
from raytrace_face.errors import InputError


def test_dictionary_round_trip_through_json():
    config = Config(quality="high", seed=7, face=1, iterations=3)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_toml_sets_what_it_names_and_keeps_the_rest(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('quality = "preview"\n[light]\nmax_lights = 2\nangular_radius_deg = 8\n')
    config = Config.from_toml(file)
    light = replace(Config().light, max_lights=2, angular_radius_deg=8.0)
    assert config == replace(Config(), quality="preview", light=light)


def test_options_win_over_the_file_and_silence_keeps_it(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('quality = "preview"\nseed = 4\n[light]\nshadows = true\n')
    config = settings_of(file, {"seed": 9, "quality": None}, no_shadows=True)
    assert (config.quality, config.seed, config.light.shadows) == ("preview", 9, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("qualty = 'high'", "did you mean 'quality'"),
        ("[light]\nmax_light = 2", "did you mean 'light.max_lights'"),
        ("light = 3", "must be a table"),
        ("seed = 'a'", "must be a int"),
        ("seed = true", "must be a int"),
        ("seed = ", "not valid TOML"),
        ("quality = 'best'", "preview, standard, high"),
        ("device = 'gpu'", "auto, llvm, cuda"),
        ("[light]\nmax_lights = 0", r"must lie in \[1, 20\]"),
        ("[stage1]\nsize = 4096", r"must lie in \[32, 512\]"),
        ("[stage2]\nsmoothness = nan", "must lie in"),
    ],
)
def test_a_wrong_file_is_one_clear_line(tmp_path, text, message):
    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        settings_of(file, {})
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.toml"):
        Config.from_toml(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("quality", ["preview", "standard", "high"])
def test_every_quality_is_valid_and_settled(quality):
    """What `resolved` returns is inside every documented range, and costs grow with quality."""
    config = Config(quality=quality).resolved()
    for name, (low, high) in RANGES.items():
        value: object = config
        for part in name.split("."):
            value = getattr(value, part)
        assert value is None or low <= value <= high, name  # type: ignore[operator]
    costs = [Config(quality=q).resolved().stage2.iterations for q in ("preview", "standard", "high")]  # type: ignore[arg-type]
    assert costs == sorted(costs)


def test_iterations_override_both_stages():
    config = Config(iterations=5).resolved()
    assert config.stage1.montecarlo_iterations == config.stage2.iterations == config.montecarlo.stage1_iterations == 5


def test_defaults_are_among_the_choices():
    for name, choices in CHOICES.items():
        value: object = Config()
        for part in name.split("."):
            value = getattr(value, part)
        assert value in choices
