"""What real photos show besides the face: hair, beards, hats, glasses, hands, shoulders, and things out of the picture.

They are meshes of fixed topology beside the head's own, so that one scene serves every geometry and what they throw
on the face are true shadows. A *shell* is a copy of the scalp, forehead and beard that stands off the skin where hair
grows and lies below it elsewhere: the hairline is where it comes up. *Blobs* are ellipsoids, *tubes* bend along a
path. What a sitter does not wear waits inside the head.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from lightstage.rig import geodesic
from raytrace_face.face.mesh import vertex_normals
from raytrace_face.face.model import PARTS, FaceModel
from raytrace_face.types import Array

F = NDArray[np.float64]
Index = NDArray[np.int32]

BLOBS = 12
"""Ellipsoids: shoulders 0, collar 1, locks 2-5, brim 6, fingers 7-10, a thing outside the picture 11."""
SHOULDERS, COLLAR, LOCKS, BRIM, FINGERS, OUTSIDE = 0, 1, range(2, 6), 6, range(7, 11), 11
RING, SIDES = 24, 5
"""Points along a ring of glasses, and corners of its cross-section."""
BELOW_MM = -4.0
"""Where the shell lies below the skin."""
AXIS_Z_MM = -80.0
"""Axis of the head: azimuths of hairlines are taken about it."""
HIDDEN = np.array([0.0, 10.0, -90.0])
"""Inside the head."""


@dataclass(frozen=True)
class Wardrobe:
    """The head's model with all props, and which vertices are what."""

    model: FaceModel
    """Mesh of head and props, for `HeadScene`; props count as skin there and follow the head's own vertices."""
    head_vertices: int
    shell: Index
    """(S,) skin vertices that the shell copies."""
    owner: NDArray[np.int16]
    """(W,) of each vertex: -1 head, 0 shell, 1.. blobs, then tubes and lenses of the glasses."""
    normals_of: tuple[Index, Index]
    """Triangles and weld of the head, for its normals."""

    @property
    def first_glass(self) -> int:
        """Owner number of the first part of the glasses; the two lenses come last."""
        return 1 + BLOBS


@dataclass(frozen=True)
class Dress:
    """What one sitter wears."""

    vertices: Array
    """(W, 3) mm, head and props, head frame."""
    colour: Array
    """(W, 3) diffuse albedo of props; 0 on the head."""
    gloss: Array
    """(W,) F0 of props."""
    worn: tuple[str, ...]
    """Names, for reports: "hair", "beard", "hat" ..."""


def wardrobe(model: FaceModel) -> Wardrobe:
    """The model of head and props."""
    near = np.maximum.reduce([model.regions[name] for name in ("scalp", "forehead", "beard", "ears")])
    near = np.maximum(near, _near_hairline(model.mean) * (1 - model.regions["face"]))
    skin = model.triangles[model.triangle_part == PARTS.index("skin")]
    chosen = skin[(near[skin] > 0.02).any(axis=1)]
    shell, local = np.unique(chosen, return_inverse=True)
    ball = geodesic(2)
    outward = ball.faces[:, ::-1]  # rigs look inwards
    triangles: list[NDArray[np.integer]] = [model.triangles, local.reshape(-1, 3) + model.vertex_count]
    owner = [np.full(model.vertex_count, -1), np.zeros(len(shell))]
    count = model.vertex_count + len(shell)
    for k in range(BLOBS):
        triangles.append(outward + count)
        owner.append(np.full(len(ball.vertices), 1 + k))
        count += len(ball.vertices)
    for k, mesh in enumerate([_tube_faces(n) for n in _tube_lengths()] + 2 * [_lens_faces()]):
        used = int(mesh.max()) + 1
        triangles.append(mesh + count)
        owner.append(np.full(used, 1 + BLOBS + k))
        count += used
    all_triangles = np.concatenate(triangles).astype(np.int32)
    # all of them take the material of one point on the scalp; F0 is set by pixel
    crown = model.uv[int(model.mean[:, 1].argmax())]
    uv = np.concatenate([model.uv, model.uv[shell], np.tile(crown, (count - model.vertex_count - len(shell), 1))])
    part = np.zeros(len(all_triangles), np.uint8)
    part[: len(model.triangle_part)] = model.triangle_part
    mean = np.concatenate(
        [model.mean, model.mean[shell], np.tile(HIDDEN, (len(uv) - model.vertex_count - len(shell), 1))]
    )
    dressed = replace(
        model, mean=mean.astype(np.float32), uv=uv.astype(np.float32), triangles=all_triangles, triangle_part=part
    )
    return Wardrobe(
        dressed, model.vertex_count, shell.astype(np.int32), np.concatenate(owner).astype(np.int16),
        (model.triangles, model.weld),
    )  # fmt: skip


