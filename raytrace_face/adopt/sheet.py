"""The contact sheet of a face model: one look tells whether it was brought in whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from raytrace_face import panel
from raytrace_face.capture.colour import encode_u8
from raytrace_face.face.mesh import vertex_normals
from raytrace_face.face.model import PARTS, FaceModel
from raytrace_face.face.parts import PART_MATERIALS, eye_texture
from raytrace_face.fit.embedding import calibration_albedo
from raytrace_face.types import Array, Camera

COLUMNS = 8
PIXELS = 208
"""Of a tile."""
OVERSAMPLING = 2
DISTANCE_MM, HEIGHT_MM = 800.0, 300.0
AIM_MM = (0.0, -20.0, 0.0)
"""What the cameras look at, head frame, and how much of the head they see there."""
LIGHTS = (((0.35, 0.55, 0.75), 0.85), ((-0.8, 0.1, 0.6), 0.25))
"""Directions (camera frame) and strengths; beside them `AMBIENT`."""
AMBIENT = 0.18
EXPOSURE = 1.6
CLAY = (0.5, 0.47, 0.44)
SIGMA = 2.0
MODES = 4
EXPRESSIONS = (
    "jawOpen", "mouthSmileLeft", "mouthPucker", "mouthFrownRight", "eyeBlinkLeft", "browInnerUp", "noseSneerLeft",
    "cheekPuff",
)  # fmt: skip
"""One of each kind of motion: jaw, corners and rim of the mouth, lids, brows, nose, cheeks."""
PART_COLOURS = ((0.45, 0.3, 0.24), (0.3, 0.6, 0.9), (0.9, 0.8, 0.35), (0.6, 0.1, 0.15))
FACE_COLOUR = (0.3, 0.75, 0.35)
REGION_COLOURS = {
    "neck": (0.35, 0.45, 0.3), "scalp": (0.3, 0.22, 0.18), "beard": (0.25, 0.35, 0.5), "ears": (0.2, 0.8, 0.85),
    "forehead": (0.3, 0.5, 0.9), "cheeks": (0.95, 0.45, 0.3), "chin": (0.3, 0.8, 0.4), "eye_sockets": (0.5, 0.3, 0.7),
    "nose": (0.95, 0.75, 0.2), "eyelids": (0.9, 0.4, 0.9), "brows": (0.15, 0.1, 0.06), "lips": (0.9, 0.1, 0.2),
}  # fmt: skip
CHECKS = 32
"""Squares of the checker across the texture."""

Tile = tuple[str, NDArray[np.uint8]]


def draw(model: FaceModel) -> Image.Image:
    """The sheet: the mean, what was made for it, identity modes and expressions, under lines of facts."""
    from raytrace_face.backend import start

    start()
    views = _Views(model)
    rows = [_mean_tiles(model, views), _mode_tiles(model, views), _expression_tiles(model, views)]
    lines = _headline(model)
    step = panel.LABEL + PIXELS + panel.GAP
    top = panel.GAP + 20 * len(lines) + panel.GAP
    width = panel.GAP + COLUMNS * (PIXELS + panel.GAP)
    sheet = Image.new("RGB", (width, top + step * len(rows)), panel.BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        text = panel.fit_text(pen, line, width - 2 * panel.GAP, 15)
        pen.text((panel.GAP, panel.GAP + 20 * number), text, panel.INK, ImageFont.load_default(15))
    for row, tiles in enumerate(rows):
        for column, (label, codes) in enumerate(tiles):
            x, y = panel.GAP + column * (PIXELS + panel.GAP), top + row * step
            pen.text((x, y), panel.fit_text(pen, label, PIXELS, 13), panel.INK, ImageFont.load_default(13))
            sheet.paste(Image.fromarray(np.ascontiguousarray(codes)), (x, y + panel.LABEL))
    return sheet


def _headline(model: FaceModel) -> list[str]:
    known = model.provenance
    native = 0 if model.native_expression is None else model.native_expression.shape[1]
    own_modes = f" (in {native} modes of its own)" if native else ""
    facts = [
        " - ".join(text for text in (model.name, known.get("format", "")) if text),
        f"{model.vertex_count} vertices, {len(model.triangles)} triangles",
        f"{len(model.identity)} identity modes, {len(model.expression)} expressions{own_modes}",
        f"{len(model.landmark_index)} landmarks",
        "" if model.albedo is None else f"{len(model.albedo.diffuse_modes)} albedo modes",
    ]
    rest = [f"{k}: {known[k]}" for k in ("registration", "texture", "expressions", "limits") if known.get(k)]
    return ["    ".join(fact for fact in facts if fact), f"licence: {model.licence}", *rest]


Paint = Callable[..., Array]
"""GBuffer -> albedo (P, 3) at its pixels."""


class _Views:
    """Tiles of one model: traced from a few sides, shaded by two lamps without shadows."""

    def __init__(self, model: FaceModel) -> None:
        from raytrace_face.tracer.scene import HeadScene

        self.model, self.head = model, HeadScene(model)
        size = PIXELS * OVERSAMPLING
        self.camera = Camera(size, size, size * DISTANCE_MM / HEIGHT_MM, (size / 2, size / 2))
        self.alive = calibration_albedo(model)

    def pose(self, yaw_deg: float) -> NDArray[np.float64]:
        """(4, 4) T_camera_head of a camera that stands at this angle to the face's left."""
        yaw = np.radians(yaw_deg)
        T = np.eye(4)
        T[:3, :3] = [[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]]
        T[:3, 3] = np.array([0, 0, -DISTANCE_MM]) - T[:3, :3] @ np.array(AIM_MM)
        return T

    def tile(self, vertices: Array, yaw_deg: float, paint: Paint) -> NDArray[np.uint8]:
        """(S, S, 3) codes of the head with these vertices."""
        from raytrace_face.tracer.render import gbuffer

        self.head.move(vertices)
        T = self.pose(yaw_deg)
        g = gbuffer(self.head, self.camera, T)
        normal = g.interpolate(vertex_normals(vertices, self.model.triangles, self.model.weld)) @ T[:3, :3].T
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
        light = np.full(len(normal), AMBIENT)
        for direction, strength in LIGHTS:
            towards = np.array(direction) / np.linalg.norm(direction)
            light += strength * np.clip(normal @ towards, 0, None)
        linear = np.where((g.part < 255)[:, None], EXPOSURE * light[:, None] * paint(g), 0.01)
        size = self.camera.width // OVERSAMPLING
        linear = linear.reshape(size, OVERSAMPLING, size, OVERSAMPLING, 3).mean((1, 3))
        return encode_u8(linear.astype(np.float32))

    def vertex_paint(self, colour: Array) -> Paint:
        """Colours (V, 3) of the vertices."""
        return lambda g: g.interpolate(colour)

    def lively(self, g) -> Array:
        """Skin, lips and brows painted by region, other parts as renders show them."""
        colour = g.interpolate(self.alive)
        eyes = eye_texture()
        size = len(eyes)
        at = np.clip((np.stack([1 - g.uv[:, 1], g.uv[:, 0]]) * size).astype(int), 0, size - 1)
        for name, (albedo, _, _) in PART_MATERIALS.items():
            here = g.part == PARTS.index(name)
            colour[here] = eyes[at[0], at[1]][here] if name == "eyes" else albedo
        return colour

    def checker(self, g) -> Array:
        """Squares of the skin's texture, each eighth of the texture in a hue of its own."""
        cell = np.floor(g.uv * CHECKS)
        odd = (cell.sum(1) % 2).astype(bool)
        hue = np.stack([0.25 + 0.7 * g.uv[:, 0], 0.25 + 0.7 * g.uv[:, 1], np.full(len(g.uv), 0.35)], axis=1)
        colour = np.where(odd[:, None], hue, 0.06)
        return np.where((g.part == 0)[:, None], colour, 0.4)

    def parts(self, g) -> Array:
        """Parts in flat colours, the face in its own by weight."""
        colour = np.array(PART_COLOURS)[np.minimum(g.part, len(PARTS) - 1)]
        face = g.interpolate(self.model.regions["face"])[:, None] * (g.part == 0)[:, None]
        return colour * (1 - face) + np.array(FACE_COLOUR) * face


