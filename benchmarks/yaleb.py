"""Real photos with known light: light, relighting, albedo, shadows and normals on Extended Yale B.

    python -m benchmarks.yaleb [--subjects yaleB02,B07] [--lights all14|sources4|A+000E+00,...] [--no-shadows]
                               [--light-only] [--fast] [--jobs 1] [--out out/yaleb] [--set light.max_lights=2]

One photo in, no tuning per subject. The protocol (pixels, pairs, gains) is `raytrace_face.measure.yaleb`. A photo on
which the program fails is scored as doing nothing: light from the camera, photo as albedo, no shadow, flat normals,
copy of the photo. Directions: camera frame, x right, y up, z to the camera.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from tqdm import tqdm

from benchmarks import relight
from benchmarks.common import (
    add_common,
    config_of,
    data_folder,
    markdown,
    publish,
    sheet,
    to_u8,
    write_csv,
)
from raytrace_face.config import Config
from raytrace_face.measure import images, light, yaleb
from raytrace_face.result import Reconstruction
from raytrace_face.types import Array, Window

BASELINES = """\
| 6a light direction, deg (111 photos) | mean | median |
|---|---|---|
| always frontal | 44.2 | 50.0 |
| GeomConsistentFR (CVPR 2022) | 44.8 | 48.8 |
| DPR (ICCV 2019), best input encoding | 18.4 | 17.8 |
| 3DDFA_V2 normals, constant albedo, one light + ambient | 12.8 | 12.1 |
| the same with the truth's normals | 9.8 | 9.5 |
| prototype, one light + ambient, without shadows | 9.6 | 9.0 |
| prototype, one light + ambient, ray-traced shadows | 7.6 | 7.6 |
| **bar** (goal 5) | 7.0 | |

| 6b relight, PSNR dB / SSIM | front -> hard | hard -> front | hard -> hard | all |
|---|---|---|---|---|
| copy A | 13.5/.378 | 11.9/.329 | 9.8/.202 | 11.9/.310 |
| GeomConsistentFR, true light | 16.2/.448 | 13.7/.414 | 11.5/.275 | 14.0/.386 |
| ratio image, 3DDFA_V2 mesh, ray-cast shadow | 17.8/.554 | 14.3/.393 | 13.4/.387 | 15.4/.456 |
| DPR, best | 18.4/.531 | 15.8/.481 | 14.7/.422 | 16.5/.477 |
| prototype (3 subjects) | 17.2/.531 | 18.8/.541 | 16.9/.466 | 17.6/.514 |
| prototype without shadows | 16.8/.526 | 18.1/.532 | 15.7/.432 | 16.9/.500 |
| reference fitted on the test lights (no method) | 23.3/.684 | 27.7/.867 | 23.4/.708 | 24.6/.746 |
| **bar** | 19.0/.58 | 20.0/.60 | 18.0/.52 | 19.0/.57 |

| 6c-6e | albedo rmse | albedo std | shadow IoU, true light | IoU, estimated light | normals, deg |
|---|---|---|---|---|---|
| raw photo (all 14 lights) | .500 | .574 | | | |
| GeomConsistentFR | .405 | .449 | | | 22.3 |
| ratio baseline, 3DDFA_V2 mesh | .380 | .362 | .285 | .249 | 17.6 - 19.8 |
| **bar** | .25 | .20 | .50 | .50 | 15 |"""
"""Published and prototype figures, measured with the same protocol."""

GROUPS = tuple(yaleb.RELIGHT)
WAYS = {
    "maps": "ours, maps re-rendered, ambient of A kept",
    "ratio": "ours, ratio image, ambient of A kept",
    "maps_dark": "ours, maps re-rendered, B's light alone",
    "ratio_dark": "ours, ratio image, B's light alone",
}
"""How a photo is relit. The room was dark, so that "B's light alone" is the true illumination of B."""


@dataclass(frozen=True)
class Job:
    """One photo to reconstruct."""

    root: Path
    subject: str
    light: str
    config: Config
    relight: bool
    maps: bool
    """False: only the direction of the light is wanted."""


@dataclass
class Prediction:
    """What the program says about one photo, on the grid of the crop (H, W)."""

    subject: str
    light: str
    light_direction: NDArray[np.float64]
    """(3,) unit, camera frame."""
    albedo: Array
    """(H, W) monochrome diffuse albedo."""
    normals: Array
    """(H, W, 3) unit."""
    shadow_own: NDArray[np.bool_]
    """(H, W) less than half of the strongest estimated light is seen."""
    shadow_true: NDArray[np.bool_]
    """(H, W) the same for a light in the true direction, traced on the reconstructed head."""
    render: Array
    """(H, W) re-rendering."""
    covered: NDArray[np.bool_]
    """(H, W) where the reconstructed head is seen."""
    relit: dict[str, dict[str, Array]] = field(default_factory=dict)
    """target light -> one of `WAYS` -> (H, W)."""
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    error: str = ""


def on_crop(field_: NDArray[np.floating], window: Window, shape: tuple[int, int]) -> Array:
    """A field (S, S) or (S, S, C) on the window, sampled bilinearly at the pixel centres of the photo; 0 outside."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    points = window.to_window(np.stack([columns.ravel(), rows.ravel()], axis=1)) - 0.5
    planes = np.atleast_3d(np.asarray(field_, np.float32))
    out = [map_coordinates(planes[..., c], points.T[::-1], order=1, cval=0.0) for c in range(planes.shape[2])]
    return np.stack(out, axis=1).reshape(*shape, -1).squeeze().astype(np.float32)


