"""A sitting: one person, one pose, under many lights, one at a time (Debevec et al. 2000).

For fixed geometry a photo is linear in its lights, so that tracing the head once under each of them is enough for any
number of photos: `raytrace_face.learn.synthesis.lighting` adds them up anew in every epoch. Traced are diffuse shading
and highlight under area lights of random direction and size, and under six smooth lobes from which every order-2
ambient that is a mixture of them follows; shadows are ray-traced, those of hair, hats, glasses and hands too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from lightstage.environment import lobes
from lightstage.rig import AreaLights, directional_lights, geodesic
from raytrace_face.face.model import PARTS, FaceModel
from raytrace_face.face.parts import PART_MATERIALS, eye_texture
from raytrace_face.learn.synthesis.people import Sitter, random_sitter
from raytrace_face.learn.synthesis.props import LOCKS, Dress, Wardrobe, random_dress, wardrobe
from raytrace_face.learn.synthesis.skin import TEXTURE, Atlas, Skin, random_skin
from raytrace_face.types import Array, Camera

if TYPE_CHECKING:
    from raytrace_face.tracer.render import GBuffer
    from raytrace_face.tracer.scene import HeadScene

F = NDArray[np.float64]

LIGHTS = 24
"""Lights of a sitting: an epoch uses one to three of them in a photo."""
RADIUS_DEG = (0.3, 20.0)
"""Angular radius of lights, log-uniform: the sun to a large window."""
SAMPLES, SKY_SAMPLES = 4, 2
"""Rays a pixel and light; of the sky, which is the mean of 42 directions."""
SKY_LEVEL, SKY_RADIUS_DEG = 1, 10.0
"""Geodesic level of the directions that stand for the sky, and their radius, as in the fit."""
SKY_AXES = np.array([(1.0, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)])
"""Axes of the lobes, camera frame: right, left, above, below, behind the camera, behind the head."""
EYE_ROUGHNESS = 0.12
"""Perceptual roughness of the wet eye: sharp catch lights tell where the light is."""
QUARTER = np.float32(0.25)
MAP = 128
"""Texels a side of the albedo map that is kept as truth."""


@dataclass(frozen=True)
class Truth:
    """What the network shall find, besides the lights of a photo."""

    identity: Array
    """(K,) sigma."""
    expression: Array
    """(E,) [0, 1]."""
    T_camera_head: Array
    """(4, 4) mm, camera of the crop."""
    focal_px: float
    """Crop pixels."""
    principal_px: tuple[float, float]
    landmarks_px: Array
    """(N, 2) crop pixels, order of the model's landmarks."""
    detected_px: Array
    """(478, 2) what the landmark network saw in one photo of the sitting, crop pixels; NaN where it saw no face."""
    blendshapes: Array
    """(E,) expression weights that the network saw, order of the model; NaN where it saw no face."""
    light_directions: Array
    """(L, 3) unit vectors to the lights, head frame."""
    light_radius_deg: Array
    """(L,) angular radius."""
    sky_axes: Array
    """(6, 3) axes of the lobes, head frame."""
    albedo_coefficients: Array
    """(M,) sigma."""
    albedo_map: Array
    """(MAP, MAP, 3) diffuse albedo on the atlas, linear, row 0 at v = 1."""
    specular_map: Array
    """(MAP, MAP) F0."""
    roughness_map: Array
    """(MAP, MAP) perceptual roughness."""


@dataclass(frozen=True)
class Sitting:
    """A traced sitting: a photo is  albedo * sum_l w_l diffuse_l + sum_l w_l gloss_l  over the lights and lobes."""

    albedo: Array
    """(S, S, 3) diffuse albedo of what is seen, linear. Like the planes it goes on where the head ends."""
    coverage: Array
    """(S, S) share of the pixel that head and props cover."""
    mask: Array
    """(S, S) share of the pixel that visible skin of the face covers: not hair, glasses, eyes, ears."""
    diffuse: Array
    """(L + 6, S, S) radiance of white matte skin under irradiance / pi of 1, then under lobes of radiance 1."""
    gloss: Array
    """(L + 6, S, S) radiance of the highlight, F0 included."""
    truth: Truth
    worn: tuple[str, ...]
    """What the sitter wears."""

    def plane(self, kind: str, number: int) -> Array:
        """(S, S) one-light image, "diffuse" or "gloss"."""
        return np.asarray((self.diffuse if kind == "diffuse" else self.gloss)[number])

    def sky(self, kind: str) -> Array:
        """(6, S, S) images under the lobes, "diffuse" or "gloss"."""
        return np.asarray((self.diffuse if kind == "diffuse" else self.gloss)[-len(SKY_AXES) :])


