"""A small head and a synthetic reconstruction that the unit tests share."""

from __future__ import annotations

import numpy as np
import pytest

from lightstage.rig import StageLights, rig
from raytrace_face.config import Config
from raytrace_face.face.model import FaceModel
from raytrace_face.result import Pictures, Reconstruction
from raytrace_face.types import Camera, FaceParams, Maps, Window


def ellipsoid(rows: int, columns: int, centre: tuple[float, ...], radii: tuple[float, ...]):
    """Grid of an ellipsoid seen along z: vertices, triangles (counter-clockwise from outside), uv (front: middle)."""
    v, u = np.meshgrid(np.linspace(0.02, 0.98, rows), np.linspace(0, 1, columns), indexing="ij")
    latitude, longitude = np.pi * (v - 0.5), 2 * np.pi * (u - 0.5)
    unit = np.stack([np.cos(latitude) * np.sin(longitude), np.sin(latitude), np.cos(latitude) * np.cos(longitude)], -1)
    a = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    b, c, d = a + 1, a + columns, a + columns + 1
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)])
    return unit.reshape(-1, 3) * radii + centre, triangles, np.stack([u, v], -1).reshape(-1, 2)


@pytest.fixture(scope="session")
def tiny_model() -> FaceModel:
    """An egg with a nose-like second ellipsoid as "eyes" part in front of it; 3 identity modes, 2 expressions."""
    rng = np.random.default_rng(1)
    skin, skin_triangles, skin_uv = ellipsoid(25, 33, (0.0, 0.0, -60.0), (75.0, 100.0, 80.0))
    eyes, eye_triangles, eye_uv = ellipsoid(9, 13, (-30.0, 20.0, 20.0), (12.0, 12.0, 12.0))
    mean = np.concatenate([skin, eyes]).astype(np.float32)
    count = len(mean)
    triangles = np.concatenate([skin_triangles, eye_triangles + len(skin)]).astype(np.int32)
    smooth = np.stack([mean * [0.02, 0, 0], mean * [0, 0.02, 0], mean * [0, 0, 0.02]]).astype(np.float32)
    return FaceModel(
        name="tiny",
        mean=mean,
        identity=smooth,
        expression=rng.normal(0, 0.1, (2, count, 3)).astype(np.float32),
        expression_names=("jawOpen", "mouthSmileLeft"),
        triangles=triangles,
        triangle_part=np.concatenate([np.zeros(len(skin_triangles)), np.ones(len(eye_triangles))]).astype(np.uint8),
        uv=np.concatenate([skin_uv, eye_uv]).astype(np.float32),
        weld=np.arange(count, dtype=np.int32),
        mirror=np.arange(count, dtype=np.int32),
        landmark_index=np.zeros(0, np.int32),
        landmark_triangle=np.zeros(0, np.int32),
        landmark_barycentric=np.zeros((0, 3), np.float32),
        landmark_sigma_mm=np.zeros(0, np.float32),
        regions={"face": np.ones(count, np.float32)},
        licence="test",
        provenance={},
    )


def turned(yaw: float, pitch: float, offset_mm: tuple[float, ...]) -> np.ndarray:
    """(4, 4) rigid transform."""
    c, s, e, f = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    T = np.eye(4)
    T[:3, :3] = np.array([[1, 0, 0], [0, e, -f], [0, f, e]]) @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    T[:3, 3] = offset_mm
    return T.astype(np.float32)


@pytest.fixture(scope="session")
def reconstruction(tiny_model: FaceModel) -> Reconstruction:
    """Valid arrays without symmetry: off-centre principal point, turned head, two unequal lights, gradient maps."""
    rng = np.random.default_rng(2)
    size, texture = 48, 64

    def noise(*shape: int) -> np.ndarray:
        return rng.random(shape, np.float32)

    stage = rig("icosahedron")
    order = np.argsort(-stage.face_directions @ np.array([0.6, 0.4, 0.7]))
    intensity = np.zeros((20, 3))
    intensity[order[0]], intensity[order[4]] = [3.0, 2.8, 2.5], [0.6, 0.7, 0.8]
    lights = StageLights(stage, np.full(20, 1.2), np.full(20, 0.3), np.full((20, 2), 1 / 3), intensity)
    ambient = np.zeros((9, 3), np.float32)
    ambient[0], ambient[1], ambient[3] = [0.5, 0.55, 0.6], 0.2, -0.1
    ramp = np.linspace(0.1, 0.9, texture, dtype=np.float32)
    diffuse = np.stack(np.broadcast_arrays(ramp[None, :], ramp[:, None], np.float32(0.3)), -1)
    direction = np.array([0.6, 0.4, 0.7], np.float32)
    return Reconstruction(
        model_name="tiny",
        camera=Camera(640, 480, 900.0, (310.0, 251.0)),
        window=Window(180.5, 120.0, 280.0, size),
        face=FaceParams(turned(0.3, 0.1, (12.0, -8.0, -600.0)), noise(3) - 0.5, noise(2)),
        lights=lights,
        ambient_sh=ambient,
        dominant_light=direction / np.linalg.norm(direction),
        maps=Maps(
            np.ascontiguousarray(diffuse),
            np.repeat(0.03 + 0.03 * noise(texture, texture, 1), 3, 2),
            0.3 + 0.4 * noise(texture, texture),
            noise(texture, texture),
        ),
        statistical_diffuse=noise(texture, texture, 3),
        pictures=Pictures(
            *(noise(size, size, 3) for _ in range(4)),
            noise(size, size),
            noise(20, size, size),
            noise(size, size, 3),
            noise(size, size, 3),
            *(noise(size, size) for _ in range(4)),
        ),
        landmarks_px=400 * noise(478, 2),
        photo_name="synthetic -- photo.png",
        photo_sha256="ab" * 32,
        config=Config(deterministic=True),
        timings={"total": 1.5},
        metrics={"psnr_stage1_db": 30.0, "psnr_db": 33.0, "landmark_rms_px": float("nan")},
        warnings=("one thing is odd",),
        history={"stage1": [1.0, 0.5]},
        model=tiny_model,
    )
