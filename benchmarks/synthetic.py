"""Synthetic photos of ICT-FaceKit heads: shape, pose, expression and light against an exact truth.

    python -m benchmarks.synthetic [--count 6] [--skins procedural|photos] [--model half.npz --modes odd]
                                   [--light soft,hard,top] [--yaw 0,30] [--out out/synthetic]

The embedded prior was learned from all ICT modes, so that its figures on ICT heads are optimistic. `--model` with an
asset built from every second mode (`face/embedded/build.py --ict-modes even`) and `--modes odd` makes the test fair:
then the test heads use none of the modes that the prior has seen. The photos are traced with this project's own
direct renderer and skin BSDF (an "inverse crime" in optics, none in shape, skin or light).
"""

from __future__ import annotations

import argparse
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates, median_filter, zoom
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from benchmarks.common import add_common, config_of, data_folder, markdown, publish, sheet, to_u8, write_csv
from benchmarks.ict import HELD_OUT, NARROW, IctHead, Skin, arkit_name, load_ict, paint, texel_positions
from raytrace_face.capture.colour import encode_u8, luminance
from raytrace_face.face import store
from raytrace_face.face.mesh import rigid_fit
from raytrace_face.face.model import PARTS, FaceModel
from raytrace_face.face.store import closest_on_triangles
from raytrace_face.measure import geometry, light
from raytrace_face.types import Array, Camera, FaceParams, Photo

SIZE = 512
"""Side of the photos in pixels."""
SAMPLES, PASSES = 8, 4
"""Rays a pixel and pass."""
AMBIENT_SHARE = {"soft": 0.45, "hard": 0.10, "top": 0.12}
"""Irradiance of the surroundings relative to all light at a surface that faces the key light."""
EXPRESSIONS: tuple[dict[str, float], ...] = (
    {},
    {"mouthSmile_L": 0.7, "mouthSmile_R": 0.7, "cheekSquint_L": 0.4, "cheekSquint_R": 0.4},
    {"jawOpen": 0.3, "browInnerUp_L": 0.6, "browInnerUp_R": 0.6},
    {},
    {"mouthPucker": 0.6, "browDown_L": 0.7, "browDown_R": 0.7},
    {"mouthSmile_L": 0.6, "browOuterUp_R": 0.7, "jawLeft": 0.3},
)
SKIN_PHOTOS = ("obama.jpg", "biden.jpg")


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
    """A synthetic photo and its truth."""

    photo: Photo
    T_camera_head: NDArray[np.float64]
    key_camera: NDArray[np.float64]
    """(3,) unit vector to the key light, camera frame."""


def make_subject(ict: IctHead, number: int, modes: str, skins: Sequence[Array]) -> Subject:
    """Random identity (every chosen mode ~ N(0, 1), cut at 2.5 sigma), the number's expression, a random skin."""
    rng = np.random.default_rng(1000 + number)
    draw = rng.normal(size=len(ict.model.identity))
    identity = np.zeros_like(draw)
    identity[HELD_OUT[modes]] = np.clip(draw, -2.5, 2.5)[HELD_OUT[modes]]
    chosen = EXPRESSIONS[number % len(EXPRESSIONS)]
    weights = np.array([chosen.get(name, 0.0) for name in ict.model.expression_names])
    neutral = ict.model.vertices(identity, np.zeros_like(weights))
    skin = paint(ict, rng, skins[number % len(skins)] if skins else None)
    named = {arkit_name(k): v for k, v in chosen.items()}
    base, own = (v[:NARROW].astype(np.float64) for v in (ict.model.mean, neutral))
    rotation = np.asarray(rigid_fit(base, own, np.ones(NARROW), scale=True)[1], np.float64)
    return Subject(number, neutral, ict.model.vertices(identity, weights), named, skin, rotation)