def _near_hairline(mean: NDArray[np.floating]) -> F:
    """(V,) 1 on temples and sideburns, where no region of the model is but hair may grow."""
    return ((mean[:, 2] < 5) & (mean[:, 1] > -60)).astype(np.float64)


def _tube_lengths() -> tuple[int, ...]:
    """Points along the tubes of glasses: two rings, the bridge, two temples."""
    return (RING + 1, RING + 1, 4, 3, 3)


def _tube_faces(points: int) -> Index:
    k, j = np.meshgrid(np.arange(points - 1), np.arange(SIDES), indexing="ij")
    a, b = k * SIDES + j, k * SIDES + (j + 1) % SIDES
    quads = np.stack([a, b, b + SIDES, a + SIDES], axis=-1).reshape(-1, 4)
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]).astype(np.int32)


def _lens_faces() -> Index:
    k = np.arange(RING)
    return np.stack([np.full(RING, RING), k, (k + 1) % RING], axis=1).astype(np.int32)


def _tube(path: F, radius: float) -> F:
    """(points * SIDES, 3) vertices of a tube along a path (points, 3), its cross-section upright or level."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    helper = np.where(np.abs(tangent[:, 2:]) < 0.8, [[0.0, 0, 1]], [[0.0, 1, 0]])
    u = np.cross(helper, tangent)
    u /= np.maximum(np.linalg.norm(u, axis=1, keepdims=True), 1e-9)
    v = np.cross(tangent, u)
    angle = 2 * np.pi * np.arange(SIDES) / SIDES
    ring = np.cos(angle)[None, :, None] * u[:, None] + np.sin(angle)[None, :, None] * v[:, None]
    return (path[:, None] + radius * ring).reshape(-1, 3)


@dataclass
class _Outfit:
    """A dress while it is put on."""

    blobs: list[tuple[F, F, F]] = field(default_factory=lambda: [(HIDDEN, np.full(3, 0.5), np.eye(3))] * BLOBS)
    """Centre, radii, rotation of each."""
    colour: NDArray[np.float64] = field(default_factory=lambda: np.full((1 + BLOBS + 7, 3), 0.2))
    gloss: NDArray[np.float64] = field(default_factory=lambda: np.full(1 + BLOBS + 7, 0.02))
    worn: list[str] = field(default_factory=list)


def random_dress(
    clothes: Wardrobe, head: Array, skin_colour: Array, hair_colour: Array, lights: F, eye: F, rng: np.random.Generator
) -> Dress:
    """Dress a head (V, 3) of the model.

    Args:
        skin_colour, hair_colour: (3,) albedo.
        lights: (L, 3) unit vectors to the lights: a thing outside the picture may stand before one of them.
        eye: (3,) the camera, head frame.
    """
    outfit = _Outfit()
    stand_off = np.full(len(clothes.shell), BELOW_MM)
    mean = clothes.model.mean[clothes.shell].astype(np.float64)
    regions = {name: weight[clothes.shell] for name, weight in clothes.model.regions.items()}
    hatted = rng.random() < 0.08
    if rng.random() < 0.9:
        stand_off = np.maximum(stand_off, _hair(outfit, mean, regions, hatted, hair_colour, rng))
    if rng.random() < 0.15:
        outfit.worn.append("beard")
        full = np.clip((regions["beard"] - rng.uniform(0.3, 0.6)) / 0.2, 0, 1)
        stand_off = np.maximum(stand_off, BELOW_MM + full * (-BELOW_MM + rng.uniform(1, 14)))
    outfit.colour[0] = hair_colour
    felt = np.full(len(mean), BELOW_MM)
    if hatted:
        felt = _hat(outfit, mean, rng)
        stand_off = np.maximum(stand_off, felt)
    _shoulders(outfit, skin_colour, rng)
    glasses = _glasses(outfit, clothes, head, rng)
    if rng.random() < 0.12:
        _hand(outfit, head, skin_colour, rng)
    if rng.random() < 0.15:
        _outside(outfit, lights, eye, rng)
    normals = vertex_normals(head, *clothes.normals_of)[clothes.shell]
    shell = head[clothes.shell] + normals * stand_off[:, None]
    ball = geodesic(2).vertices
    blobs = [centre + (ball * radii) @ turn.T for centre, radii, turn in outfit.blobs]
    vertices = np.concatenate([head, shell, *blobs, *glasses]).astype(np.float32)
    owner = np.maximum(clothes.owner, 0)
    colour, gloss = outfit.colour[owner], outfit.gloss[owner]
    colour[: clothes.head_vertices] = 0
    under_hat = clothes.head_vertices + np.flatnonzero(felt > 0)
    colour[under_hat], gloss[under_hat] = outfit.colour[1 + BRIM], outfit.gloss[1 + BRIM]
    return Dress(vertices, colour.astype(np.float32), gloss.astype(np.float32), tuple(outfit.worn))


def _smoothstep(x: F) -> F:
    t = np.clip(x, 0, 1)
    return t * t * (3 - 2 * t)


def _ripple(angle: F, amounts: tuple[tuple[int, float], ...], rng: np.random.Generator) -> F:
    """Random smooth function of azimuth: sum of sines of given number a turn and height."""
    return np.sum(
        [a * np.sin(k * angle + p) for (k, a), p in zip(amounts, rng.uniform(0, 6.3, len(amounts)), strict=True)],
        axis=0,
    )


def _hair(
    outfit: _Outfit, mean: F, regions: dict[str, Array], hatted: bool, colour: Array, rng: np.random.Generator
) -> F:
    """(S,) stand-off of the hair in mm, and locks beside the face of long hair."""
    azimuth = np.arctan2(mean[:, 0], mean[:, 2] - AXIS_Z_MM)
    turn = np.degrees(np.abs(azimuth))
    fringe = rng.random() < 0.3
    top = rng.uniform(22, 45) if fringe else rng.uniform(48, 80)
    temple = rng.uniform(10, 35)
    sideburn = rng.uniform(-45, 5) if rng.random() < 0.5 else 5.0
    line = np.interp(
        turn,
        [0, 35, 52, 68, 76, 84, 106, 114, 180],
        [top, top - 2, top - rng.uniform(0, 22), temple, sideburn, 8, 8, -60, -85],
    )
    line = line + _ripple(azimuth, ((2, 3), (5, 2), (17, 2.0), (31, 2.5 if fringe else 1.2)), rng)
    grown = _smoothstep((mean[:, 1] - line) / rng.uniform(4, 14) + 0.5)
    thick = np.exp(rng.uniform(np.log(2), np.log(12 if hatted else 42)))
    volume = np.clip(0.35 + np.maximum(mean[:, 1] - line, 0) / 60, 0.35, 1.0)  # flat at the hairline, full at the crown
    waves = (
        1 + 0.2 * _ripple(azimuth, ((3, 0.5), (9, 0.4), (23, 0.3)), rng) + 0.1 * np.sin(mean[:, 1] / 6 + 3 * azimuth)
    )
    bare = 1 - 0.9 * regions["ears"] * (rng.random() < 0.7)
    outfit.worn.append("fringe" if fringe else "hair")
    gloss = rng.uniform(0.004, 0.025)
    if rng.random() < 0.4:
        outfit.worn.append("locks")
        inner, deep = rng.uniform(66, 84), rng.uniform(-75, -35)
        wide, low = rng.uniform(12, 24), rng.uniform(-130, -70)
        for k, number in enumerate(LOCKS):
            side = -1 if k % 2 else 1
            lower = k >= 2
            centre = np.array([
                side * (inner + rng.uniform(-4, 4) + 5 * lower), low if lower else 0.0, deep + rng.uniform(-8, 8)
            ])  # fmt: skip
            radii = np.array([wide * rng.uniform(0.9, 1.3), rng.uniform(65, 95), rng.uniform(38, 58)])
            tilt = Rotation.from_euler("z", rng.normal(0, 6), degrees=True).as_matrix()
            outfit.blobs[number] = (centre, radii, tilt)
    for number in LOCKS:
        outfit.colour[1 + number], outfit.gloss[1 + number] = colour, gloss
    outfit.gloss[0] = gloss
    return BELOW_MM + grown * bare * (-BELOW_MM + thick * volume * waves)


def _hat(outfit: _Outfit, mean: F, rng: np.random.Generator) -> F:
    """(S,) stand-off of a cap or hat, and its brim."""
    outfit.worn.append("hat")
    rim = rng.uniform(38, 62)
    slant = rng.uniform(-0.1, 0.35)
    above = mean[:, 1] - rim - slant * (mean[:, 2] + 60)
    colour = rng.uniform(0.01, 0.7, 3) * rng.uniform(0.2, 1)
    outfit.colour[1 + BRIM], outfit.gloss[1 + BRIM] = colour, 0.015
    thick = rng.uniform(6, 14)
    if rng.random() < 0.7:
        cap = rng.random() < 0.6
        centre = np.array([0, rim + slant * 90, 45.0]) if cap else np.array([0, rim + slant * 0, -60.0])
        radii = np.array([70, 3.0, 55]) if cap else np.array([125, 4.0, 140])
        turn = Rotation.from_euler("x", -np.degrees(np.arctan(slant)) + rng.normal(0, 4), degrees=True).as_matrix()
        outfit.blobs[BRIM] = (centre, radii * rng.uniform(0.9, 1.15), turn)
    return BELOW_MM + _smoothstep(above / 3 + 0.5) * (-BELOW_MM + thick)


def _shoulders(outfit: _Outfit, skin_colour: Array, rng: np.random.Generator) -> None:
    """Clothes below the neck, with a collar of another colour."""
    drop = rng.uniform(-280, -235)
    wide = rng.uniform(170, 240)
    outfit.blobs[SHOULDERS] = (
        np.array([rng.normal(0, 8), drop, -85 + rng.normal(0, 12)]), np.array([wide, rng.uniform(85, 125), 95.0]),
        np.eye(3),
    )  # fmt: skip
    cloth = rng.uniform(0.01, 0.8, 3) if rng.random() < 0.4 else np.full(3, np.exp(rng.uniform(-4, -0.3)))
    outfit.colour[1 + SHOULDERS] = cloth
    if rng.random() < 0.7:
        outfit.blobs[COLLAR] = (
            np.array([0.0, rng.uniform(-185, -150), -75.0]), np.array([rng.uniform(72, 88), 30, rng.uniform(68, 82)]),
            Rotation.from_euler("x", rng.uniform(5, 25), degrees=True).as_matrix(),
        )  # fmt: skip
    bare = rng.random() < 0.25
    outfit.colour[1 + COLLAR] = skin_colour if bare else rng.uniform(0.02, 0.85, 3) ** rng.uniform(0.3, 2)


def _glasses(outfit: _Outfit, clothes: Wardrobe, head: Array, rng: np.random.Generator) -> list[F]:
    """Vertices of rings, bridge, temples and lenses; sunglasses have dark lenses."""
    lengths = _tube_lengths()
    first = clothes.first_glass
    if rng.random() > 0.15:
        return [np.tile(HIDDEN, (n * SIDES, 1)) for n in lengths] + 2 * [np.tile(HIDDEN, (RING + 1, 1))]
    dark = rng.random() < 0.25
    outfit.worn.append("sunglasses" if dark else "glasses")
    eyes = head[np.unique(clothes.normals_of[0][_eye_triangles(clothes)])].astype(np.float64)
    left, right = (eyes[eyes[:, 0] * side > 0].mean(axis=0) for side in (-1, 1))
    half = (right[0] - left[0]) / 2
    wide, high = rng.uniform(0.62, 0.84) * half, rng.uniform(0.5, 0.8) * half
    corner = rng.uniform(2, 4)  # superellipse: round to rectangular
    front = float(max(left[2], right[2])) + rng.uniform(22, 30)
    t = 2 * np.pi * np.arange(RING + 1) / RING
    x = np.sign(np.cos(t)) * np.abs(np.cos(t)) ** (2 / corner) * wide
    y = np.sign(np.sin(t)) * np.abs(np.sin(t)) ** (2 / corner) * high
    thick = rng.uniform(0.7, 2.4)
    drop = rng.uniform(-6, 2)
    rings = []
    for centre in (left, right):
        away = np.abs(centre[0] + x) / half  # the front bends round the face
        rings.append(
            np.stack([centre[0] + x, centre[1] + drop + y, front - 5 * np.maximum(away - 0.3, 0) ** 2], axis=1)
        )
    gap = half - wide
    bridge = np.stack(
        [np.linspace(-gap, gap, 4), np.array([0, 3, 3, 0]) + left[1] + drop + 4, np.full(4, front)], axis=1
    )
    temples = []
    for side, centre in ((-1, left), (1, right)):
        hinge = centre[0] + side * wide
        temples.append(np.array([
            [hinge, centre[1] + drop + 5, front - 6], [side * (half * 2.35), centre[1] + 4, -20], [side * 80.0, 2, -80],
        ]))  # fmt: skip
    parts = [_tube(path, thick) for path in (*rings, bridge, *temples)]
    if dark:
        parts += [np.concatenate([ring[:RING], ring[:RING].mean(axis=0)[None] + [0, 0, 2]]) for ring in rings]
    else:
        parts += 2 * [np.tile(HIDDEN, (RING + 1, 1))]
    frame = rng.uniform(0.01, 0.1) * rng.uniform(0.5, 1, 3) if rng.random() < 0.7 else rng.uniform(0.2, 0.6, 3)
    outfit.colour[first : first + 5], outfit.gloss[first : first + 5] = frame, 0.05
    outfit.colour[first + 5 :], outfit.gloss[first + 5 :] = 0.01, 0.04
    return parts


def _eye_triangles(clothes: Wardrobe) -> NDArray[np.bool_]:
    own = clothes.model.triangle_part[: len(clothes.normals_of[0])]
    return np.asarray(own == PARTS.index("eyes"))


def _hand(outfit: _Outfit, head: Array, skin_colour: Array, rng: np.random.Generator) -> None:
    """Two to four fingers, side by side, against cheek, chin, mouth or brow."""
    outfit.worn.append("hand")
    side = rng.choice([-1, 1])
    place = np.array(
        [(side * 45, -60, 45), (side * 20, -110, 45), (side * 8, -75, 55), (side * 55, 30, 30)][rng.integers(4)]
    )
    place = place + rng.normal(0, 8, 3)
    turn = Rotation.from_euler("z", side * rng.uniform(-60, 60), degrees=True).as_matrix()
    number = rng.integers(2, 5)
    for k, blob in enumerate(FINGERS):
        if k < number:
            offset = turn @ np.array([(k - number / 2) * rng.uniform(15, 18), rng.normal(0, 6), rng.normal(0, 2)])
            tilt = turn @ Rotation.from_euler("zx", rng.normal(0, 6, 2), degrees=True).as_matrix()
            outfit.blobs[blob] = (place + offset, np.array([8.0, rng.uniform(34, 48), 8.0]), tilt)
            outfit.colour[1 + blob], outfit.gloss[1 + blob] = skin_colour * rng.uniform(0.9, 1.15), 0.03


def _outside(outfit: _Outfit, lights: F, eye: F, rng: np.random.Generator) -> None:
    """Something between one of the lights and the face, well to the side of the view: its shadow falls on the face."""
    towards = eye / np.linalg.norm(eye)
    aside = np.flatnonzero(np.abs(lights @ towards) < 0.7)
    if not len(aside):
        return
    outfit.worn.append("foreign shadow")
    light = lights[rng.choice(aside)]
    centre = np.array([0, -25, 20]) + light * rng.uniform(180, 500) + rng.normal(0, 35, 3)
    turn = Rotation.random(rng=rng).as_matrix()
    outfit.blobs[OUTSIDE] = (centre, np.exp(rng.uniform(np.log(8), np.log(90), 3)), turn)