class Studio:
    """What all sittings share in one process. Needs a started backend."""

    def __init__(self, model: FaceModel) -> None:
        from raytrace_face.tracer.scene import HeadScene
        from raytrace_face.tracer.texture import texel_map

        self.model = model
        self.atlas = Atlas(model, texel_map(model, TEXTURE))
        self.clothes: Wardrobe = wardrobe(model)
        self.head: HeadScene = HeadScene(self.clothes.model)


def random_lights(rng: np.random.Generator, count: int = LIGHTS) -> tuple[F, F]:
    """Directions (L, 3), camera frame, and angular radii (L,) in degrees.

    Even over the sphere, but half as many from the side behind and a fourth from behind and from far below.
    """
    chosen: list[F] = []
    low, high = np.log(RADIUS_DEG)
    while len(chosen) < count:
        d = rng.normal(size=3)
        d /= np.linalg.norm(d)
        keep = (1.0 if d[2] > 0 else 0.5 if d[2] > -0.5 else 0.25) * (0.25 if d[1] < -0.5 else 1.0)
        if rng.random() < keep:
            chosen.append(d)
    return np.array(chosen), np.exp(rng.uniform(low, high, count))


def area_lights(directions: NDArray[np.floating], radii_deg: NDArray[np.floating]) -> AreaLights:
    """Far lights (L, 3) of given angular radii (L,), each with irradiance / pi of 1.

    `directional_lights` normalises by the form factor of a small light, tan^2; that of a disc of angular radius a is
    sin^2: 12 % less at 20 degrees.
    """
    each = [
        directional_lights(d[None].astype(np.float64), float(r)) for d, r in zip(directions, radii_deg, strict=True)
    ]
    gain = 1 / np.cos(np.radians(np.asarray(radii_deg, np.float64))) ** 2
    return AreaLights(
        np.concatenate([x.corners for x in each]), np.concatenate([x.radiance for x in each]) * gain[:, None]
    )


@dataclass(frozen=True)
class Posed:
    """A sitting before it is traced."""

    sitter: Sitter
    skin: Skin
    dress: Dress
    light_directions: F
    """(L, 3) head frame."""
    light_radius_deg: F
    """(L,)"""


def pose_sitting(studio: Studio, size: int, rng: np.random.Generator) -> Posed:
    """A random person, dressed, before the camera, and the lights round the head."""
    sitter = random_sitter(studio.model, size, rng)
    skin = random_skin(studio.atlas, rng)
    R, t = sitter.face.T_camera_head[:3, :3].astype(np.float64), sitter.face.T_camera_head[:3, 3]
    directions, radii = random_lights(rng)
    directions = directions @ R  # camera -> head
    tone = np.median(skin.diffuse[studio.atlas.regions["cheeks"] > 0.5], axis=0)
    head = studio.model.vertices(sitter.face.identity, sitter.face.expression)
    dress = random_dress(studio.clothes, head, tone, skin.hair, directions, -R.T @ t, rng)
    return Posed(sitter, skin, dress, directions, radii)