def lights_of(kind: str, rng: np.random.Generator) -> tuple[NDArray[np.float64], float]:
    """Unit direction to the key light (camera frame) and its angular radius in degrees."""
    side = rng.choice([-1, 1])
    if kind == "soft":
        return light.direction(side * rng.uniform(10, 30), rng.uniform(15, 35)), 15.0
    if kind == "hard":
        return light.direction(side * rng.uniform(50, 70), rng.uniform(5, 30)), 1.5
    if kind == "top":
        return light.direction(side * rng.uniform(0, 20), rng.uniform(50, 65)), 3.0
    raise ValueError(f"light is {kind!r}: use one of soft, hard, top")


def shoot(ict: IctHead, subject: Subject, kind: str, yaw_deg: float) -> Shot:
    """Photograph a subject: random pose about a yaw, distance, exposure, background and sensor noise."""
    from lightstage.rig import AreaLights, directional_lights
    from raytrace_face.tracer.render import RenderInputs, View, gbuffer, render
    from raytrace_face.tracer.scene import HeadScene

    rng = np.random.default_rng([subject.number, round(abs(yaw_deg)), ("soft", "hard", "top").index(kind)])
    turn = [rng.uniform(-6, 6), yaw_deg * rng.choice([-1, 1]), rng.uniform(-5, 5)]
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    distance = rng.uniform(700, 1300)
    T[:3, 3] = [rng.uniform(-15, 15), 20 + rng.uniform(-15, 15), -distance]
    camera = Camera(SIZE, SIZE, 78 / 63 * distance, (SIZE / 2, SIZE / 2))  # eyes 78 pixels apart
    key, radius = lights_of(kind, rng)
    to_head = T[:3, :3].T
    fill = light.direction(*rng.uniform(-60, 60, 2))
    share = AMBIENT_SHARE[kind]
    lamps = [directional_lights((to_head @ d)[None], r) for d, r in ((key, radius), (fill, 20.0))]
    colours = [1 + rng.uniform(-0.08, 0.08, 3), 0.12 * (1 + rng.uniform(-0.1, 0.1, 3))]
    corners = np.concatenate([lamp.corners for lamp in lamps])
    radiance = np.concatenate([lamp.radiance * c for lamp, c in zip(lamps, colours, strict=True)])
    lights = AreaLights(corners, radiance)
    sky = np.zeros((9, 3))
    sky[0] = share / (1 - share) / 0.282 * (1 + rng.uniform(-0.1, 0.1, 3))  # irradiance / pi of Y00 is 0.282 of it
    sky[1:4] = 0.25 * sky[0] * np.concatenate([[0.6], rng.uniform(-0.5, 0.5, 2)])[:, None]
    head = HeadScene(ict.model, subject.posed)
    hit = gbuffer(head, camera, T).part != 255
    near = gaussian_filter(hit.reshape(SIZE, SIZE).astype(np.float32), 1.5).ravel() > 1e-3
    view = View(camera, np.flatnonzero(near), SAMPLES)

    def t(array: Any) -> torch.Tensor:
        return torch.tensor(np.asarray(array, np.float32))

    skin = subject.skin
    inputs = RenderInputs(
        *map(t, (subject.posed, T, camera.focal_px, skin.diffuse, skin.specular, skin.roughness)),
        *map(t, (lights.corners, lights.radiance, sky)),
    )
    traced = torch.stack([render(head, view, inputs, seed) for seed in range(PASSES)]).mean(0).numpy()
    image = np.zeros((SIZE * SIZE, 3), np.float32)
    image[near] = traced
    image = _without_sparks(image.reshape(SIZE, SIZE, 3))
    return Shot(_develop(image, hit.reshape(SIZE, SIZE), rng, subject, kind), T, key)


def _without_sparks(image: Array) -> Array:
    """Pixels held to 1.3 times the median of their neighbours: the renderer samples the sky's highlight by cosine,
    which leaves sparks at grazing angles that no camera sees."""
    calm = median_filter(image, (3, 3, 1))
    return np.minimum(image, 1.3 * calm + 0.01 * image.max(axis=(0, 1), initial=0).clip(0, 1))