def nothing(subject: str, light_name: str, photo: NDArray[np.uint8], error: str) -> Prediction:
    """The score of a failure: what one would say without any method."""
    grey, empty = (photo / np.float32(255)).astype(np.float32), np.zeros(photo.shape, bool)
    flat = np.broadcast_to(np.array([0, 0, 1], np.float32), (*photo.shape, 3))
    return Prediction(
        subject, light_name, np.array([0, 0, 1.0]), grey, flat, empty, empty, grey, ~empty, error=error
    )  # fmt: skip


def predict(job: Job) -> Prediction:
    """Reconstruct one photo and bring everything that is scored onto its pixels."""
    from raytrace_face.capture import photo_from_array
    from raytrace_face.fit.reconstruct import reconstruct

    crop = yaleb.load_image(job.root, job.subject, job.light)
    try:
        start = time.perf_counter()
        photo = photo_from_array(crop, colour="linear", name=f"{job.subject} {job.light}")
        result = reconstruct(photo, job.config, progress=False)
        seconds = time.perf_counter() - start
        prediction = _collect(job, result, crop)
        return replace(prediction, seconds=seconds, metrics=dict(result.metrics))
    except Exception as error:  # a benchmark counts failures of any kind and goes on
        traceback.print_exc()
        return nothing(job.subject, job.light, crop, f"{type(error).__name__}: {error}")


def dominant_visibility(result: Reconstruction) -> Array:
    """(S, S) visibility of the light of the stage nearest to the dominant direction, among those that are on."""
    power = result.lights.irradiance().sum(axis=1)
    cosine = result.lights.directions() @ result.dominant_light_head()
    best = int(np.argmax(np.where(power > 0, cosine, -2)))
    return result.pictures.light_shadow[best] if (power > 0).any() else np.ones_like(result.pictures.shadow)


def _collect(job: Job, r: Reconstruction, crop: NDArray[np.uint8]) -> Prediction:
    shape = (crop.shape[0], crop.shape[1])
    if not job.maps:
        return replace(nothing(job.subject, job.light, crop, ""), light_direction=r.dominant_light.astype(np.float64))
    normals = on_crop(r.pictures.normals, r.window, shape)
    length = np.linalg.norm(normals, axis=2)
    covered = length > 0.5
    prediction = Prediction(
        job.subject,
        job.light,
        r.dominant_light.astype(np.float64),
        on_crop(r.pictures.diffuse.mean(axis=2), r.window, shape),
        normals / np.maximum(length, 1e-6)[..., None],
        covered & (on_crop(dominant_visibility(r), r.window, shape) < 0.5),
        np.zeros(shape, bool),
        on_crop(r.pictures.render.mean(axis=2), r.window, shape),
        covered,
    )
    visible = on_crop(relight.visibility(r, yaleb.light_direction(job.light)), r.window, shape)
    prediction.shadow_true = covered & (visible < 0.5)
    targets = [b for group in yaleb.RELIGHT.values() for a, b in group if a == job.light]
    edge = crop.astype(np.float32) / 255
    for target in targets if job.relight else ():
        for ambient in (True, False):
            new = relight.single_light(r, yaleb.light_direction(target), ambient)
            ratio = relight.ratio_image(r.pictures.photo, r.pictures.render, new)
            for kind, picture in (("maps", new), ("ratio", ratio)):
                seen = np.where(covered, on_crop(picture.mean(axis=2), r.window, shape), edge).astype(np.float32)
                prediction.relit.setdefault(target, {})[kind if ambient else f"{kind}_dark"] = seen
    return prediction