def trace_sitting(studio: Studio, size: int, seed: int, number: int) -> Sitting:
    """The sitting of a given number: a function of (seed, number, size) alone.

    Args:
        size: pixels a side of the crop.
    """
    rng = np.random.default_rng([seed, number])
    posed = pose_sitting(studio, size, rng)
    face, camera, skin = posed.sitter.face, posed.sitter.camera, posed.skin
    studio.head.move(posed.dress.vertices)
    surface = _surface(studio, posed, size, rng)
    diffuse, gloss = _trace(studio, posed, surface, int(rng.integers(1 << 30)))
    unseen = np.full((478, 2), np.nan, np.float32), np.full(len(face.expression), np.nan, np.float32)
    truth = Truth(
        face.identity, face.expression, face.T_camera_head, camera.focal_px, camera.principal_px,
        posed.sitter.landmarks_px, *unseen, posed.light_directions.astype(np.float32),
        posed.light_radius_deg.astype(np.float32), (SKY_AXES @ face.T_camera_head[:3, :3]).astype(np.float32),
        skin.coefficients, *(_reduced(x) for x in (skin.diffuse, skin.specular, skin.roughness)),
    )  # fmt: skip
    # what is seen goes on beyond the outline, so that neither blur nor JPEG mixes it with black
    near = tuple(distance_transform_edt(surface.coverage == 0, return_distances=False, return_indices=True))
    albedo, diffuse, gloss = surface.albedo[near], diffuse[:, *near], gloss[:, *near]
    sitting = Sitting(albedo, surface.coverage, surface.mask, diffuse, gloss, truth, posed.dress.worn)
    return _detected(studio.model, sitting, rng)


def _reduced(texture: Array) -> Array:
    """Map of MAP texels a side: means of blocks."""
    block = len(texture) // MAP
    return texture.reshape(MAP, block, MAP, block, *texture.shape[2:]).mean(axis=(1, 3)).astype(np.float32)


def _detected(model: FaceModel, sitting: Sitting, rng: np.random.Generator) -> Sitting:
    """The sitting with what the landmark network makes of one photo of it: its errors are part of the truth."""
    from raytrace_face.capture.landmarks import face_near
    from raytrace_face.learn.synthesis.camera import shoot
    from raytrace_face.learn.synthesis.lighting import photograph, random_lighting

    t = sitting.truth
    light = random_lighting(t.light_directions @ t.T_camera_head[:3, :3].T, t.light_radius_deg, rng)
    shot = shoot(photograph(sitting, light), sitting.coverage, sitting.mask, rng)
    rough = np.repeat(t.landmarks_px.mean(axis=0)[None], 478, axis=0)
    rough[model.landmark_index] = t.landmarks_px
    face = face_near(shot.codes, rough)
    if face is None:
        return sitting
    weights = np.array([face.blendshapes.get(name, 0.0) for name in model.expression_names], np.float32)
    return replace(sitting, truth=replace(t, detected_px=face.landmarks_px.astype(np.float32), blendshapes=weights))


@dataclass(frozen=True)
class _Surface:
    """What each pixel shows: means of 2 x 2 rays."""

    albedo: Array
    coverage: Array
    mask: Array
    f0: Array
    eyes: NDArray[np.bool_]
    """(S, S) mostly eye."""


def _surface(studio: Studio, posed: Posed, size: int, rng: np.random.Generator) -> _Surface:
    from raytrace_face.tracer.render import gbuffer

    c = posed.sitter.camera
    fine = Camera(2 * size, 2 * size, 2 * c.focal_px, (2 * c.principal_px[0], 2 * c.principal_px[1]))
    g = gbuffer(studio.head, fine, posed.sitter.face.T_camera_head)
    hit = g.part != 255
    owner = np.where(hit, studio.clothes.owner[g.corners[:, 0]], -1)
    albedo, f0 = _reflectance(studio, g, owner, posed, rng)
    own = hit & (owner < 0)
    face = own & (g.part == PARTS.index("skin")) & (g.interpolate(_face_weight(studio)) > 0.5)
    eyes = own & (g.part == PARTS.index("eyes"))

    def pooled(values: NDArray[Any]) -> Array:
        return np.asarray(values.reshape(size, 2, size, 2, -1).sum(axis=(1, 3)), np.float32)

    rays = pooled(hit)
    share = np.asarray(1 / np.maximum(rays, 1), np.float32)
    return _Surface(
        pooled(albedo * hit[:, None]) * share, rays[..., 0] * QUARTER, pooled(face)[..., 0] * QUARTER,
        (pooled((f0 * hit)[:, None]) * share)[..., 0], pooled(eyes)[..., 0] >= 2,
    )  # fmt: skip


def _face_weight(studio: Studio) -> Array:
    """(W,) region "face" over head and props."""
    weight = np.zeros(len(studio.clothes.owner), np.float32)
    weight[: studio.clothes.head_vertices] = studio.model.regions["face"]
    return weight