def _develop(image: Array, hit: NDArray[np.bool_], rng: np.random.Generator, subject: Subject, kind: str) -> Photo:
    """Exposure, background, a slightly soft lens, photon noise, sRGB in 8 bits."""
    from raytrace_face.capture import photo_from_array

    image = image * (0.72 / np.percentile(luminance(image[hit]), 97))
    coarse = rng.uniform(0.02, 0.5, (6, 6, 3)) * rng.uniform(0.5, 1, 3)
    back = np.stack([zoom(coarse[..., c], SIZE / 6, order=2) for c in range(3)], axis=2)
    alpha = gaussian_filter(hit.astype(np.float32), 0.5)[..., None]
    mixed = gaussian_filter(
        np.where(hit[..., None], image, back) * alpha + np.clip(back, 0, 1) * (1 - alpha), (0.5, 0.5, 0)
    )
    noisy = mixed + rng.normal(size=mixed.shape) * np.sqrt(1e-5 + 2e-4 * np.maximum(mixed, 0))
    return photo_from_array(encode_u8(np.clip(noisy, 0, 1)), name=f"ict{subject.number}_{kind}.png")


def fit_shape(model: FaceModel, points: NDArray[np.floating], ridge: float = 2.0, rounds: int = 6) -> Array:
    """Identity coefficients (K,) whose surface, after a similarity, runs nearest to points (N, 3) in mm.

    The prior's own limit: what a perfect fit could reach. `ridge` in mm^2 weighs the prior (one point, one mm).
    """
    identity, zero = np.zeros(len(model.identity), np.float32), np.zeros(len(model.expression_names))
    triangles = face_triangles(model)
    for i in range(3 * rounds):
        vertices = model.vertices(identity, zero)
        if i % 3 == 0:
            motion = geometry.align(vertices, triangles, points, iterations=8).motion
            target = (points - motion.shift) @ motion.rotation / motion.scale
        nearest, normals = geometry.closest_points(target, vertices, triangles)
        basis = model.identity[:, cKDTree(vertices).query(nearest)[1]].astype(np.float64)
        rows = np.einsum("knd,nd->nk", basis, normals)
        gap = ((target - nearest) * normals).sum(axis=1) + rows @ identity
        weight = 1 / (1 + ((target - nearest) ** 2).sum(axis=1) / 25)
        left = rows.T @ (rows * weight[:, None]) + ridge * np.eye(len(identity))
        identity = np.linalg.solve(left, rows.T @ (weight * gap)).astype(np.float32)
    return identity


def photo_skins(ict: IctHead, model: FaceModel, cache: Path, photos: Sequence[Path]) -> list[Array]:
    """Albedo of real people on the ICT atlas, from this program's own reconstructions; kept in a folder."""
    from raytrace_face.fit.reconstruct import reconstruct

    cache.mkdir(parents=True, exist_ok=True)
    places = None
    skins = []
    for path in photos:
        kept = cache / f"{path.stem}.npz"
        if not kept.exists():
            if places is None:
                places = _uv_of_texels(ict, model)
            try:
                result = reconstruct(path, config_of(argparse.Namespace(quality="standard", set=[])), progress=False)
            except Exception as error:
                print(f"no skin from {path.name}: {error}")
                continue
            np.savez_compressed(kept, albedo=_sample(result.maps.diffuse, places).astype(np.float16))
        with np.load(kept) as z:
            skins.append(z["albedo"].astype(np.float32))
    return skins


