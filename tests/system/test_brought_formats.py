"""Rationale: a licensed file goes through `models add` and comes out as a model that a photo can be fitted with.

The files are miniatures in the published layouts (tests/formats), made of the embedded head moved out of its frame: so
what a whole chain of reading, placing, completing and storing ought to find is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from skimage.data import astronaut

from raytrace_face import Config, reconstruct
from raytrace_face.adopt import complete
from raytrace_face.adopt.frame import eye_centres
from raytrace_face.capture.colour import srgb_to_linear
from raytrace_face.cli import run
from raytrace_face.config import Stage2Config
from raytrace_face.face import library
from raytrace_face.face.formats import bfm, flame
from raytrace_face.face.formats.raw import RawModel
from raytrace_face.face.mesh import Floats, rigid_fit
from raytrace_face.face.model import PARTS, FaceModel
from raytrace_face.face.store import load_embedded
from raytrace_face.measure.light import angle_deg
from tests.formats import layouts, layouts_flame
from tests.unit.foreign import frontal_mask

pytestmark = pytest.mark.slow

AWAY_MM = np.array([0.0, -160.0, 25.0])
"""From the head frame to where the files have their origins; x stays, as in every published model."""
MODES = 12


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """flame.npz and bfm.h5, each with its albedo model."""
    folder = tmp_path_factory.mktemp("files")
    head = layouts_flame.embedded_head()
    head = replace(head, vertices=head.vertices + AWAY_MM / 1000, jaw_joint=head.jaw_joint + AWAY_MM / 1000)
    layouts_flame.write_flame_npz(folder / "flame.npz", head)
    layouts_flame.write_albedo_npz(folder / "flame_albedo.npz", head)
    face = sheet()
    layouts.write_bfm_2017(folder / "bfm.h5", face)
    linear = replace(face, colour=srgb_to_linear(face.colour))
    shine = np.full_like(face.mean, 0.2)
    wave = 0.03 * np.cos(face.mean[:, :1] / 30) * np.ones(3)
    layouts.write_albedomm(folder / "bfm_albedo.h5", linear, shine, wave[None])
    return folder


def sheet() -> layouts.Head:
    """Like Basel's: the head seen from the front as one sheet, with the principal components of its expressions."""
    model = load_embedded()
    empty = model.expression[:0]
    mask, _ = frontal_mask(
        RawModel(
            "", "", model.mean, model.identity[:MODES], model.triangles, "", "", {}, model.expression,
            model.expression_names, empty, triangle_part=model.triangle_part,
        )
    )  # fmt: skip
    mean, units = mask.mean.astype(np.float64), mask.expression_modes
    _, size, rows = np.linalg.svd(units.reshape(len(units), -1).astype(np.float64), full_matrices=False)
    modes = (size[:, None] * rows / np.sqrt(len(units)))[:30].reshape(30, -1, 3)
    tone = np.array([0.8, 0.62, 0.54]) + 0.05 * np.sin(mean[:, 1:2] / 40)
    darker = np.broadcast_to([-0.08, -0.07, -0.05], mean.shape)
    identity = mask.identity.astype(np.float64)
    return layouts.Head(mean + AWAY_MM, identity, mask.triangles, 0 * mean, modes, tone, darker[None])


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory, files) -> Iterator[None]:
    """A library with both; the landmarks come from nine views of the mean, not from 27 of three heads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYTRACE_FACE_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(complete, "CALIBRATION_IDENTITIES", 0)
        for name, file in (("flame", "flame.npz"), ("bfm", "bfm.h5")):
            albedo = files / f"{name}_albedo{Path(file).suffix}"
            given = ["models", "add", str(files / file), "--albedo", str(albedo), "--modes", str(MODES), "--quiet"]
            assert run([*given, "--name", name]) == 0
        yield


@pytest.fixture(scope="module")
def raws(files) -> dict[str, RawModel]:
    return {
        "flame": flame.read(files / "flame.npz", files / "flame_albedo.npz", MODES),
        "bfm": bfm.read(files / "bfm.h5", files / "bfm_albedo.h5", MODES),
    }


both = pytest.mark.parametrize("name", ["flame", "bfm"])


def own_points(model: FaceModel, raw: RawModel) -> tuple[np.ndarray, np.ndarray, Floats]:
    """Vertices of the model that are the file's, which of the file's they are, and the turn (3, 3) between the two."""
    assert model.source is not None
    own = np.flatnonzero(model.source >= 0)
    there = model.source[own]
    points = model.mean[own].astype(np.float64)
    _, rotation, shift = rigid_fit(raw.mean[there].astype(np.float64), points, np.ones(len(own)))
    np.testing.assert_allclose(raw.mean[there] @ rotation.T + shift, points, atol=1e-3)  # mm: moved, never bent
    return own, there, rotation


@both
def test_the_file_s_mesh_is_kept_and_stands_in_the_head_frame(name, raws):
    model, embedded = library.find(name), load_embedded()
    assert model.source is not None
    own, there, _ = own_points(model, raws[name])
    count = raws[name].own_vertices or len(raws[name].mean)
    np.testing.assert_array_equal(np.unique(there), np.arange(count))
    assert len(own) < len(model.source) if name == "flame" else len(own) == len(model.source)
    nose = [m.mean[m.mean[:, 2].argmax()] for m in (model, embedded)]
    np.testing.assert_allclose(*nose, atol=1.0 if name == "flame" else 3.0)  # mm
    if name == "flame":  # the sheet has no eyeballs, so its frame is known by registration alone
        eyes, truth = (eye_centres(m.mean, m.triangles, m.triangle_part) for m in (model, embedded))
        np.testing.assert_allclose(eyes, truth, atol=0.5)


@both
def test_what_the_file_lacks_is_there(name):
    model, embedded = library.find(name), load_embedded()
    assert model.expression_names == embedded.expression_names
    assert len(model.expression) == 52
    assert len(model.landmark_index) > 300
    common, a, b = np.intersect1d(model.landmark_index, embedded.landmark_index, return_indices=True)
    gap = model.landmark_points(model.mean)[a] - embedded.landmark_points(embedded.mean)[b]
    gap -= np.median(gap, axis=0)
    assert len(common) > 300
    assert np.median(np.linalg.norm(gap, axis=1)) < 1.5  # mm: fewer views than the embedded model's were made from
    assert set(model.regions) == set(embedded.regions)
    skin = np.unique(model.triangles[model.triangle_part == PARTS.index("skin")])
    for region in ("face", "lips", "eyelids", "nose", "brows", "forehead"):
        assert model.regions[region][skin].max() > 0.6, region  # smoothed twice: narrow brows lose a third
    assert 0.2 < model.regions["face"][skin].mean() < 0.95


@both
def test_expressions_lie_in_the_file_s_own_space(name, raws):
    """But for FLAME's joints: those are turned, and no component moves them."""
    model, raw = library.find(name), raws[name]
    assert model.native_expression is not None
    own, there, rotation = own_points(model, raw)
    modes = raw.expression_modes[:, there] @ rotation.T.astype(np.float32)
    turned = np.isin(model.expression_names, raw.expression_names)
    assert turned.sum() == (11 if name == "flame" else 0)
    assert not model.native_expression[turned].any()
    again = np.tensordot(model.native_expression[~turned], modes, 1)
    np.testing.assert_allclose(model.expression[~turned][:, own], again, atol=5e-3)  # mm
    if name == "flame":
        opened = model.expression[model.expression_names.index("jawOpen")][own]
        np.testing.assert_allclose(
            opened, raw.expression[raw.expression_names.index("jawOpen")][there] @ rotation.T, atol=1e-2
        )