def _reflectance(
    studio: Studio, g: GBuffer, owner: NDArray[np.integer], posed: Posed, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Diffuse albedo (P, 3) and F0 (P,) of what the rays of a G-buffer meet."""
    from raytrace_face.fit.stage2 import sample_texture

    skin, dress = posed.skin, posed.dress

    albedo = sample_texture(skin.diffuse, g.uv)
    f0 = sample_texture(skin.specular, g.uv)
    shade = rng.uniform(0.45, 0.9)  # lips and lids keep light from mouth and eyes
    for name, (colour, fresnel, _) in PART_MATERIALS.items():
        here = (g.part == PARTS.index(name)) & (owner < 0)
        albedo[here] = (
            sample_texture(eye_texture(iris=tuple(skin.iris.tolist())), g.uv[here]) if name == "eyes" else colour
        )
        albedo[here] *= shade
        f0[here] = fresnel
    props = owner >= 0
    albedo[props] = g.interpolate(dress.colour)[props]
    # hair and cloth are no smooth sheets: without this their outlines sparkle
    facing = np.clip(2 * (g.normal * g.view).sum(axis=1), 0, 1)
    f0[props] = (g.interpolate(dress.gloss) * facing)[props]
    hair = (owner == 0) | np.isin(owner, [1 + lock for lock in LOCKS])
    albedo[hair] *= _strands(dress, g, hair, rng)[:, None]
    return albedo, f0


def _strands(dress: Dress, g: GBuffer, here: NDArray[np.bool_], rng: np.random.Generator) -> Array:
    """(n,) brightness of hair: streaks that run down from the crown."""
    at = replace(g, **{name: getattr(g, name)[here] for name in g.__dataclass_fields__})
    position = at.interpolate(dress.vertices)
    turn = np.arctan2(position[:, 0], position[:, 2] + 80)
    table = np.exp(rng.uniform(0.2, 0.6) * rng.normal(size=720))
    wander = 6 * np.sin(position[:, 1] / 15 + rng.uniform(0, 6))
    index = (turn * (360 / np.pi) + wander + rng.normal(0, 1.0, len(turn))).astype(np.int64) % 720
    return table[index].astype(np.float32)


def _trace(studio: Studio, posed: Posed, surface: _Surface, seed: int) -> tuple[Array, Array]:
    """One-light images (L + 6, S, S) of diffuse shading and highlight."""
    from raytrace_face.tracer.onelight import head_transport
    from raytrace_face.tracer.render import View

    size = surface.coverage.shape[0]
    dense = geodesic(SKY_LEVEL).vertices
    T, skin = posed.sitter.face.T_camera_head, posed.skin
    axes = SKY_AXES @ T[:3, :3].astype(np.float64)
    mix = (lobes(dense, axes) * (4 / len(dense))).astype(np.float32)
    lamps, sky = (
        area_lights(posed.light_directions, posed.light_radius_deg),
        area_lights(dense, np.full(len(dense), SKY_RADIUS_DEG)),
    )
    diffuse = np.zeros((len(lamps.corners) + len(axes), size * size), np.float32)
    gloss = np.zeros_like(diffuse)
    eyes = surface.eyes.ravel()
    wet = np.full_like(skin.roughness, EYE_ROUGHNESS)
    for chosen, roughness in ((~eyes & (surface.coverage.ravel() > 0), skin.roughness), (eyes, wet)):
        pixels = np.flatnonzero(chosen)
        if not len(pixels):
            continue
        view = View(posed.sitter.camera, pixels, SAMPLES)
        few = replace(view, samples=SKY_SAMPLES)
        lit = head_transport(studio.head, view, T, lamps, skin.specular, roughness, seed)
        ambient = head_transport(studio.head, few, T, sky, skin.specular, roughness, seed + 1)
        diffuse[:, pixels] = np.concatenate([lit.diffuse, ambient.diffuse @ mix], axis=1).T
        f0 = surface.f0.ravel()[pixels]
        gloss[:, pixels] = np.concatenate([lit.specular, ambient.specular @ mix], axis=1).T * f0
    return diffuse.reshape(-1, size, size), gloss.reshape(-1, size, size)