def _uv_of_texels(ict: IctHead, model: FaceModel) -> Array:
    """(T, T, 2) uv of the program's model at each texel of the ICT atlas; NaN off the face.

    The mean ICT face is registered with the model's own modes, so that lips lie on lips and lids on lids.
    """
    positions = texel_positions(ict)
    identity = fit_shape(model, ict.model.mean[:NARROW:3])
    vertices = model.vertices(identity, np.zeros(len(model.expression_names)))
    skin = face_triangles(model)
    motion = geometry.align(vertices, skin, ict.model.mean[:NARROW:3]).motion
    vertices = motion.apply(vertices).astype(np.float32)
    known = np.isfinite(positions).all(axis=2)
    points = positions[known]
    candidates = cKDTree(vertices[skin].mean(1)).query(points, k=8)[1]
    found, weight = closest_on_triangles(points, vertices, skin, candidates)
    uv = np.full((*known.shape, 2), np.nan, np.float32)
    uv[known] = np.einsum("nc,ncd->nd", weight, model.uv[skin[found]])
    nearest = np.einsum("nc,ncd->nd", weight, vertices[skin[found]])
    uv[known] = np.where(np.linalg.norm(nearest - points, axis=1)[:, None] < 4, uv[known], np.nan)
    return uv


def _sample(texture: Array, uv: Array) -> Array:
    """Bilinear lookup of a texture (S, S, C), row 0 at v = 1, at uv (T, T, 2); NaN stays NaN."""
    size = texture.shape[0]
    known = np.isfinite(uv).all(axis=2)
    at = np.stack([(1 - uv[known][:, 1]) * size - 0.5, uv[known][:, 0] * size - 0.5])
    out = np.full((*known.shape, texture.shape[2]), np.nan, np.float32)
    for c in range(texture.shape[2]):
        out[known, c] = map_coordinates(texture[..., c], at, order=1, mode="nearest")
    return out


def face_triangles(model: FaceModel) -> NDArray[np.int32]:
    """Skin triangles of the front of the head: what a scan of the face may be matched to."""
    middle = model.mean[model.triangles].mean(axis=1)
    return model.triangles[(model.triangle_part == PARTS.index("skin")) & (middle[:, 2] > -75)]


def shape_errors(model: FaceModel, face: FaceParams | None, subject: Subject, tag: str) -> dict[str, float]:
    """Median scan-to-mesh distance in mm of the neutral face: after similarity, and without scale ("rigid")."""
    zero = np.zeros(len(model.expression_names))
    vertices = model.mean if face is None else model.vertices(face.identity, zero)
    triangles = face_triangles(model)
    scan = subject.neutral[:NARROW:2]
    return {
        f"{tag}_mm": geometry.align(vertices, triangles, scan).median_mm,
        f"{tag}_rigid_mm": geometry.align(vertices, triangles, scan, scale=False).median_mm,
    }


def prior_limit(model: FaceModel, subject: Subject) -> dict[str, float]:
    """The same error of the prior's best fit to the truth itself."""
    identity = fit_shape(model, subject.neutral[:NARROW:3].astype(np.float64))
    face = FaceParams(np.eye(4, dtype=np.float32), identity, np.zeros(len(model.expression_names), np.float32))
    return {"limit_mm": shape_errors(model, face, subject, "limit")["limit_mm"]}


def expression_errors(model: FaceModel, face: FaceParams, subject: Subject, tag: str) -> dict[str, float]:
    """RMSE of the weights that are not zero in truth, and mean of those that are, gaze left out."""
    active, quiet = [], []
    for name, weight in zip(model.expression_names, face.expression, strict=True):
        truth = subject.expression.get(name, 0.0)
        if truth:
            active.append((float(weight) - truth) ** 2)
        elif not name.startswith(("eyeLook", "eyeBlink", "tongue")):
            quiet.append(float(weight))
    rmse = float(np.sqrt(np.mean(active))) if active else float("nan")
    return {f"{tag}_expression_rmse": rmse, f"{tag}_expression_quiet": float(np.mean(quiet))}


def head_turn(ict: IctHead, model: FaceModel) -> NDArray[np.float64]:
    """Rotation (3, 3) from the program's mean head to ICT's: their frames agree in origin, not exactly in tilt."""
    scan = ict.model.mean[:NARROW:2]
    return geometry.align(model.mean, face_triangles(model), scan).motion.rotation