def _mean_tiles(model: FaceModel, views: _Views) -> list[Tile]:
    sigma = model.landmark_sigma_mm
    named = f"landmarks, sigma about {np.median(sigma):.1f} mm" if len(sigma) else "no landmarks"
    tiles = [
        ("mean", views.tile(model.mean, 0, views.lively)),
        ("from its left", views.tile(model.mean, 50, views.lively)),
        ("from its right", views.tile(model.mean, -50, views.lively)),
        (named, _with_landmarks(model, views)),
        (f"texture, {CHECKS} squares across", views.tile(model.mean, 0, views.checker)),
        ("eyes blue, mouth red, face green", views.tile(model.mean, 25, views.parts)),
        ("regions", views.tile(model.mean, 25, views.vertex_paint(_region_colours(model)))),
    ]
    if model.albedo is None:
        return [*tiles, ("texture layout, face green", layout(model))]
    albedo = np.clip(model.albedo.diffuse, 0, 1).astype(np.float32)
    return [*tiles, ("mean albedo", views.tile(model.mean, 0, views.vertex_paint(albedo)))]


def _mode_tiles(model: FaceModel, views: _Views) -> list[Tile]:
    clay = views.vertex_paint(np.tile(np.array(CLAY, np.float32), (model.vertex_count, 1)))
    tiles = []
    for mode in range(min(MODES, len(model.identity))):
        for amount in (SIGMA, -SIGMA):
            vertices = model.mean + np.float32(amount) * model.identity[mode]
            tiles.append((f"identity {mode + 1}: {amount:+.0f} sigma", views.tile(vertices, 20, clay)))
    return tiles