def score_photo(p: Prediction, truth: yaleb.Truth, root: Path) -> dict[str, Any]:
    """Every figure of one photo; NaN where a figure does not apply."""
    mask = yaleb.score_mask(truth)
    image = yaleb.load_image(root, p.subject, p.light)
    inside = yaleb.inside_mask(truth, p.light)
    shadow = yaleb.cast_shadow(truth, p.light, image)
    scored = shadow.sum() > yaleb.MIN_SHADOW_PIXELS
    here = mask & p.covered
    row: dict[str, Any] = {
        "subject": p.subject,
        "light": p.light,
        "light_error_deg": float(light.angle_deg(p.light_direction, yaleb.light_direction(p.light))),
        "light_x": p.light_direction[0],
        "light_y": p.light_direction[1],
        "light_z": p.light_direction[2],
        "albedo_rmse": images.relative_rmse(p.albedo, truth.albedo, here),
        "raw_rmse": images.relative_rmse(image / 255, truth.albedo, mask),
        "iou_score_mask": images.iou(p.shadow_true & inside & mask, shadow & mask) if scored else float("nan"),
        "normals_deg": light.mean_angle_deg(p.normals, truth.normals, here),
        "iou_true_light": images.iou(p.shadow_true & inside, shadow) if scored else float("nan"),
        "iou_own_light": images.iou(p.shadow_own & inside, shadow) if scored else float("nan"),
        "coverage": float(here.sum() / mask.sum()),
        "seconds": p.seconds,
        "error": p.error,
    }
    return row | {f"fit_{k}": v for k, v in p.metrics.items()}


def relight_scores(predictions: Sequence[Prediction], truth: yaleb.Truth, root: Path) -> list[dict[str, Any]]:
    """PSNR and SSIM of every relighting of one subject, of both ways to make it, and of the copied photo."""
    mask = yaleb.score_mask(truth)
    by_light = {p.light: p for p in predictions}
    rows = []
    for group, pairs in yaleb.RELIGHT.items():
        for a, b in pairs:
            if a not in by_light:
                continue
            real = yaleb.load_image(root, truth.subject, b) / 255
            copy = yaleb.load_image(root, truth.subject, a) / 255
            relit = by_light[a].relit.get(b, {})
            row: dict[str, Any] = {"subject": truth.subject, "group": group, "source": a, "target": b}
            for kind, picture in (("copy", copy), *((k, relit.get(k, copy)) for k in WAYS)):
                scaled = images.best_gain(picture, real, mask) * picture
                row[f"{kind}_psnr_db"] = images.psnr_db(scaled, real, mask)
                row[f"{kind}_ssim"] = images.ssim(scaled, real, mask)
            rows.append(row)
    return rows


def albedo_std(predictions: Sequence[Prediction], truth: yaleb.Truth, root: Path) -> tuple[float, float]:
    """Relative standard deviation over the lights of one subject's albedo, and of the raw photos."""
    if len(predictions) < 2:
        return float("nan"), float("nan")
    mask = yaleb.score_mask(truth)
    both = mask & np.all([p.covered for p in predictions], axis=0)
    maps = [images.best_gain(p.albedo, truth.albedo, both) * p.albedo for p in predictions]
    raw = [yaleb.load_image(root, p.subject, p.light) / 255 for p in predictions]
    raw = [images.best_gain(x, truth.albedo, mask) * x for x in raw]
    return images.relative_std(np.array(maps), both), images.relative_std(np.array(raw), mask)


