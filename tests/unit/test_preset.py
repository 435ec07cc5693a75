"""Rationale: a preset is data; what it says about strength and direction must be what the lights do."""

from __future__ import annotations

import numpy as np
import pytest

from lightstage import preset
from lightstage.environment import latlong_directions, sh_basis
from lightstage.rig import triangle_form_factor

EXPECTED = {"butterfly", "loop", "overcast", "rembrandt", "rim", "split", "sunset"}


def test_photographers_names_are_there():
    assert set(preset.names()) >= EXPECTED


@pytest.mark.parametrize("name", preset.names())
def test_lights_stand_and_shine_as_the_file_says(name):
    lights, _ = preset.load(name)
    written = preset.read(name)["lights"]
    assert lights.corners.shape == (len(written), 3, 3)
    for corners, radiance, light in zip(lights.corners, lights.radiance, written, strict=True):
        middle = corners.mean(axis=0)
        towards = preset.direction(light["azimuth_deg"], light["elevation_deg"])
        assert middle / np.linalg.norm(middle) == pytest.approx(towards, abs=1e-9)
        # the form factor of the centre is exact bookkeeping: directional_lights divides by the same one
        assert radiance * triangle_form_factor(corners[None])[0] == pytest.approx(light["irradiance"], rel=1e-9)


@pytest.mark.parametrize("name", preset.names())
def test_surroundings_are_never_negative_and_as_bright_as_written(name):
    _, ambient = preset.load(name)
    assert ambient.shape == (9, 3)
    written = preset.read(name)
    radiance = sh_basis(latlong_directions(32)) @ ambient
    assert radiance.min() >= -1e-9
    up, down = sh_basis(np.array([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])) @ ambient
    sky = np.array(written.get("sky", [0.0, 0.0, 0.0]))
    assert up == pytest.approx(np.array(written["ambient"]) + sky, abs=1e-9)
    assert down == pytest.approx(written["ambient"], abs=1e-9)


@pytest.mark.parametrize("name", preset.names())
def test_a_face_is_neither_black_nor_burnt(name):
    """Irradiance / pi over the front of a convex head, without shadows, stays within a photo's range."""
    lights, ambient = preset.load(name)
    normals = latlong_directions(16).reshape(-1, 3)
    normals = normals[normals[:, 2] > 0.5]
    middle = lights.corners.mean(axis=1)
    towards = middle / np.linalg.norm(middle, axis=1, keepdims=True)
    strength = lights.radiance * triangle_form_factor(lights.corners)[:, None]
    direct = np.maximum(normals @ towards.T, 0) @ strength
    band = np.array([1.0] + [2 / 3] * 3 + [1 / 4] * 5)  # Ramamoorthi & Hanrahan 2001, eq. 8, over pi
    mean = (direct + (sh_basis(normals) * band) @ ambient).mean(axis=0)
    assert mean.min() > 0.1
    assert mean.max() < 1.5


def test_unknown_preset_names_those_there_are():
    with pytest.raises(ValueError, match="rembrandt"):
        preset.load("rembrant")


def test_directions():
    assert preset.direction(0, 0) == pytest.approx([0, 0, 1])
    assert preset.direction(90, 0) == pytest.approx([1, 0, 0], abs=1e-12)
    assert preset.direction(0, 90) == pytest.approx([0, 1, 0], abs=1e-12)