def measure(
    shot: Shot, subject: Subject, model: FaceModel, turn: NDArray[np.float64], args: argparse.Namespace
) -> tuple[dict[str, Any], Array]:
    """All figures of one photo, and the render of the reconstruction on its window."""
    from raytrace_face.capture import capture
    from raytrace_face.fit.landmarks import fit_landmarks
    from raytrace_face.fit.reconstruct import reconstruct

    true_rotation = shot.T_camera_head[:3, :3] @ subject.rotation @ turn
    row: dict[str, Any] = {}
    start = fit_landmarks(model, capture(shot.photo), shot.photo).face
    row |= shape_errors(model, start, subject, "landmarks") | expression_errors(model, start, subject, "landmarks")
    row["landmarks_pose_deg"] = light.rotation_angle_deg(start.T_camera_head[:3, :3], true_rotation)
    began = time.perf_counter()
    result = reconstruct(shot.photo, config_of(args), model=model, progress=False)
    row["seconds"] = time.perf_counter() - began
    row |= shape_errors(model, result.face, subject, "ours") | expression_errors(model, result.face, subject, "ours")
    row["ours_pose_deg"] = light.rotation_angle_deg(result.face.T_camera_head[:3, :3], true_rotation)
    row["light_error_deg"] = float(light.angle_deg(result.dominant_light, shot.key_camera))
    row["psnr_db"] = float(result.metrics.get("psnr_db", np.nan))
    return row, result.pictures.render


def load_model(path: Path | None) -> FaceModel:
    """The embedded model, or an asset that `face/embedded/build.py` made."""
    if path is None:
        return store.load_embedded()
    return store.check_model(store.subdivided(store.load_coarse(path), store.DEFAULT_LEVEL))