def mean(rows: Sequence[dict[str, Any]], key: str) -> float:
    """Mean of a column without its NaN."""
    values = np.array([r[key] for r in rows], float)
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def _per_subject(rows: list[dict[str, Any]], std: dict[str, tuple[float, float]], light_only: bool) -> str:
    header = ["subject", "photos", "failed", "light mean", "light median", "light max"]
    if not light_only:
        header += ["albedo rmse", "albedo std", "IoU true light", "IoU own light", "IoU in score mask", "normals deg"]
        header += ["coverage"]
    header += ["s a photo"]
    table = []
    for name in [*dict.fromkeys(r["subject"] for r in rows), "all"]:
        part = [r for r in rows if name in ("all", r["subject"])]
        errors = np.array([r["light_error_deg"] for r in part if yaleb_usable(r)] or [np.nan])
        line: list[Any] = [f"**{name}**" if name == "all" else name, len(part), sum(bool(r["error"]) for r in part)]
        line += [errors.mean(), float(np.median(errors)), errors.max()]
        if not light_only:
            spread = np.nanmean([v[0] for k, v in std.items() if name in ("all", k)] or [np.nan])
            keys = ("iou_true_light", "iou_own_light", "iou_score_mask", "normals_deg", "coverage")
            line += [mean(part, "albedo_rmse"), float(spread), *(mean(part, k) for k in keys)]
        table.append([*line, mean(part, "seconds")])
    if not light_only:
        raw = float(np.nanmean([v[1] for v in std.values()] or [np.nan]))
        dash = float("nan")
        table.append(["raw photo", len(rows), 0, *[dash] * 3, mean(rows, "raw_rmse"), raw, *[dash] * 6])
    return markdown(header, table)


def yaleb_usable(row: dict[str, Any]) -> bool:
    """Whether the recorded light of a photo is right (it enters the direction test)."""
    return (row["subject"], row["light"]) not in yaleb.BROKEN


def _relight_table(rows: list[dict[str, Any]]) -> str:
    table = []
    for kind, name in {"copy": "copy A", **WAYS}.items():
        parts = [[r for r in rows if r["group"] == g] for g in GROUPS]
        cells = [f"{mean(p, f'{kind}_psnr_db'):.1f}/{mean(p, f'{kind}_ssim'):.3f}" for p in (*parts, rows)]
        table.append([name, *cells])
    counts = ", ".join(f"{sum(r['group'] == g for r in rows)} {g}" for g in GROUPS)
    return markdown(["6b relight (" + counts + ")", *GROUPS, "all"], table)


def _by_light(rows: list[dict[str, Any]], light_only: bool) -> str:
    keys = {} if light_only else {
        "albedo rmse": "albedo_rmse", "IoU true light": "iou_true_light", "IoU own light": "iou_own_light",
        "IoU in score mask": "iou_score_mask", "normals deg": "normals_deg",
    }  # fmt: skip
    table = []
    for name in dict.fromkeys(r["light"] for r in rows):
        part = [r for r in rows if r["light"] == name]
        usable = [r for r in part if yaleb_usable(r)]
        table.append([name, mean(usable, "light_error_deg"), *(mean(part, k) for k in keys.values())])
    return markdown(["light", "light error deg", *keys], table)


def report(
    rows: list[dict[str, Any]],
    relit: list[dict[str, Any]],
    std: dict[str, tuple[float, float]],
    title: str,
    light_only: bool,
) -> str:
    """The tables as Markdown."""
    failures = [f"- {r['subject']} {r['light']}: {r['error']}" for r in rows if r["error"]]
    parts = [f"### Extended Yale B, {title}", _per_subject(rows, std, light_only)]
    if relit:
        parts.append(_relight_table(relit))
    parts += ["By light:", _by_light(rows, light_only), "Compare (same protocol):", BASELINES]
    parts.append(f"Failures: {len(failures)} of {len(rows)}" + ("" if not failures else ", scored as doing nothing:"))
    return "\n\n".join(parts + (["\n".join(failures)] if failures else []))


