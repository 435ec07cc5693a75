"""Make the `synthetic` benchmark: photos of ICT-FaceKit heads, traced, with their exact truth.

The heads are another model's than the one that is fitted; the embedded model's prior was learned from the same ICT
modes, so its figures are optimistic for shape. `modes="odd"` with an asset built from the even ones is fair. The
photos are traced with this project's own renderer and skin BSDF: an "inverse crime" in optics, none in shape, skin,
light or camera response.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, median_filter, zoom
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from raytrace_face.benchmark.ict import HELD_OUT, NARROW, IctHead, load_ict
from raytrace_face.benchmark.paint import Skin, paint
from raytrace_face.benchmark.spec import Item, write
from raytrace_face.capture.colour import encode_u8, luminance
from raytrace_face.errors import InputError
from raytrace_face.face.camera import project, to_camera
from raytrace_face.face.formats.ict import arkit_name
from raytrace_face.face.mesh import rigid_fit
from raytrace_face.measure import light
from raytrace_face.output import new_folder
from raytrace_face.types import Array, Camera

SIZE = 512
"""Side of the photos in pixels."""
SAMPLES, PASSES = 8, 4
"""Rays a pixel and pass."""
LIGHTS = ("soft", "hard", "top", "mixed")
AMBIENT_SHARE = {"soft": 0.45, "hard": 0.10, "top": 0.12, "mixed": 0.20}
"""Irradiance of the surroundings relative to all light at a surface that faces the key light."""
EXPRESSIONS: tuple[dict[str, float], ...] = (
    {},
    {"mouthSmile_L": 0.7, "mouthSmile_R": 0.7, "cheekSquint_L": 0.4, "cheekSquint_R": 0.4},
    {"jawOpen": 0.3, "browInnerUp_L": 0.6, "browInnerUp_R": 0.6},
    {},
    {"mouthPucker": 0.6, "browDown_L": 0.7, "browDown_R": 0.7},
    {"mouthSmile_L": 0.6, "browOuterUp_R": 0.7, "jawLeft": 0.3},
)
SEVEN = (36, 39, 42, 45, 33, 48, 54)
"""iBUG points of the seven landmarks of scans: eye corners from the image's left, nose bottom, mouth corners."""
YAW_LIMIT_DEG = 60.0
SCANNER_DEG = (-60.0, -30.0, 0.0, 30.0, 60.0)
"""Yaws, and twice the pitches, from which a scanner looks."""


@dataclass(frozen=True)
class Subject:
    """One head: neutral and posed shape, skin."""

    number: int
    neutral: Array
    """(V, 3) mm."""
    posed: Array
    """(V, 3) mm, with expression."""
    expression: dict[str, float]
    """ARKit name -> weight."""
    skin: Skin
    rotation: NDArray[np.float64]
    """(3, 3) turn of the neutral face against the mean face: ICT's identity modes carry 0.7-2.4 degrees of it."""


@dataclass(frozen=True)
class Shot:
    """A synthetic photo (sRGB codes) and its truth."""

    codes: NDArray[np.uint8]
    """(SIZE, SIZE, 3)."""
    albedo: Array
    """(SIZE, SIZE, 3) diffuse albedo, linear; 0 off the head."""
    T_camera_head: NDArray[np.float64]
    focal_px: float
    key_camera: NDArray[np.float64]
    """(3,) unit vector to the strongest light, camera frame."""


