"""Rationale: one photo in, a whole result out; the same face at every size; and a known face is found again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from lightstage.rig import directional_lights
from raytrace_face.config import Config
from raytrace_face.face.camera import rotated
from raytrace_face.face.store import load_embedded
from raytrace_face.measure.light import angle_deg, rotation_angle_deg
from raytrace_face.result import Reconstruction
from raytrace_face.types import Camera, FaceParams

pytestmark = pytest.mark.slow
PREVIEW = Config(quality="preview")


def reconstruct(photo: np.ndarray) -> Reconstruction:
    from raytrace_face import reconstruct as run

    return run(photo, PREVIEW, progress=False)


def astronaut() -> np.ndarray:
    from skimage.data import astronaut as data

    return data()


@pytest.fixture(scope="module")
def demo() -> Reconstruction:
    return reconstruct(astronaut())


def test_demo_photo_is_explained(demo):
    # 30 dB is what a preview has to reach on sRGB values (standard quality: 33); measured 33.7, seeds scatter by 0.3
    assert demo.metrics["psnr_db"] > 30
    # statistical skin explains less than personal skin
    assert demo.metrics["psnr_stage1_db"] < demo.metrics["psnr_db"]
    assert demo.metrics["psnr_stage1_db"] > 18
    # landmarks of a 512-pixel photo whose face is 100 pixels wide: the network's own error
    assert demo.metrics["landmark_rms_px"] < 2
    assert demo.warnings == ()


def test_every_array_of_the_demo_is_physical(demo):
    arrays = demo.arrays()
    assert all(np.isfinite(a).all() for a in arrays.values())
    for name in ("diffuse", "specular", "roughness", "confidence"):
        values = arrays[f"maps.{name}"]
        assert 0 <= values.min() <= values.max() <= 1, name
    assert np.linalg.norm(demo.dominant_light) == pytest.approx(1, abs=1e-5)
    assert demo.dominant_light[2] > -0.5  # the photo shows a lit face
    R = demo.face.T_camera_head[:3, :3].astype(float)
    assert np.abs(R @ R.T - np.eye(3)).max() < 1e-5
    assert np.linalg.det(R) > 0
    assert demo.lights.intensity.min() >= 0
    assert 0 <= demo.face.expression.min() <= demo.face.expression.max() <= 1


def test_demo_comes_back_from_its_folder_bit_for_bit(demo, tmp_path):
    folder = demo.save(tmp_path / "astronaut_face")
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    expected = ("result.json", "arrays.safetensors", "panel.png", "face.glb", "mesh_neutral.ply", "mesh_posed.ply")
    assert set(expected) <= names
    assert all((folder / name).stat().st_size > 0 for name in names)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["astronaut_face"]  # nothing temporary is left
    back = Reconstruction.load(folder)
    mine, theirs = demo.arrays(), back.arrays()
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if mine[name].tobytes() != theirs[name].tobytes()] == []
    assert back.metrics == demo.metrics
    assert back.camera == demo.camera


def test_twice_the_pixels_are_the_same_face_in_the_same_light(demo):
    """Twice, not half: at half its size this face is smaller than the smallest that is accepted."""
    size = 2 * astronaut().shape[0]
    twice = reconstruct(np.asarray(Image.fromarray(astronaut()).resize((size, size), Image.Resampling.BICUBIC)))
    # The networks see resampled pixels: landmarks move by a fraction of a pixel, and everything follows. Measured:
    # light 0.1 degrees, pose 0.1 degrees, focal length 0.2 %, identity 0.02 sigma; another seed moves light by a degree
    assert angle_deg(twice.dominant_light, demo.dominant_light) < 2
    assert rotation_angle_deg(twice.face.T_camera_head[:3, :3], demo.face.T_camera_head[:3, :3]) < 0.5
    assert twice.camera.focal_px / 2 == pytest.approx(demo.camera.focal_px, rel=0.02)
    difference = twice.face.identity - demo.face.identity
    assert np.sqrt((difference**2).mean()) < 0.06


# a face that is known


def known_identity() -> np.ndarray:
    identity = np.zeros(len(load_embedded().identity), np.float32)
    identity[:6] = [0.8, -0.6, 0.5, 0.4, -0.5, 0.6]
    return identity


@pytest.fixture(scope="module")
def known(mi):
    """A photo of the embedded model: (8-bit picture, true pose, true light in the camera frame)."""
    from raytrace_face.capture.colour import encode_u8
    from raytrace_face.face.skin_prior import albedo, roughness_prior, skin_prior, specular_prior
    from raytrace_face.tracer.render import RenderInputs, View, all_pixels, gbuffer, render
    from raytrace_face.tracer.scene import HeadScene
    from raytrace_face.tracer.texture import texel_map

    model = load_embedded()
    texels, prior = texel_map(model, 256), skin_prior(model)
    identity = known_identity()
    vertices = model.vertices(identity, np.zeros(len(model.expression)))
    pose = np.eye(4)
    pose[2, 3] = -1100
    T = rotated(pose, np.array([0.03, 0.2, 0.0]), np.zeros(3)).astype(np.float32)
    size = 256
    camera = Camera(size, size, size * 1100 / 330, (size / 2, size / 2))
    skin = np.zeros(len(prior.modes), np.float32)
    skin[0] = -0.5  # fairer than average by half a standard deviation
    towards = np.array([0.55, 0.4, 0.73])
    lamp = directional_lights((T[:3, :3].T @ towards)[None], 4.0)
    sky = np.zeros((9, 3))
    sky[0] = 0.25 / 0.28209479177387814  # a quarter of the lamp's irradiance, from everywhere
    values = (
        vertices, T, camera.focal_px, texels.spread(albedo(prior, skin)),
        np.repeat(texels.spread(specular_prior(model))[..., None], 3, 2), texels.spread(roughness_prior(model)),
        lamp.corners, lamp.radiance, sky,
    )  # fmt: skip
    inputs = RenderInputs(*(torch.from_numpy(np.array(v, np.float32)) for v in values))
    head = HeadScene(model, vertices)
    with torch.no_grad():
        image = render(head, View(camera, all_pixels(camera), 64), inputs, 5).numpy().reshape(size, size, 3)
    image *= 0.6 / np.percentile(image, 99)
    image[gbuffer(head, camera, T).part.reshape(size, size) == 255] = 0.2
    return encode_u8(np.clip(image, 0, 1)), T, towards / np.linalg.norm(towards)


@pytest.fixture(scope="module")
def from_landmarks(known) -> Reconstruction:
    return reconstruct(known[0])


def test_known_light_and_pose_are_found_again(known, from_landmarks):
    _, T, towards = known
    found = from_landmarks
    # the goal on real photos is 7 degrees; without anything unmodelled 2.7 was measured
    assert angle_deg(found.dominant_light, towards) < 8
    # landmark network on a rendering; 0.4 was measured
    assert rotation_angle_deg(found.face.T_camera_head[:3, :3], T[:3, :3]) < 2
    assert found.metrics["psnr_db"] > 35  # nothing in this picture that the model cannot say


@pytest.mark.parametrize(
    ("turn_deg", "noise", "albedo", "least_db"),
    [(12, 0.3, -0.3, np.inf), (120, 1.0, 2.0, 35)],
    ids=["a good guess", "a wrong guess"],
)
def test_a_guess_ends_where_the_landmarks_do(known, from_landmarks, turn_deg, noise, albedo, least_db):
    """Truth turned and shaken: pose by 3 degrees and 2 cm, identity by `noise` deviations, the lamp by `turn_deg`."""
    from scipy.spatial.transform import Rotation

    from lightstage import solve
    from lightstage.rig import rig
    from raytrace_face.fit.guess import Guess
    from raytrace_face.fit.reconstruct import reconstruct as fit

    photo, T, towards = known
    model, rng = load_embedded(), np.random.default_rng(3)
    lamp = Rotation.from_rotvec(np.radians(turn_deg) * np.array([0.0, 1.0, 0.0])).apply(T[:3, :3].T @ towards)
    identity = known_identity() + noise * rng.normal(size=len(model.identity)).astype(np.float32)
    pose = rotated(T, np.radians([1.5, -2.5, 1.0]), np.array([3.0, 3.0, 20.0])).astype(np.float32)
    skin = np.full(10, albedo, np.float32)
    face = FaceParams(pose, identity, np.full(len(model.expression), 0.05, np.float32))
    size = photo.shape[0]
    camera = Camera(size, size, size * 1100 / 330, (size / 2, size / 2))
    guess = Guess(camera, face, solve.condense(rig(), lamp[None], np.ones((1, 3))), skin)
    found = fit(photo, replace(PREVIEW, start="encoder"), progress=False, look=lambda *given: guess)
    assert angle_deg(found.dominant_light, towards) < 8
    assert rotation_angle_deg(found.face.T_camera_head[:3, :3], T[:3, :3]) < 2
    # another seed moves the figure by 0.3 dB. A preview has no third round for a wrong guess:
    # 36.4 dB of 40.8 were measured, in a picture where 35 is what the landmark start has to reach
    assert found.metrics["psnr_db"] > min(from_landmarks.metrics["psnr_db"] - 0.6, least_db)