def report(rows: list[dict[str, Any]], args: argparse.Namespace, tilt_deg: float, model: FaceModel) -> str:
    """Tables by light and yaw, means over identities."""
    good = [r for r in rows if not r["error"]]

    def average(part: list[dict[str, Any]], key: str) -> float:
        values = np.array([r.get(key, np.nan) for r in part], float)
        return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")

    groups = [
        (f"{k}, yaw {y:g}", [r for r in good if (r["kind"], r["yaw"]) == (k, y)]) for y in args.yaws for k in args.kinds
    ]
    groups += [(f"**{k}**", [r for r in good if r["kind"] == k]) for k in args.kinds] + [("**all**", good)]
    shape, other = [], []
    for name, part in groups:
        base, ours = average(part, "mean_mm"), average(part, "ours_mm")
        shape.append(
            [name, len(part), base, average(part, "landmarks_mm"), ours, f"{100 * (ours / base - 1):+.0f} %"]
            + [average(part, "limit_mm")]
            + [average(part, f"{tag}_rigid_mm") for tag in ("mean", "landmarks", "ours")]
        )
        keys = ["landmarks_pose_deg", "ours_pose_deg", "light_error_deg"]
        keys += [f"{tag}_expression_{what}" for what in ("rmse", "quiet") for tag in ("landmarks", "ours")]
        other.append([name, *(average(part, k) for k in (*keys, "psnr_db", "seconds"))])
    head = ["light", "photos", "mean shape", "landmarks only", "ours", "ours to mean shape", "prior's limit"]
    head += [f"{x}, rigid" for x in ("mean shape", "landmarks", "ours")]
    head2 = ["light", "pose deg, landmarks", "pose deg, ours", "light deg", "active expression rmse, landmarks"]
    head2 += ["ours", "quiet expression mean, landmarks", "ours", "PSNR dB", "s a photo"]
    seen = "asset given by --model" if args.model else "the embedded prior has seen all ICT modes: OPTIMISTIC"
    notes = (
        f"ICT modes drawn: {args.modes}; model: {model.name} ({seen}). Skins: {args.skins}. Neutral face, median "
        f'scan-to-mesh distance in mm over the narrow face after similarity alignment; "rigid" without scale. A '
        f"constant tilt of {tilt_deg:.1f} deg between the two mean heads, and the turn that an identity's own modes "
        f'carry (Procrustes on the neutral faces), are taken out of the pose errors. "Prior\'s limit": the model '
        f"fitted to the truth itself. Active expression: root-mean-square error of weights that are not zero in truth; "
        f"quiet: mean of the weights that are (gaze and blink left out); the two models' units are not the same."
    )
    failures = [f"- {r['photo']}: {r['error']}" for r in rows if r["error"]]
    parts = [f"### Synthetic photos of ICT heads, {len(rows)} photos, {args.quality}", notes]
    parts += [markdown(head, shape), markdown(head2, other), f"Failures: {len(failures)} of {len(rows)}"]
    return "\n\n".join([*parts, *failures])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.synthetic", description=__doc__.split("\n")[0])
    add_common(parser, "out/synthetic")
    parser.add_argument("--count", type=int, default=6, help="identities")
    parser.add_argument("--light", default="soft,hard,top")
    parser.add_argument("--yaw", default="0,30", help="degrees")
    parser.add_argument("--skins", choices=("procedural", "photos"), default="procedural")
    parser.add_argument("--modes", choices=tuple(HELD_OUT), default="all", help="ICT modes of the test heads")
    parser.add_argument("--model", type=Path, default=None, help="another model asset (npz), see the module's text")
    parser.add_argument("--photos-only", action="store_true", help="only make the photos")
    args = parser.parse_args(argv)
    args.kinds, args.yaws = args.light.split(","), [float(y) for y in args.yaw.split(",")]
    folder = data_folder("ict")
    from raytrace_face.backend import start

    start("auto")
    model = load_model(args.model)
    ict = load_ict(folder)
    skins: list[Array] = []
    if args.skins == "photos":
        skins = photo_skins(ict, model, args.out / "skins", [data_folder("photos", n) for n in SKIN_PHOTOS])
    turn = head_turn(ict, model)
    rows, pictures = [], []
    todo = [(n, y, k) for n in range(args.count) for y in args.yaws for k in args.kinds]
    subject: Subject | None = None
    for number, yaw, kind in tqdm(todo, desc="photos"):
        if subject is None or subject.number != number:
            subject = make_subject(ict, number, args.modes, skins)
            base = shape_errors(model, None, subject, "mean") | prior_limit(model, subject)
        name = f"ict{number}_{kind}_yaw{yaw:g}"
        row: dict[str, Any] = {"photo": name, "kind": kind, "yaw": yaw, "error": "", **base}
        shot = shoot(ict, subject, kind, yaw)
        args.out.mkdir(parents=True, exist_ok=True)
        Image.fromarray(to_u8(shot.photo.linear)).save(args.out / f"{name}.png")
        if args.photos_only:
            continue
        try:
            found, picture = measure(shot, subject, model, turn, args)
            row |= found
            small = [np.asarray(Image.fromarray(to_u8(x)).resize((192, 192))) for x in (shot.photo.linear, picture)]
            note = (
                f"{name}  {row['ours_mm']:.2f} mm, mean shape {row['mean_mm']:.2f}, landmarks {row['landmarks_mm']:.2f}"
            )
            pictures.append((note, small))
        except Exception as error:  # failures are counted, not fatal
            traceback.print_exc()
            row["error"] = f"{type(error).__name__}: {error}"
        rows.append(row)
    if args.photos_only:
        return
    write_csv(args.out / "photos.csv", rows)
    if pictures:
        sheet(args.out / "sheet.png", pictures, ["photo", "render (window)"])
    tilt = light.rotation_angle_deg(turn, np.eye(3))
    publish(args.out, "synthetic", report(rows, args, tilt, model))


if __name__ == "__main__":
    main()
