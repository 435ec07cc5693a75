"""Rationale: light may change its form (harmonics, map, stage), never its amount."""

from __future__ import annotations

import numpy as np
import pytest

from lightstage import environment as env
from lightstage.rig import StageLights, geodesic, rig

EXACT = 1e-9
"""Double precision on numbers of order one."""


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_harmonics_are_orthonormal():
    # midpoint rule on 128 x 256 pixels with exact solid angles: error of order (pi / 128)^2 / 6 = 1e-4
    height = 128
    basis = env.sh_basis(env.latlong_directions(height)).reshape(-1, 9)
    weight = np.broadcast_to(env.latlong_solid_angles(height), (height, 2 * height)).reshape(-1)
    assert basis.T @ (basis * weight[:, None]) == pytest.approx(np.eye(9), abs=5e-4)


def test_solid_angles_of_a_map_add_up_to_the_sphere():
    assert env.latlong_solid_angles(33).sum() * 66 == pytest.approx(4 * np.pi, rel=EXACT)
    assert np.linalg.norm(env.latlong_directions(8), axis=-1) == pytest.approx(1, abs=EXACT)


def test_ambient_lobes_are_exactly_spherical_harmonics(rng):
    axes = geodesic(0).vertices
    directions = rng.normal(size=(200, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    # a lobe is a quadratic polynomial: the least squares are exact to rounding, away from the fitted points too
    assert env.sh_basis(directions) @ env.lobe_sh(axes).T == pytest.approx(env.lobes(directions, axes), abs=EXACT)
    assert env.lobes(directions, axes).min() >= 0


def test_lobe_integrates_to_a_third_of_the_sphere():
    # int ((1 + cos) / 2)^2 dw = 4 pi / 3; the band-0 coefficient is that times Y_00
    coefficients = env.lobe_sh(np.array([[0.0, 1, 0]]))
    assert coefficients[0, 0] == pytest.approx(4 * np.pi / 3 * 0.28209479177387814, rel=EXACT)


def test_map_to_harmonics_and_back(rng):
    # a positive order-2 light survives the round trip; midpoint rule at 64 rows is good to (pi / 64)^2 / 6 = 4e-4
    coefficients = 0.1 * rng.normal(size=(9, 3))
    coefficients[0] = 3
    image = env.sh_to_latlong(coefficients, 64)
    assert image.min() > 0
    assert env.latlong_to_sh(image) == pytest.approx(coefficients, abs=2e-3)


def test_map_to_stage_conserves_flux(rng):
    image = rng.random((24, 48, 3))
    flux = (image * env.latlong_solid_angles(24)[..., None]).sum((0, 1))
    stage = env.latlong_to_stage(image, rig("icosahedron").face_directions)
    # every pixel goes to exactly one light: rounding only
    assert stage.sum(0) * np.pi == pytest.approx(flux, rel=EXACT)


def test_a_bright_spot_goes_to_the_light_beside_it():
    directions = rig("icosahedron").face_directions
    image = np.zeros((32, 64, 3))
    pixels = env.latlong_directions(32)
    row, column = np.unravel_index(np.argmax(pixels @ directions[7]), (32, 64))
    image[row, column] = 1
    strength = env.latlong_to_stage(image, directions)[:, 0]
    assert np.flatnonzero(strength).tolist() == [7]


@pytest.mark.parametrize("area", [0.3, 1e-5])
def test_stage_to_map_conserves_flux(rng, area):
    """Large lights cover pixels, those smaller than a pixel (3 degrees) are spread over one."""
    own = rig("icosahedron")
    lights = StageLights(
        own, np.full(20, 2.0), np.full(20, area), np.full((20, 2), 1 / 3), rng.uniform(0.1, 1, (20, 3))
    )
    corners, radiance = lights.corners_mm(), lights.radiance()
    omega = np.array([env.triangle_solid_angle(c) for c in corners])
    image = env.stage_to_latlong(corners, radiance, 64)
    flux = (image * env.latlong_solid_angles(64)[..., None]).sum((0, 1))
    assert flux == pytest.approx(omega @ radiance, rel=EXACT)


def test_stage_shines_in_the_map_where_it_stands(rng):
    own = rig("icosahedron")
    for k in (0, 7, 13):
        intensity = np.zeros((20, 3))
        intensity[k] = 1
        lights = StageLights(own, np.full(20, 1.0), np.full(20, 0.2), np.full((20, 2), 1 / 3), intensity).area_lights()
        image = env.stage_to_latlong(lights.corners, lights.radiance, 64)[..., 0]
        weighted = image * env.latlong_solid_angles(64)
        middle = (env.latlong_directions(64) * weighted[..., None]).sum((0, 1))
        cosine = middle @ own.face_directions[k] / np.linalg.norm(middle)
        # centroid of whole pixels of 2.8 degrees: half a pixel
        assert np.degrees(np.arccos(min(cosine, 1))) < 1.4


def test_faces_of_a_closed_solid_fill_the_sphere():
    corners = rig("icosahedron").face_corners
    assert sum(env.triangle_solid_angle(c) for c in corners) == pytest.approx(4 * np.pi, rel=EXACT)


def test_octant_has_half_pi_steradians():
    assert env.triangle_solid_angle(np.eye(3)) == pytest.approx(np.pi / 2, rel=EXACT)


def test_map_convention_is_mitsuba_s(mi):
    """A bright pixel of the map is seen by Mitsuba's `envmap` in the direction that `latlong_directions` says."""
    height = 32
    directions = env.latlong_directions(height)
    for row, column in ((3, 5), (16, 40), (25, 63), (10, 32)):
        image = np.zeros((height, 2 * height, 3), np.float32)
        image[row, column] = 1
        emitter = mi.load_dict({"type": "envmap", "bitmap": mi.Bitmap(image)})
        si = mi.SurfaceInteraction3f()
        si.wi = -mi.Vector3f(*(float(v) for v in directions[row, column]))
        seen = np.array(emitter.eval(si)).ravel()
        # Mitsuba puts the map's first and last column on the seam, we put pixel centres half a pixel in: the lookup is
        # bilinear, so the pixel keeps most of its value
        assert seen[0] > 0.45
