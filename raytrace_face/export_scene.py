"""The result as a Mitsuba scene: XML, PLY and EXR files that render to the picture of `Reconstruction.render`.

`scene.xml` uses the package's own skin BSDF (`import raytrace_face.backend; raytrace_face.backend.start()` before
`mi.load_file`); `scene_stock.xml` is an approximation for the plain `mitsuba` command.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import interpn

from lightstage.environment import sh_basis, sh_to_latlong
from lightstage.rig import AreaLights
from raytrace_face.export import ENVIRONMENT_HEIGHT, write_exr, write_triangles
from raytrace_face.face.model import PARTS, FaceModel
from raytrace_face.face.parts import PART_MATERIALS, eye_texture
from raytrace_face.types import Camera, Maps

if TYPE_CHECKING:
    from raytrace_face.result import Reconstruction

SPP = 256
"""Samples a pixel of the exported scene; `mitsuba -Dspp=16 scene.xml` overrides it."""

NOTE = """Reconstruction of {photo} by raytrace_face. Head frame: x right, y up, z out of the face, millimetres.
     The camera is the photo's, on the fitted window. {bsdf}
     The radiance of each area light includes that of the surroundings it hides."""
OWN = """Needs the plugin "skin": in Python, `import mitsuba as mi, raytrace_face.backend as b; b.start();
     mi.render(mi.load_file("scene.xml"))`."""
STOCK = """Stock BSDFs only, for `mitsuba scene_stock.xml`. What differs from scene.xml: roughness between that of two
     `roughplastic` is a blend of them (the plugin takes no texture for it), and grazing reflectance follows Fresnel's
     equations instead of Schlick's. On two faces the pictures differ by 44 and 46 dB."""
STOCK_ROUGHNESS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
STOCK_F0 = (0.02, 0.03, 0.04, 0.06)
STOCK_DIFFUSE = (
    (0.98, 1.03, 1.11, 1.24, 1.40, 1.60, 1.83),
    (0.97, 1.02, 1.12, 1.26, 1.46, 1.69, 1.97),
    (0.96, 1.01, 1.12, 1.28, 1.50, 1.77, 2.10),
    (0.95, 1.01, 1.14, 1.33, 1.60, 1.94, 2.36),
)
STOCK_SPECULAR = (
    (0.70, 0.65, 0.65, 0.66, 0.69, 0.73, 0.78),
    (0.79, 0.78, 0.77, 0.78, 0.80, 0.83, 0.86),
    (0.86, 0.87, 0.87, 0.86, 0.87, 0.89, 0.91),
    (0.88, 0.88, 0.87, 0.87, 0.89, 0.90, 0.93),
)
"""Diffuse and specular reflectance that `roughplastic` needs to be as bright as the skin BSDF of albedo 1, by F0 (rows)
and roughness: it loses light between the facets, which our base does not, and its F90 is always 1. Means over views
within 73 and lights within 78 degrees of the normal, evaluated in Mitsuba 3.9 (a test repeats it)."""
SCENES = ("scene.xml", "scene_stock.xml")


def write_scene(result: Reconstruction, folder: Path, names: tuple[str, ...] = SCENES) -> None:
    """Write the scenes `names`, `meshes/` and `textures/` into a folder, which is made if need be."""
    (folder / "meshes").mkdir(parents=True)
    textures = folder / "textures"
    textures.mkdir()
    model = result.face_model()
    parts = write_part_meshes(model, result.vertices(), folder / "meshes")
    if "scene.xml" in names:
        for name in ("diffuse", "specular", "roughness"):
            write_exr(textures / f"{name}.exr", getattr(result.maps, name))
        write_exr(textures / "eyes.exr", eye_texture())
    ambient = np.asarray(result.ambient_sh, np.float64)
    surroundings = sh_to_latlong(ambient, ENVIRONMENT_HEIGHT)
    lit = bool(surroundings.max() > 0)
    if lit:
        write_exr(textures / "ambient.exr", surroundings)
    area = result.lights.area_lights()
    for index, corners in enumerate(area.corners):
        write_triangles(folder / "meshes" / f"light_{index:02d}.ply", corners, np.array([[0, 1, 2]]))
    camera = sensor(result.camera.windowed(result.window), result.face.T_camera_head)
    lights = emitters(area, ambient, lit)
    for name in names:
        if name == "scene.xml":
            note, bsdfs = OWN, [_skin(part) for part in parts]
        else:
            note = STOCK
            bsdfs = [_stock_skin(result.maps, textures) if p == "skin" else _stock_part(p, textures) for p in parts]
        shapes = [_shape(part, bsdf) for part, bsdf in zip(parts, bsdfs, strict=True)]
        comment = NOTE.format(photo=result.photo_name, bsdf=note).replace("--", "- -")
        text = "\n".join([f"<!-- {comment} -->", '<scene version="3.0.0">', HEAD, camera, *shapes, *lights, "</scene>"])
        (folder / name).write_text(text + "\n", encoding="utf-8")