def draw(out: Path, truth: yaleb.Truth, predictions: Sequence[Prediction], root: Path) -> None:
    """Contact sheets of one subject: what was found, and the relit photos beside the real ones."""
    mask = yaleb.score_mask(truth)
    scale = float(np.percentile(truth.albedo[mask], 98))
    rows = []
    for p in predictions:
        photo = yaleb.load_image(root, p.subject, p.light)
        inside = yaleb.inside_mask(truth, p.light)
        gain = images.best_gain(p.albedo, truth.albedo, mask)
        deg = light.angle_deg(p.light_direction, yaleb.light_direction(p.light))
        albedo = [to_u8(a / scale) for a in (gain * p.albedo, truth.albedo)]
        normals = [to_u8(n * 0.5 + 0.5, encoded=True) for n in (p.normals, truth.normals)]
        shadows = [p.shadow_own & inside, p.shadow_true & inside, yaleb.cast_shadow(truth, p.light, photo)]
        rows.append(
            (
                f"{p.light}  light off by {deg:.1f} deg  {p.error}",
                [to_u8(photo / 255), to_u8(p.render), *map(to_u8, shadows), *albedo, *normals],
            )
        )
    titles = ["photo", "render", "shadow, own light", "shadow, true light", "true shadow", "albedo", "true albedo"]
    sheet(out / f"{truth.subject}.png", rows, [*titles, "normals", "true normals"])
    pairs = []
    for p in predictions:
        for target, ways in p.relit.items():
            real = yaleb.load_image(root, p.subject, target) / 255
            pictures = [images.best_gain(x, real, mask) * x for x in ways.values()]
            source = yaleb.load_image(root, p.subject, p.light) / 255
            pairs.append((f"{p.light} -> {target}", [to_u8(x) for x in (source, *pictures, real)]))
    if pairs:
        sheet(out / f"{truth.subject}_relight.png", pairs, ["photo A", *WAYS, "real B"])


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.yaleb", description=__doc__.split("\n")[0])
    add_common(parser, "out/yaleb")
    parser.add_argument("--subjects", default="", help="comma list, as yaleB02,B07; default all 8")
    parser.add_argument("--lights", default="", help="all14 (default), sources4 (default of --fast), or a comma list")
    parser.add_argument("--no-shadows", action="store_true", help="switch the shadow term off")
    parser.add_argument("--light-only", action="store_true", help="only 6a: no stage 2, no maps")
    parser.add_argument("--fast", action="store_true", help="preview quality, four lights")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    return parser.parse_args(argv)


def jobs_of(args: argparse.Namespace, root: Path) -> list[Job]:
    """The photos to do."""
    if args.fast:
        args.quality = "preview"
    config = config_of(args, colour="linear")
    if args.no_shadows:
        config = replace(config, light=replace(config.light, shadows=False))
    if args.light_only:
        stage2 = replace(config.stage2, size=64, texture=64, samples=1, iterations=0)
        config = replace(config, iterations=0, stage2=stage2)
    names = [("" if s.startswith("yaleB") else "yale") + s for s in args.subjects.split(",") if s]
    lights = args.lights or ("sources4" if args.fast else "all14")
    chosen = {"all14": yaleb.LIGHTS, "sources4": yaleb.SOURCES}.get(lights, tuple(lights.split(",")))
    return [
        Job(root, s, x, config, relight=not args.light_only, maps=not args.light_only)
        for s in names or yaleb.subjects(root)
        for x in chosen
    ]


def run(jobs: Sequence[Job], processes: int) -> list[Prediction]:
    """All predictions, in the order of the jobs."""
    if processes <= 1:
        return [predict(job) for job in tqdm(jobs, desc="photos")]
    context = multiprocessing.get_context("spawn")  # Mitsuba does not survive a fork
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        return list(tqdm(pool.map(predict, jobs), total=len(jobs), desc="photos"))


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    root = data_folder("yaleb")
    jobs = jobs_of(args, root)
    config = jobs[0].config
    predictions = run(jobs, args.jobs)
    rows: list[dict[str, Any]] = []
    relit: list[dict[str, Any]] = []
    std: dict[str, tuple[float, float]] = {}
    for subject in dict.fromkeys(p.subject for p in predictions):
        truth = yaleb.load_truth(root, subject)
        own = [p for p in predictions if p.subject == subject]
        rows += [score_photo(p, truth, root) for p in own]
        if not args.light_only:
            relit += relight_scores(own, truth, root)
            std[subject] = albedo_std(own, truth, root)
            draw(args.out, truth, own, root)
    args.out.mkdir(parents=True, exist_ok=True)
    write_csv(args.out / "photos.csv", rows)
    if relit:
        write_csv(args.out / "relight.csv", relit)
    shadows = "shadows traced" if config.light.shadows else "SHADOWS OFF"
    changed = f", {' '.join(args.set)}" if args.set else ""
    title = f"{len(rows)} photos, {config.quality}, {shadows}{changed}"
    publish(args.out, "yaleb", report(rows, relit, std, title, args.light_only))


if __name__ == "__main__":
    main()