def _expression_tiles(model: FaceModel, views: _Views) -> list[Tile]:
    place = {name: k for k, name in enumerate(model.expression_names)}
    return [
        (name, views.tile(model.mean + model.expression[place[name]], 0, views.lively))
        for name in EXPRESSIONS
        if name in place
    ]


def _region_colours(model: FaceModel) -> Array:
    colour = np.tile(np.array(CLAY, np.float32), (model.vertex_count, 1))
    for name, hue in REGION_COLOURS.items():
        weight = model.regions.get(name, np.zeros(model.vertex_count, np.float32))[:, None]
        colour = colour * (1 - weight) + np.array(hue, np.float32) * weight
    return colour


def _with_landmarks(model: FaceModel, views: _Views) -> NDArray[np.uint8]:
    clay = np.tile(np.array(CLAY, np.float32), (model.vertex_count, 1))
    picture = Image.fromarray(views.tile(model.mean, 0, views.vertex_paint(clay)))
    pen = ImageDraw.Draw(picture)
    points = model.landmark_points(model.mean) @ views.pose(0)[:3, :3].T + views.pose(0)[:3, 3]
    scale = views.camera.focal_px / OVERSAMPLING / -points[:, 2]
    for point, per_mm, sigma in zip(points, scale, model.landmark_sigma_mm, strict=True):
        x, y, r = PIXELS / 2 + point[0] * per_mm, PIXELS / 2 - point[1] * per_mm, max(float(sigma * per_mm), 0.6)
        pen.ellipse((x - r, y - r, x + r, y + r), outline=(255, 80, 40))
    return np.asarray(picture)


def layout(model: FaceModel) -> NDArray[np.uint8]:
    """(S, S, 3) codes: the skin's triangles in texture space, lighter and green where the face is."""
    size = PIXELS * OVERSAMPLING
    picture = Image.new("RGB", (size, size), panel.BACKGROUND)
    pen = ImageDraw.Draw(picture)
    triangles = model.triangles[model.triangle_part == PARTS.index("skin")]
    face = model.regions["face"][triangles].mean(1)
    corners = np.stack([model.uv[triangles][..., 0], 1 - model.uv[triangles][..., 1]], axis=-1) * size
    for corner, weight in zip(corners, face, strict=True):
        fill = tuple(int(90 + weight * step) for step in (-10, 110, -10))
        pen.polygon([(float(x), float(y)) for x, y in corner], fill=fill)
    return np.asarray(picture.resize((PIXELS, PIXELS), Image.Resampling.BOX))