def test_a_unit_that_the_file_s_space_holds_is_found_in_it():
    """FLAME's miniature has the embedded model's own smile among its components."""
    model, embedded = library.find("flame"), load_embedded()
    face = embedded.regions["face"] > 0.5
    for name in ("mouthSmileLeft", "browDownRight", "mouthPucker"):
        truth = np.linalg.norm(embedded.expression[embedded.expression_names.index(name)][face], axis=1)
        found = model.expression[model.expression_names.index(name)]
        size = np.linalg.norm(found[model.regions["face"] > 0.5], axis=1)
        assert size.max() == pytest.approx(truth.max(), rel=0.2), name


@both
def test_albedo_of_the_file_is_kept(name, raws):
    model, raw = library.find(name), raws[name]
    assert model.albedo is not None
    assert raw.albedo is not None
    own, there, _ = own_points(model, raw)
    for field in ("diffuse", "specular"):
        np.testing.assert_allclose(getattr(model.albedo, field)[own], getattr(raw.albedo, field)[there], atol=1e-6)
        modes = f"{field}_modes"
        np.testing.assert_allclose(
            getattr(model.albedo, modes)[:, own], getattr(raw.albedo, modes)[:, there], atol=1e-6
        )
    assert "AlbedoMM" in model.licence


def test_a_photo_is_fitted_with_a_model_of_a_file():
    """About as well as with the embedded model, which it resembles; its light is the same light."""
    config = Config(quality="preview", stage2=Stage2Config(size=128))
    embedded = reconstruct(astronaut(), config, progress=False)
    found = reconstruct(astronaut(), replace(config, face_model="flame"), progress=False)
    assert found.model_name == "flame"
    assert found.face.identity.shape == (MODES,)
    assert found.metrics["psnr_db"] > embedded.metrics["psnr_db"] - 3
    assert angle_deg(found.dominant_light, embedded.dominant_light) < 20
