"""Rationale: baked shadows pass on the photo they come from and fail in other light; the protocol has to tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from lightstage.rig import StageLights, rig
from raytrace_face.config import Config
from raytrace_face.face.store import load_embedded
from raytrace_face.measure.appearance import transfer
from raytrace_face.measure.light import direction
from raytrace_face.result import Pictures, Reconstruction
from raytrace_face.types import Camera, FaceParams, Maps, Window

SIZE, TEXELS = 64, 128


def lit_from(azimuth: float, elevation: float) -> StageLights:
    """One lamp of the icosahedral stage: that nearest to a direction."""
    stage = rig("icosahedron")
    intensity = np.zeros((20, 3))
    intensity[np.argmax(stage.face_directions @ direction(azimuth, elevation))] = 6.0
    return StageLights(stage, np.full(20, 1.0), np.full(20, 0.1), np.full((20, 2), 1 / 3), intensity)


def ambient(level: float) -> np.ndarray:
    coefficients = np.zeros((9, 3), np.float32)
    coefficients[0] = level / 0.28209479177387814
    return coefficients


@pytest.fixture(scope="module")
def clean() -> Reconstruction:
    """A head of the embedded model with freckled skin in frontal light: the target, true in everything."""
    model = load_embedded()
    rng = np.random.default_rng(0)
    spots = 0.85 + 0.15 * np.kron(rng.random((16, 16)), np.ones((TEXELS // 16, TEXELS // 16)))
    diffuse = (spots[..., None] * [0.55, 0.40, 0.32]).astype(np.float32)
    maps = Maps(
        diffuse,
        np.full((TEXELS, TEXELS, 3), 0.03, np.float32),
        np.full((TEXELS, TEXELS), 0.6, np.float32),
        np.ones((TEXELS, TEXELS), np.float32),
    )
    T = np.eye(4, dtype=np.float32)
    T[:3, 3] = [0, 30, -900]
    empty = np.zeros((SIZE, SIZE, 3), np.float32)
    flat = np.zeros((SIZE, SIZE), np.float32)
    pictures = Pictures(
        empty, empty, empty, empty, flat, np.ones((20, SIZE, SIZE), np.float32), empty, empty, flat, flat, flat, flat
    )
    face = FaceParams(T, np.zeros(len(model.identity), np.float32), np.zeros(len(model.expression), np.float32))
    result = Reconstruction(
        model.name, Camera(SIZE, SIZE, 270.0, (SIZE / 2, SIZE / 2)), Window(0, 0, SIZE, SIZE), face,
        lit_from(0, 10), ambient(0.15), direction(0, 10).astype(np.float32), maps, diffuse, pictures,
        np.zeros((478, 2), np.float32), "synthetic", "", Config(), {}, {}, model=model,
    )  # fmt: skip
    return photographed(result)


def photographed(truth: Reconstruction) -> Reconstruction:
    """The same with its own rendering as photo, and the head's skin as parsed face region."""
    from raytrace_face.backend import start

    start()
    from raytrace_face.tracer.render import gbuffer
    from raytrace_face.tracer.scene import HeadScene

    head = HeadScene(truth.face_model(), truth.vertices())
    seen = gbuffer(head, truth.camera.windowed(truth.window), truth.face.T_camera_head)
    skin = ((seen.part == 0) & (seen.normal[:, 2] > 0.3)).reshape(SIZE, SIZE).astype(np.float32)
    photo = truth.render(spp=256, seed=99)
    return replace(truth, pictures=replace(truth.pictures, photo=photo, mask=skin))


def baked(source: Reconstruction) -> Reconstruction:
    """Someone who knows no lamps: even light, and everything else painted into the skin, texel by texel."""
    from raytrace_face.tracer.render import gbuffer
    from raytrace_face.tracer.scene import HeadScene

    dull = replace(source, lights=replace(source.lights, intensity=np.zeros((20, 3))), ambient_sh=ambient(0.8))
    ratio = source.pictures.photo / np.maximum(dull.render(spp=256, seed=5), 1e-3)
    head = HeadScene(source.face_model(), source.vertices())
    uv = gbuffer(head, source.camera.windowed(source.window), source.face.T_camera_head).uv
    column = np.clip((uv[:, 0] * TEXELS).astype(int), 0, TEXELS - 1)
    row = np.clip(((1 - uv[:, 1]) * TEXELS).astype(int), 0, TEXELS - 1)
    skin = source.pictures.mask.ravel() > 0.5
    paint, count = np.zeros((TEXELS, TEXELS, 3)), np.zeros((TEXELS, TEXELS))
    np.add.at(paint, (row[skin], column[skin]), ratio.reshape(-1, 3)[skin])
    np.add.at(count, (row[skin], column[skin]), 1)
    nearest = distance_transform_edt(count == 0, return_distances=False, return_indices=True)
    factor = (paint / np.maximum(count, 1)[..., None])[tuple(nearest)]
    diffuse = np.clip(source.maps.diffuse * factor, 0, 1).astype(np.float32)
    return replace(dull, maps=replace(source.maps, diffuse=diffuse))


def test_baked_shadows_score_higher_on_their_source_and_lower_on_the_target(clean):
    source = photographed(replace(clean, lights=lit_from(70, 30)))
    # an honest fit: the right skin, but a lamp that is a third too dim
    honest = replace(source, lights=replace(source.lights, intensity=source.lights.intensity / 1.5))
    fair, cheat = (transfer(s, clean, spp=64, seed=1) for s in (honest, baked(source)))
    # measured 28.7 against 24.7 dB on the source, 12.5 against 52.1 dB on the target
    assert cheat.source.psnr_db > fair.source.psnr_db + 2
    assert cheat.target.psnr_db < 20
    assert cheat.target.ssim < fair.target.ssim - 0.1
    # the true maps are limited by noise alone, 64 rays against 256: measured 52 dB
    assert fair.target.psnr_db > 45
    ceiling = transfer(clean, clean, spp=64, seed=1)
    # equal maps, equal noise; sums of several threads differ by 5e-7 of the light
    assert fair.target.psnr_db == pytest.approx(ceiling.target.psnr_db, abs=0.01)
    assert fair.picture.shape == (SIZE, SIZE, 3)
