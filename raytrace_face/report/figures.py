"""The still parts of the report: figures with their meaning, pictures with colour bars, loss curves, the command."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from raytrace_face.capture.colour import encode_u8, luminance
from raytrace_face.config import Config
from raytrace_face.export import SPECULAR_PREVIEW_WHITE, linear_u8
from raytrace_face.face.mesh import vertex_areas
from raytrace_face.fit.stage2 import sample_texture, sample_window
from raytrace_face.report.onelight import OneLight, fitted_weights
from raytrace_face.report.packing import data_uri
from raytrace_face.types import Array

if TYPE_CHECKING:
    from raytrace_face.result import Reconstruction

Codes = NDArray[np.uint8]
GREY = ((0, 0, 0), (255, 255, 255))
CONFIDENCE = ((52, 40, 74), (58, 82, 139), (40, 140, 141), (96, 200, 112), (240, 232, 92))
"""Dark violet to yellow, of steadily rising lightness."""
SIGNED = ((36, 92, 168), (140, 180, 220), (242, 242, 240), (226, 156, 134), (170, 40, 52))
"""Blue, white, red."""
NOTHING = (118, 118, 118)
"""Where there is nothing to show."""
DIMMED = 0.3
"""Radiance of the photo round the head where the reconstruction lies over it."""
DIFFERENCE_RANGE = 32
"""sRGB codes of luminance at the ends of the bar of the difference."""
OBSERVED = 0.5
"""Confidence from which a point of the skin counts as seen."""
ROLE = {
    "landmarks": "Landmarks: robust squared distance",
    "stage1": "Stage 1: light, pose, shape",
    "stage2": "Stage 2: gloss",
}


@dataclass(frozen=True)
class Figure:
    """A number and what it means."""

    name: str
    value: str
    meaning: str


@dataclass(frozen=True)
class Bar:
    """A colour bar: colours at equal distances, and the values at its ends."""

    colours: tuple[tuple[int, int, int], ...]
    low: str
    high: str


@dataclass(frozen=True)
class Still:
    """A picture with its caption."""

    name: str
    uri: str
    meaning: str
    bar: Bar | None = None


@dataclass(frozen=True)
class Curve:
    """A loss curve as points of an SVG polyline in a box of 300 x 120."""

    name: str
    points: str
    first: str
    last: str
    steps: int


def ramp(values: NDArray[np.floating], colours: tuple[tuple[int, int, int], ...]) -> Codes:
    """Values in [0, 1] (...) as colours (..., 3), linear between equally spaced ones."""
    at = np.linspace(0, 1, len(colours))
    table = np.array(colours, float)
    return np.stack([np.interp(values, at, table[:, c]) + 0.5 for c in range(3)], axis=-1).astype(np.uint8)


def observed_share(result: Reconstruction) -> tuple[float, float]:
    """Share of the area of the face, and of the whole skin, whose confidence is at least `OBSERVED`."""
    model = result.face_model()
    skin = model.triangles[model.triangle_part == 0]
    area = vertex_areas(result.vertices(expression=False), skin)
    area = np.concatenate([area, np.zeros(model.vertex_count - len(area))])
    seen = sample_texture(result.maps.confidence, model.uv) >= OBSERVED
    face = area * model.regions.get("face", np.ones(model.vertex_count))
    return float(face @ seen / max(face.sum(), 1e-9)), float(area @ seen / max(area.sum(), 1e-9))


def light_level(result: Reconstruction) -> float:
    """Median radiance of white matte skin on the fitted part of the face: how strong the photo's light is."""
    fitted = result.pictures.mask > 0.5
    values = luminance(result.pictures.shading[fitted]) if fitted.any() else np.ones(1)
    return max(float(np.median(values)), 1e-3)


def figures(result: Reconstruction) -> list[Figure]:
    """The headline numbers."""
    azimuth, elevation = result.dominant_light_angles()
    side, height = "right" if azimuth >= 0 else "left", "above" if elevation >= 0 else "below"
    light = f"{abs(azimuth):.0f}° {side}, {abs(elevation):.0f}° {height}"
    values = result.metrics | {"observed": observed_share(result)[0], "total": result.timings.get("total", math.nan)}
    rows = [
        (
            "psnr_db",
            1,
            "dB",
            "Likeness",
            "PSNR in the fitted region, after stage 2. 30 dB is an error of 8 codes in 255",
        ),
        ("psnr_stage1_db", 1, "dB", "Likeness, stage 1", "PSNR with statistical skin: light and shape do this much"),
        ("ambient_share", 100, "%", "Ambient", "share of the light that comes from all around"),
        ("shadow_fraction", 100, "%", "In shadow", "of the fitted pixels lose over half their light to shadow"),
        ("observed", 100, "%", "Observed", "of the face's surface was seen; the rest is filled in"),
        ("landmark_rms_px", 1, "px", "Landmarks", "rms distance to the network's points"),
        ("total", 1, "s", "Time", "of the reconstruction"),
    ]
    found = [
        Figure(name, f"{scale * values[key]:.{0 if scale == 100 else 1}f} {unit}", meaning)
        for key, scale, unit, name, meaning in rows
        if math.isfinite(values.get(key, math.nan))
    ]
    return [
        Figure("Main light", light, "direction of the strongest light that the face shows, as seen in the picture"),
        *found,
    ]


