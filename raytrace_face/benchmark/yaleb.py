"""Scores on Extended Yale B: light, relighting, albedo, cast shadows and normals of one photo (`measure.yaleb`).

A photo on which a method fails is scored as doing nothing: light from the camera, photo as albedo, no shadow, flat
normals, copy of the photo. Directions: camera frame, x right, y up, z to the camera.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import map_coordinates

from raytrace_face.benchmark.pictures import stack, strip, to_u8
from raytrace_face.benchmark.protocol import NAN, Column, Pooled, Row, Scored
from raytrace_face.benchmark.spec import Benchmark, Item
from raytrace_face.errors import InputError
from raytrace_face.measure import images, light, yaleb
from raytrace_face.result import Reconstruction
from raytrace_face.types import Array, Window

GROUPS = {"front -> hard": "front_hard", "hard -> front": "hard_front", "hard -> hard": "hard_hard"}
COLUMNS = (
    Column("light_error_deg", "light, deg", "low", 1),
    Column("relight_psnr_db", "relight, dB", "high", 1),
    Column("relight_ssim", "relight, SSIM", "high", 3),
    *(Column(f"{key}_psnr_db", f"{name}, dB", "high", 1, detail=True) for name, key in GROUPS.items()),
    *(Column(f"{key}_ssim", f"{name}, SSIM", "high", 3, detail=True) for name, key in GROUPS.items()),
    Column("albedo_rmse", "albedo rmse", "low"),
    Column("iou_true_light", "shadow IoU, true light", "high"),
    Column("iou_own_light", "shadow IoU, own light", "high", detail=True),
    Column("iou_score_mask", "shadow IoU in score mask", "high", detail=True),
    Column("normals_deg", "normals, deg", "low", 1),
)
GROUP = "light"
PERSON = "subject"
REFERENCE: Mapping[str, str] = {}
PSNR_LIMIT_DB = 60.0
"""What a relit photo can score: the rounding of 8-bit photos alone is 58.9 dB, and infinity has no mean."""


@dataclass
class Prediction:
    """What a method says about one photo, on the grid of the crop (H, W); None where it says nothing."""

    light_direction: NDArray[np.float64] | None = None
    """(3,), camera frame."""
    albedo: Array | None = None
    """(H, W) monochrome diffuse albedo."""
    normals: Array | None = None
    """(H, W, 3) unit."""
    shadow_own: NDArray[np.bool_] | None = None
    """(H, W) less than half of the main estimated light is seen."""
    shadow_true: NDArray[np.bool_] | None = None
    """(H, W) the same for a light in the true direction, on the method's own shape."""
    render: Array | None = None
    """(H, W) re-rendering."""
    covered: NDArray[np.bool_] | None = None
    """(H, W) where the method found a face; None: everywhere."""
    relit: dict[str, Array] = field(default_factory=dict)
    """target light -> (H, W)."""