def make(
    ict_folder: Path, out: Path, *, count: int, lights: Sequence[str], yaws: Sequence[float], modes: str, seed: int,
    force: bool, quiet: bool,
) -> None:  # fmt: skip
    """Write the benchmark folder: `count` heads under every light and yaw.

    Raises:
        InputError: no ICT data there, an unknown light, or a yaw beyond 60 degrees.
        OutputError: the folder exists.
    """
    wrong = [kind for kind in lights if kind not in LIGHTS]
    if wrong:
        raise InputError(f"light is {wrong[0]!r}: use {', '.join(LIGHTS)}")
    if not all(abs(yaw) <= YAW_LIMIT_DEG for yaw in yaws) or count < 1:
        raise InputError(
            f"yaw {list(yaws)}, count {count}: yaws must lie within {YAW_LIMIT_DEG:.0f}, count be 1 or more"
        )
    from raytrace_face.backend import start

    ict = load_ict(ict_folder)
    start("auto")
    seen = seen_vertices(ict)
    items = []
    with new_folder(out, force) as folder:
        (folder / "photos").mkdir()
        (folder / "heads").mkdir()
        np.savez_compressed(folder / "heads" / "mean.npz", **_scan(ict, seen, ict.model.mean))
        shots = [(n, y, k) for n in range(count) for y in dict.fromkeys(yaws) for k in dict.fromkeys(lights)]
        subject: Subject | None = None
        for number, yaw, kind in tqdm(shots, desc="photos", disable=quiet, dynamic_ncols=True):
            if subject is None or subject.number != number:
                subject = make_subject(ict, number, modes, seed)
                np.savez_compressed(folder / "heads" / f"{number}.npz", **_scan(ict, seen, subject.neutral))
            name = f"ict{number}_{kind}_yaw{yaw:g}"
            shot = shoot(ict, subject, kind, yaw, seed)
            Image.fromarray(shot.codes).save(folder / "photos" / f"{name}.png")
            np.savez_compressed(folder / "photos" / f"{name}.npz", albedo=shot.albedo.astype(np.float16))
            items.append(Item(name, _values(name, ict, subject, shot, kind, yaw)))
        title = f"Synthetic photos of ICT heads ({count} heads, modes: {modes}, seed {seed})"
        write(folder, "synthetic", title, {"colour": "srgb", "mean_head": "heads/mean.npz"}, items)


def seen_vertices(ict: IctHead) -> NDArray[np.bool_]:
    """(V,) vertices of the narrow face that a scanner round the mean head sees: not the linings of nose and lids.

    Those count that are seen in most of the views that they face: a nostril opens to the views from below only.
    """
    from raytrace_face.face.mesh import vertex_normals
    from raytrace_face.tracer.render import gbuffer
    from raytrace_face.tracer.scene import HeadScene

    head = HeadScene(ict.model, ict.model.mean)
    camera = Camera(2 * SIZE, 2 * SIZE, 4.2 * SIZE, (SIZE, SIZE))
    normals = vertex_normals(ict.model.mean, ict.model.triangles)
    found, faced = np.zeros(ict.model.vertex_count), np.zeros(ict.model.vertex_count)
    for yaw in SCANNER_DEG:
        for pitch in SCANNER_DEG:
            T = np.eye(4)
            T[:3, :3] = Rotation.from_euler("yx", [yaw, pitch / 2], degrees=True).as_matrix()
            T[:3, 3] = [0, 0, -900]
            g = gbuffer(head, camera, T)
            found[np.unique(g.corners[g.part != 255])] += 1
            faced += normals @ T[:3, :3].T @ [0.0, 0.0, 1.0] > 0.25
    seen = found > 0.6 * np.maximum(faced, 1)
    seen[NARROW:] = False
    return np.asarray(seen)


def _scan(ict: IctHead, seen: NDArray[np.bool_], vertices: Array) -> dict[str, Any]:
    """What a scanner sees of the narrow face: points, triangles, the seven landmarks."""
    inside = seen[ict.model.triangles].all(axis=1)
    used, numbers = np.unique(ict.model.triangles[inside], return_inverse=True)
    return {
        "vertices": vertices[used],
        "triangles": numbers.reshape(-1, 3),
        "landmarks": vertices[ict.landmarks[list(SEVEN)]],
    }