def compared(result: Reconstruction, images: OneLight) -> tuple[str, str]:
    """The photo, and the reconstruction as the light stage traced it over the dimmed photo, as data addresses."""
    size = len(images.coverage)
    at = (np.arange(size) + 0.5) * result.pictures.photo.shape[0] / size
    x, y = np.meshgrid(at, at)
    photo = sample_window(result.pictures.photo, np.stack([x, y], axis=-1))
    share = images.coverage[..., None]
    render = images.picture(fitted_weights(result), float(result.config.light.shadows))
    over = share * render + (1 - share) * DIMMED * photo
    return data_uri(encode_u8(photo), "jpeg"), data_uri(encode_u8(over), "jpeg")


def stills(result: Reconstruction) -> list[Still]:
    """Maps, shading, self-shadow, confidence and difference."""
    p = result.pictures
    head = np.linalg.norm(p.normals, axis=-1) > 0
    white = _white(p.shading, head)

    def shown(codes: Codes, where: NDArray[np.bool_] = head) -> str:
        rgb = np.repeat(codes[..., None], 3, 2) if codes.ndim == 2 else codes
        return data_uri(np.where(where[..., None], rgb, np.array(NOTHING, np.uint8)), "jpeg")

    fitted = head & (p.mask > 0.5)
    gap = luminance(encode_u8(p.render).astype(np.float32) - encode_u8(p.photo)) / DIFFERENCE_RANGE
    return [
        Still(
            "Difference", shown(ramp(0.5 + 0.5 * np.clip(gap, -1, 1), SIGNED), fitted),
            "Reconstruction minus photo, sRGB codes of luminance. Grey was not fitted: hair, eyes, surroundings.",
            Bar(SIGNED, f"−{DIFFERENCE_RANGE}, too dark", f"+{DIFFERENCE_RANGE}, too bright"),
        ),
        Still(
            "Shading", shown(encode_u8(p.shading / white)),
            "What white matte skin would look like in this light, shadows included.", Bar(GREY, "0", f"{white:.2g}"),
        ),
        Still(
            "Self-shadow", shown(linear_u8(p.shadow)),
            "Light that arrives over light that would arrive if the head cast no shadow on itself.",
            Bar(GREY, "0, all shadow", "1, none"),
        ),
        Still(
            "Confidence", shown(ramp(p.confidence, CONFIDENCE)),
            "How much of the skin's colour and gloss was seen rather than filled in.",
            Bar(CONFIDENCE, "0, filled in", "1, seen"),
        ),
        Still(
            "Specular albedo", shown(linear_u8(p.specular / SPECULAR_PREVIEW_WHITE)),
            "F0, the share of light that the surface mirrors when seen head-on.",
            Bar(GREY, "0", f"{SPECULAR_PREVIEW_WHITE:g}"),
        ),
        Still(
            "Roughness", shown(linear_u8(p.roughness)), "How blurred that mirror is.",
            Bar(GREY, "0, mirror", "1, matte"),
        ),
        Still("Diffuse albedo", shown(encode_u8(p.diffuse)), "The skin's own colour, without light, shadow and gloss."),
        Still(
            "Normals", shown(linear_u8(0.5 + 0.5 * p.normals)),
            "Which way the surface faces: red to the right, green up, blue towards the camera.",
        ),
    ]  # fmt: skip


def _white(image: Array, head: NDArray[np.bool_]) -> float:
    """The 99.5th percentile of the head's pixels."""
    values = image[head]
    return max(float(np.percentile(values, 99.5)), 1e-6) if values.size else 1.0


def curves(result: Reconstruction) -> list[Curve]:
    """Loss curves on a logarithmic scale where all values are positive."""
    found = []
    for name, history in result.history.items():
        y = np.array([v for v in history if math.isfinite(v)], float)
        if len(y) < 2:
            continue
        scaled = np.log(y) if y.min() > 0 else y
        span = max(float(np.ptp(scaled)), 1e-12)
        heights = 110 - 100 * (scaled - scaled.min()) / span
        points = " ".join(f"{300 * k / (len(y) - 1):.1f},{h:.1f}" for k, h in enumerate(heights))
        found.append(Curve(ROLE.get(name, name), points, f"{y[0]:.3g}", f"{y[-1]:.3g}", len(y)))
    return found


def command(result: Reconstruction) -> str:
    """The command line that repeats the reconstruction, given the same photo."""
    config, plain = result.config, Config()
    words = ["raytrace-face", "reconstruct", result.photo_name or "photo"]
    for name in ("quality", "solver", "seed", "iterations", "face", "device", "colour"):
        value = getattr(config, name)
        if value != getattr(plain, name):
            words += [f"--{name}", str(value)]
    if config.deterministic:
        words.append("--deterministic")
    if not config.light.shadows:
        words.append("--no-shadows")
    if config_file(config):
        words += ["--config", "settings.toml"]
    return shlex.join(words)


def config_file(config: Config) -> str:
    """The settings that have no option of their own and are not the default, as a file for `--config`; "" if none."""
    plain = dict(settings(Config()))
    lines = [
        f"{name} = {json.dumps(value) if isinstance(value, str) else str(value).lower()}"
        for name, value in settings(config)
        if "." in name and name != "light.shadows" and value != plain[name]
    ]
    return "\n".join(lines)


def settings(config: Config) -> list[tuple[str, Any]]:
    """Every setting by dotted name."""
    found: list[tuple[str, Any]] = []

    def visit(prefix: str, node: object) -> None:
        for f in fields(node):  # type: ignore[arg-type]
            value = getattr(node, f.name)
            if hasattr(value, "__dataclass_fields__"):
                visit(f"{prefix}{f.name}.", value)
            else:
                found.append((prefix + f.name, value))

    visit("", config)
    return found