def on_crop(field_: NDArray[np.floating], window: Window, shape: tuple[int, int]) -> Array:
    """A field (S, S) or (S, S, C) on the window, sampled bilinearly at the pixel centres of the photo; 0 outside."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    points = window.to_window(np.stack([columns.ravel(), rows.ravel()], axis=1)) - 0.5
    planes = np.atleast_3d(np.asarray(field_, np.float32))
    out = [map_coordinates(planes[..., c], points.T[::-1], order=1, cval=0.0) for c in range(planes.shape[2])]
    return np.stack(out, axis=1).reshape(*shape, -1).squeeze().astype(np.float32)


def targets(light_name: str) -> list[str]:
    """The lights that a photo is relit to."""
    return [b for pairs in yaleb.RELIGHT.values() for a, b in pairs if a == light_name]


def predict(r: Reconstruction, light_name: str, photo: Array) -> Prediction:
    """Bring everything that is scored onto the pixels of the crop."""
    from raytrace_face.benchmark import relight

    shape = (photo.shape[0], photo.shape[1])
    normals = on_crop(r.pictures.normals, r.window, shape)
    length = np.linalg.norm(normals, axis=2)
    covered = length > 0.5
    seen_true = on_crop(relight.visibility(r, yaleb.light_direction(light_name)), r.window, shape)
    relit = {}
    for target in targets(light_name):
        new = relight.single_light(r, yaleb.light_direction(target)).mean(axis=2)
        relit[target] = np.where(covered, on_crop(new, r.window, shape), photo).astype(np.float32)
    return Prediction(
        light_direction=r.dominant_light.astype(np.float64),
        albedo=on_crop(r.pictures.diffuse.mean(axis=2), r.window, shape),
        normals=normals / np.maximum(length, 1e-6)[..., None],
        shadow_own=covered & (on_crop(relight.dominant_visibility(r), r.window, shape) < 0.5),
        shadow_true=covered & (seen_true < 0.5),
        render=on_crop(r.pictures.render.mean(axis=2), r.window, shape),
        covered=covered,
        relit=relit,
    )


def read_photo(benchmark: Benchmark, item: Item, light_name: str | None = None) -> NDArray[np.uint8]:
    """(H, W) the item's photo, or the same subject under another light, codes proportional to light."""
    relative = item["photo"] if light_name is None else f"photos/{item['subject']}_{light_name}.png"
    return np.asarray(Image.open(benchmark.path(relative)))


def read_truth(benchmark: Benchmark, item: Item) -> yaleb.Truth:
    """What is known of the item's subject."""
    subject = str(item["subject"])
    benchmark.path(f"truth/{subject}.npz")
    return yaleb.load_truth(benchmark.folder, subject)