def write_part_meshes(model: FaceModel, vertices: NDArray[np.floating], folder: Path) -> list[str]:
    """One PLY for each part of the model that has triangles; the names of the parts.

    Without normals: Mitsuba computes them as it does for the tracer's own meshes.
    """
    written = []
    for number, part in enumerate(PARTS):
        triangles = model.triangles[model.triangle_part == number]
        if len(triangles):
            used, local = np.unique(triangles, return_inverse=True)
            write_triangles(folder / f"{part}.ply", vertices[used], local.reshape(-1, 3), uv=model.uv[used])
            written.append(part)
    return written


MIN_ROUGHNESS = 0.05
"""As `tracer.skin.MIN_ROUGHNESS`, which cannot be imported without the tracer."""
HEAD = f"""    <default name="spp" value="{SPP}"/>
    <integrator type="path">
        <integer name="max_depth" value="2"/>
        <boolean name="hide_emitters" value="true"/>
    </integrator>"""


def sensor(camera: Camera, T_camera_head: NDArray[np.floating]) -> str:
    """A `perspective` sensor. Mitsuba's camera looks along +z with x to the *left*: ours turned by pi about y."""
    to_world = np.linalg.inv(np.asarray(T_camera_head, np.float64)) @ np.diag([-1.0, 1.0, -1.0, 1.0])
    fov = math.degrees(2 * math.atan(camera.width / (2 * camera.focal_px)))
    cx, cy = camera.principal_px
    return f"""    <sensor type="perspective">
        <string name="fov_axis" value="x"/>
        <float name="fov" value="{fov!r}"/>
        <float name="near_clip" value="1"/>
        <float name="far_clip" value="100000"/>
        <float name="principal_point_offset_x" value="{0.5 - cx / camera.width!r}"/>
        <float name="principal_point_offset_y" value="{0.5 - cy / camera.height!r}"/>
        <transform name="to_world"><matrix value="{" ".join(repr(float(v)) for v in to_world.ravel())}"/></transform>
        <sampler type="independent"><integer name="sample_count" value="$spp"/></sampler>
        <film type="hdrfilm">
            <integer name="width" value="{camera.width}"/>
            <integer name="height" value="{camera.height}"/>
            <string name="pixel_format" value="rgb"/>
            <string name="component_format" value="float32"/>
            <rfilter type="box"/>
        </film>
    </sensor>"""


def light_radiance(area: AreaLights, ambient_sh: NDArray[np.floating]) -> NDArray[np.float64]:
    """Radiance (L, 3) of lights that hide the surroundings behind them: their own and that of the surroundings.

    `Reconstruction.render` has both shine, so a scene in which a light is an opaque thing must make up for it.
    """
    points = np.concatenate([area.corners, area.corners.mean(axis=1, keepdims=True)], axis=1)
    directions = points / np.linalg.norm(points, axis=2, keepdims=True)
    return area.radiance + np.maximum(sh_basis(directions) @ ambient_sh, 0).mean(axis=1)


def emitters(area: AreaLights, ambient_sh: NDArray[np.floating], lit: bool) -> list[str]:
    """Area lights and surroundings. A light hides the surroundings behind it, so its radiance includes them."""
    lines = [
        f"""    <shape type="ply" id="light_{index:02d}">
        <string name="filename" value="meshes/light_{index:02d}.ply"/>
        <emitter type="area"><rgb name="radiance" value="{_rgb(radiance)}"/></emitter>
    </shape>"""
        for index, radiance in enumerate(light_radiance(area, ambient_sh))
    ]
    if lit:
        lines.append("""    <emitter type="envmap"><string name="filename" value="textures/ambient.exr"/></emitter>""")
    return lines


def _rgb(values: NDArray[np.floating]) -> str:
    return " ".join(repr(float(v)) for v in values)