def _values(name: str, ict: IctHead, subject: Subject, shot: Shot, kind: str, yaw: float) -> dict[str, Any]:
    camera = Camera(SIZE, SIZE, shot.focal_px, (SIZE / 2, SIZE / 2))
    seven = to_camera(shot.T_camera_head, subject.posed[ict.landmarks[list(SEVEN)]])
    return {
        "photo": f"photos/{name}.png",
        "truth": f"photos/{name}.npz",
        "head": f"heads/{subject.number}.npz",
        "light": kind,
        "yaw_deg": float(yaw),
        "T_camera_head": shot.T_camera_head.tolist(),
        "rotation": subject.rotation.tolist(),
        "focal_px": float(shot.focal_px),
        "landmarks_px": project(camera, seven).tolist(),
        "light_direction": shot.key_camera.tolist(),
        "expression": subject.expression,
    }


def make_subject(ict: IctHead, number: int, modes: str, seed: int) -> Subject:
    """Random identity (every chosen mode ~ N(0, 1), cut at 2.5 sigma), the number's expression, a random skin."""
    rng = np.random.default_rng([seed, 1000 + number])
    draw = rng.normal(size=len(ict.model.identity))
    identity = np.zeros_like(draw)
    identity[HELD_OUT[modes]] = np.clip(draw, -2.5, 2.5)[HELD_OUT[modes]]
    chosen = EXPRESSIONS[number % len(EXPRESSIONS)]
    weights = np.array([chosen.get(name, 0.0) for name in ict.model.expression_names])
    neutral = ict.model.vertices(identity, np.zeros_like(weights))
    named = {arkit_name(k): v for k, v in chosen.items()}
    base, own = (v[:NARROW].astype(np.float64) for v in (ict.model.mean, neutral))
    rotation = np.asarray(rigid_fit(base, own, np.ones(NARROW), scale=True)[1], np.float64)
    return Subject(number, neutral, ict.model.vertices(identity, weights), named, paint(ict, rng), rotation)


@dataclass(frozen=True)
class Lamp:
    """A far light, camera frame."""

    direction: NDArray[np.float64]
    radius_deg: float
    irradiance: NDArray[np.float64]
    """(3,) / pi."""


def lamps_of(kind: str, rng: np.random.Generator) -> list[Lamp]:
    """The lights of a kind of set-up, the strongest first, then a weak wide fill."""
    side = rng.choice([-1, 1])
    tint = 1 + rng.uniform(-0.08, 0.08, 3)
    fill = Lamp(light.direction(*rng.uniform(-60, 60, 2)), 20.0, 0.12 * (1 + rng.uniform(-0.1, 0.1, 3)))
    if kind == "soft":
        return [Lamp(light.direction(side * rng.uniform(10, 30), rng.uniform(15, 35)), 15.0, tint), fill]
    if kind == "hard":
        return [Lamp(light.direction(side * rng.uniform(50, 70), rng.uniform(5, 30)), 1.5, tint), fill]
    if kind == "top":
        return [Lamp(light.direction(side * rng.uniform(0, 20), rng.uniform(50, 65)), 3.0, tint), fill]
    if kind == "mixed":  # a warm hard light against a cool soft one from the other side
        warm = Lamp(light.direction(side * rng.uniform(40, 65), rng.uniform(10, 30)), 2.0, np.array([1.0, 0.85, 0.65]))
        cool = Lamp(
            light.direction(-side * rng.uniform(40, 70), rng.uniform(0, 20)), 12.0, 0.4 * np.array([0.8, 0.95, 1.2])
        )
        return [warm, cool, fill]
    raise ValueError(f"light is {kind!r}: use one of {', '.join(LIGHTS)}")