def _true_shadow(truth: yaleb.Truth, light_name: str, photo: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(H, W) cast shadow; none where the truth does not know the light (`yaleb.BROKEN`)."""
    if light_name not in truth.gain:
        return np.zeros(photo.shape, bool)
    return yaleb.cast_shadow(truth, light_name, photo)


def _score(benchmark: Benchmark, item: Item, p: Prediction) -> Scored:
    truth, photo = read_truth(benchmark, item), read_photo(benchmark, item)
    name = str(item["light"])
    mask = yaleb.score_mask(truth)
    inside = yaleb.inside_mask(truth, name)
    shadow = _true_shadow(truth, name, photo)
    scored = shadow.sum() > yaleb.MIN_SHADOW_PIXELS
    covered = np.ones(mask.shape, bool) if p.covered is None else p.covered
    here = mask & covered
    if not here.any():
        raise InputError(f"item {item.id!r} is covered nowhere on the face: there is nothing to score")
    row: dict[str, Any] = {
        "subject": item["subject"], "light": name, "coverage": float(here.sum() / mask.sum()),
        **{c.key: NAN for c in COLUMNS},
    }  # fmt: skip
    if p.light_direction is not None and (item["subject"], name) not in yaleb.BROKEN:
        row["light_error_deg"] = float(light.angle_deg(p.light_direction, yaleb.light_direction(name)))
        row["light_direction"] = [float(x) for x in p.light_direction]
    if p.albedo is not None:
        row["albedo_rmse"] = images.relative_rmse(p.albedo, truth.albedo, here)
    if p.normals is not None:
        row["normals_deg"] = light.mean_angle_deg(p.normals, truth.normals, here)
    if scored and p.shadow_true is not None:
        row["iou_true_light"] = images.iou(p.shadow_true & inside, shadow)
        row["iou_score_mask"] = images.iou(p.shadow_true & inside & mask, shadow & mask)
    if scored and p.shadow_own is not None:
        row["iou_own_light"] = images.iou(p.shadow_own & inside, shadow)
    relit = _relight_scores(benchmark, item, p.relit, mask)
    for pair in relit:
        for figure in ("psnr_db", "ssim"):
            for key in ("relight", GROUPS[pair["group"]]):
                values = row[f"{key}_{figure}"]
                row[f"{key}_{figure}"] = [*(values if isinstance(values, list) else []), pair[figure]]
    arrays = {}
    if p.albedo is not None:
        arrays = {"albedo": p.albedo.astype(np.float32), "covered": here}
    return Scored(row, arrays, _picture(benchmark, item, p, truth, photo))


def _relight_scores(
    benchmark: Benchmark, item: Item, relit: Mapping[str, Array], mask: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """PSNR and SSIM of every relighting of one photo, after the best gain."""
    rows = []
    for group, pairs in yaleb.RELIGHT.items():
        for target in (b for a, b in pairs if a == item["light"] and b in relit):
            psnr, ssim = likeness(relit[target], read_photo(benchmark, item, target) / 255, mask)
            rows.append({"group": group, "psnr_db": psnr, "ssim": ssim})
    return rows


def likeness(picture: Array, real: NDArray[np.floating], mask: NDArray[np.bool_]) -> tuple[float, float]:
    """PSNR in dB (at most `PSNR_LIMIT_DB`) and SSIM of a linear picture (H, W) to a real one, after its best gain."""
    scaled = images.best_gain(picture, real, mask) * picture
    return min(images.psnr_db(scaled, real, mask), PSNR_LIMIT_DB), images.ssim(scaled, real, mask)


def _picture(
    benchmark: Benchmark, item: Item, p: Prediction, truth: yaleb.Truth, photo: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    name, empty = str(item["light"]), np.zeros(photo.shape, np.float32)
    mask, inside = yaleb.score_mask(truth), yaleb.inside_mask(truth, name)
    scale = float(np.percentile(truth.albedo[mask], 98))

    def shown(image: NDArray[Any] | None, encoded: bool = False) -> NDArray[np.uint8]:
        return to_u8(empty if image is None else image, encoded)

    albedo = None if p.albedo is None else images.best_gain(p.albedo, truth.albedo, mask) * p.albedo / scale
    first = [
        ("photo", to_u8(photo / 255)),
        ("render", shown(p.render)),
        ("shadow, own light", shown(None if p.shadow_own is None else p.shadow_own & inside)),
        ("shadow, true light", shown(None if p.shadow_true is None else p.shadow_true & inside)),
        ("true shadow", to_u8(_true_shadow(truth, name, photo))),
        ("albedo", shown(albedo)),
        ("true albedo", to_u8(truth.albedo / scale)),
        ("normals", shown(None if p.normals is None else p.normals * 0.5 + 0.5, encoded=True)),
        ("true normals", to_u8(truth.normals * 0.5 + 0.5, encoded=True)),
    ]
    error = ""
    if p.light_direction is not None:
        error = f"light off by {float(light.angle_deg(p.light_direction, yaleb.light_direction(name))):.1f} deg"
    strips = [strip(f"{item.id}  {error}", first)]
    if p.relit:
        pairs = []
        for target, picture in p.relit.items():
            real = read_photo(benchmark, item, target) / 255
            pairs.append((f"to {target}", to_u8(images.best_gain(picture, real, mask) * picture)))
            pairs.append(("real", to_u8(real)))
        strips.append(strip("relit", pairs))
    return stack(strips)


def score(benchmark: Benchmark, item: Item, result: Reconstruction) -> Scored:
    """Figures of a reconstruction."""
    photo = (read_photo(benchmark, item) / np.float32(255)).astype(np.float32)
    scored = _score(benchmark, item, predict(result, str(item["light"]), photo))
    scored.row["fit_psnr_db"] = float(result.metrics.get("psnr_db", NAN))
    return scored


def score_nothing(benchmark: Benchmark, item: Item) -> Scored:
    """Light from the camera, photo as albedo, no shadow, flat normals, copy of the photo."""
    grey = (read_photo(benchmark, item) / np.float32(255)).astype(np.float32)
    flat = np.broadcast_to(np.array([0, 0, 1], np.float32), (*grey.shape, 3))
    none = np.zeros(grey.shape, bool)
    relit = {target: grey for target in targets(str(item["light"]))}
    return _score(benchmark, item, Prediction(np.array([0, 0, 1.0]), grey, flat, none, none, grey, relit=relit))


def score_files(benchmark: Benchmark, item: Item, folder: Path) -> Scored:
    """Figures of `<id>.npz` with any of light_direction (3,), albedo (H, W), normals (H, W, 3) unit, shadow_own and
    shadow_true (H, W) bool, render (H, W), covered (H, W) bool, relit_<light> (H, W); or of a result folder `<id>`."""
    if (folder / item.id / "result.json").is_file():
        return score(benchmark, item, Reconstruction.load(folder / item.id))
    path = folder / f"{item.id}.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as z:  # numpy leaves damaged files open
            found = {name: z[name] for name in z.files}
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise InputError(f"{str(path)!r} cannot be read ({error}): give one .npz or result folder an item") from error
    _check(found, read_photo(benchmark, item).shape, targets(str(item["light"])), path)
    relit = {k.removeprefix("relit_"): v for k, v in found.items() if k.startswith("relit_")}
    return _score(benchmark, item, Prediction(**{k: v for k, v in found.items() if k in FIELDS}, relit=relit))


FIELDS = ("light_direction", "albedo", "normals", "shadow_own", "shadow_true", "render", "covered")
MASKS = ("shadow_own", "shadow_true", "covered")


def _check(arrays: Mapping[str, NDArray[Any]], shape: tuple[int, ...], relit_to: Sequence[str], path: Path) -> None:
    """Raise `InputError` unless arrays are what `score_files` says: a vector without length would score 0 degrees."""
    known = (*FIELDS, *(f"relit_{target}" for target in relit_to))
    wanted: dict[str, tuple[int, ...]] = {"light_direction": (3,), "normals": (*shape, 3)}
    for name, array in arrays.items():
        if name not in known:
            raise InputError(f"{str(path)!r} has {name!r}: of this photo, known are {', '.join(known)}")
        if name in MASKS and array.dtype != np.bool_:
            raise InputError(f"{str(path)!r}: {name!r} is {array.dtype}: masks must be bool")
        numbers = array.dtype.kind in "biuf" and bool(np.isfinite(array).all())
        if array.shape != wanted.get(name, shape) or not numbers:
            raise InputError(f"{str(path)!r}: {name!r} must be finite, of shape {wanted.get(name, shape)}")
    if "light_direction" in arrays and not arrays["light_direction"].any():
        raise InputError(f"{str(path)!r}: 'light_direction' is zero: leave it out where there is none")
    if "normals" in arrays:
        length = np.linalg.norm(arrays["normals"].astype(np.float64), axis=2)
        if (np.abs(length - 1) > 0.01)[arrays.get("covered", np.ones(shape, bool))].any():
            raise InputError(f"{str(path)!r}: 'normals' must be unit vectors wherever the face is covered")


def _albedo_spread(items: Sequence[tuple[Row, Mapping[str, NDArray[Any]]]]) -> list[dict[str, Any]]:
    """Relative standard deviation over the lights of each subject's albedo, every map scaled to their mean."""
    rows = []
    for subject in dict.fromkeys(row["subject"] for row, _ in items):
        own = [arrays for row, arrays in items if row["subject"] == subject and "albedo" in arrays]
        if len(own) < 2:
            continue
        both = np.all([a["covered"] for a in own], axis=0)
        if not both.any():
            continue
        maps = [a["albedo"].astype(np.float32) for a in own]
        mean = np.mean([m / max(m[both].mean(), 1e-12) for m in maps], axis=0)
        scaled = [images.best_gain(m, mean, both) * m for m in maps]
        rows.append({"subject": subject, "albedo_std": images.relative_std(np.array(scaled), both)})
    return rows


POOLED: Pooled | None = Pooled((Column("albedo_std", "albedo spread over lights", "low"),), _albedo_spread)