def _shape(part: str, bsdf: str) -> str:
    return f"""    <shape type="ply" id={quoteattr(part)}>
        <string name="filename" value="meshes/{part}.ply"/>
        <boolean name="flip_tex_coords" value="true"/>
{bsdf}
    </shape>"""


def _texture(name: str, file: str) -> str:
    return f"""            <texture type="bitmap" name="{name}">
                <string name="filename" value="textures/{file}.exr"/>
                <boolean name="raw" value="true"/>
                <string name="wrap_mode" value="clamp"/>
            </texture>"""


def _skin(part: str) -> str:
    if part == "skin":
        inner = [_texture(name, name) for name in ("diffuse", "specular", "roughness")]
    else:
        colour, f0, roughness = PART_MATERIALS[part]
        inner = [
            _texture("diffuse", "eyes")
            if part == "eyes"
            else f'            <rgb name="diffuse" value="{_rgb(np.array(colour))}"/>',
            f'            <rgb name="specular" value="{_rgb(np.array([f0] * 3))}"/>',
            f'            <float name="roughness" value="{roughness}"/>',
        ]
    return "\n".join(['        <bsdf type="skin">', *inner, "        </bsdf>"])


def stock_factors(f0: float, roughness: float) -> tuple[float, float]:
    """Diffuse and specular reflectance of a `roughplastic` as bright as the skin BSDF of albedo 1 (STOCK_DIFFUSE)."""
    at = (np.clip(f0, STOCK_F0[0], STOCK_F0[-1]), np.clip(roughness, STOCK_ROUGHNESS[0], STOCK_ROUGHNESS[-1]))
    grid = (STOCK_F0, STOCK_ROUGHNESS)
    diffuse, specular = (float(interpn(grid, np.array(t), at)[0]) for t in (STOCK_DIFFUSE, STOCK_SPECULAR))
    return diffuse, specular


def _stock_part(part: str, textures: Path) -> str:
    """A part that no map covers, as `roughplastic`."""
    colour, f0, roughness = PART_MATERIALS[part]
    diffuse, specular = stock_factors(f0, roughness)
    if part == "eyes":
        write_exr(textures / "eyes_stock.exr", np.minimum(diffuse * eye_texture(), 1))
        base = _texture("diffuse_reflectance", "eyes_stock")
    else:
        matte = np.minimum(diffuse * np.array(colour), 1)
        base = f'            <rgb name="diffuse_reflectance" value="{_rgb(matte)}"/>'
    shine = f'            <float name="specular_reflectance" value="{specular!r}"/>'
    return _plastic(f0, roughness, base, shine)


def _stock_skin(maps: Maps, textures: Path) -> str:
    """The skin as a blend of two `roughplastic`, at the 5th and 95th percentile of the roughness that was seen.

    The blend's texture stands for the map of roughness, that of `specular_reflectance` for the map of F0.
    """
    seen = maps.confidence > 0.5
    seen = seen if seen.any() else np.ones_like(seen)
    f0 = max(float(maps.specular[seen].mean()), 1e-4)
    low, high = (float(r) for r in np.percentile(maps.roughness[seen], (5, 95)))
    write_exr(textures / "blend_stock.exr", np.clip((maps.roughness - low) / max(high - low, 1e-6), 0, 1))
    layers = []
    for name, roughness in (("smooth", low), ("rough", high)):
        diffuse, specular = stock_factors(f0, roughness)
        write_exr(textures / f"diffuse_{name}.exr", np.minimum(diffuse * maps.diffuse, 1))
        write_exr(textures / f"specular_{name}.exr", specular / f0 * maps.specular)
        base, shine = (_texture(f"{k}_reflectance", f"{k}_{name}") for k in ("diffuse", "specular"))
        layers.append(_plastic(f0, roughness, base, shine))
    return "\n".join(['        <bsdf type="blendbsdf">', _texture("weight", "blend_stock"), *layers, "        </bsdf>"])


def _plastic(f0: float, roughness: float, base: str, shine: str) -> str:
    """`roughplastic` with the index of refraction that gives F0: eta = (1 + sqrt F0) / (1 - sqrt F0)."""
    root = math.sqrt(min(max(f0, 1e-4), 0.5))
    return f"""        <bsdf type="roughplastic">
            <string name="distribution" value="ggx"/>
            <float name="alpha" value="{max(roughness, MIN_ROUGHNESS) ** 2!r}"/>
            <float name="int_ior" value="{(1 + root) / (1 - root)!r}"/>
            <float name="ext_ior" value="1"/>
{base}
{shine}
        </bsdf>"""