def shoot(ict: IctHead, subject: Subject, kind: str, yaw_deg: float, seed: int) -> Shot:
    """Photograph a subject: random pose about a yaw, distance, exposure, background and sensor noise."""
    from lightstage.rig import AreaLights, directional_lights
    from raytrace_face.tracer.scene import HeadScene

    rng = np.random.default_rng([seed, subject.number, round(abs(yaw_deg)), LIGHTS.index(kind)])
    turn = [rng.uniform(-6, 6), yaw_deg * rng.choice([-1, 1]), rng.uniform(-5, 5)]
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    distance = rng.uniform(700, 1300)
    T[:3, 3] = [rng.uniform(-15, 15), 20 + rng.uniform(-15, 15), -distance]
    camera = Camera(SIZE, SIZE, 78 / 63 * distance, (SIZE / 2, SIZE / 2))  # eyes 78 pixels apart
    lamps = lamps_of(kind, rng)
    placed = [directional_lights((T[:3, :3].T @ lamp.direction)[None], lamp.radius_deg) for lamp in lamps]
    lights = AreaLights(
        np.concatenate([p.corners for p in placed]),
        np.concatenate([p.radiance * lamp.irradiance for p, lamp in zip(placed, lamps, strict=True)]),
    )
    share = AMBIENT_SHARE[kind]
    sky = np.zeros((9, 3))
    sky[0] = share / (1 - share) / 0.282 * (1 + rng.uniform(-0.1, 0.1, 3))  # irradiance / pi of Y00 is 0.282 of it
    sky[1:4] = 0.25 * sky[0] * np.concatenate([[0.6], rng.uniform(-0.5, 0.5, 2)])[:, None]
    head = HeadScene(ict.model, subject.posed)
    image, albedo, hit = _trace(head, camera, T, subject, lights, sky)
    return Shot(_develop(image, hit, rng), albedo, T, camera.focal_px, lamps[0].direction)


def _trace(
    head: Any, camera: Camera, T: NDArray[np.float64], subject: Subject, lights: Any, sky: NDArray[np.float64]
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Linear picture, diffuse albedo (SIZE, SIZE, 3), and where the head is."""
    from raytrace_face.fit.stage2 import sample_texture
    from raytrace_face.tracer.render import RenderInputs, View, gbuffer, render

    g = gbuffer(head, camera, T)
    hit = g.part != 255
    near = gaussian_filter(hit.reshape(SIZE, SIZE).astype(np.float32), 1.5).ravel() > 1e-3
    view = View(camera, np.flatnonzero(near), SAMPLES)
    skin = subject.skin
    inputs = RenderInputs.of(
        subject.posed, T, camera.focal_px, skin.diffuse, skin.specular, skin.roughness,
        lights.corners, lights.radiance, sky,
    )  # fmt: skip
    image = np.zeros((SIZE * SIZE, 3), np.float32)
    image[near] = np.mean([render(head, view, inputs, seed).numpy() for seed in range(PASSES)], axis=0)
    albedo = (
        np.where((g.part == 0)[:, None], sample_texture(skin.diffuse, g.uv), 0)
        .reshape(SIZE, SIZE, 3)
        .astype(np.float32)
    )
    return _without_sparks(image.reshape(SIZE, SIZE, 3)), albedo, hit.reshape(SIZE, SIZE)


def _without_sparks(image: Array) -> Array:
    """Pixels held to 1.3 times the median of their neighbours: few rays leave sparks that no camera sees."""
    calm = median_filter(image, (3, 3, 1))
    return np.minimum(image, 1.3 * calm + 0.01 * image.max(axis=(0, 1), initial=0).clip(0, 1))


def _develop(image: Array, hit: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Exposure, background, a slightly soft lens, photon noise, sRGB in 8 bits."""
    image = image * (0.72 / np.percentile(luminance(image[hit]), 97))
    coarse = rng.uniform(0.02, 0.5, (6, 6, 3)) * rng.uniform(0.5, 1, 3)
    back = np.clip(np.stack([zoom(coarse[..., c], SIZE / 6, order=2) for c in range(3)], axis=2), 0, 1)
    alpha = gaussian_filter(hit.astype(np.float32), 0.5)[..., None]
    mixed = np.where(hit[..., None], image, back) * alpha + back * (1 - alpha)
    mixed = gaussian_filter(mixed, (0.5, 0.5, 0))
    noisy = mixed + rng.normal(size=mixed.shape) * np.sqrt(1e-5 + 2e-4 * np.maximum(mixed, 0))
    return encode_u8(np.clip(noisy, 0, 1))
