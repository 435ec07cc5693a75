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

from lightstage.environment import sh_basis, sh_to_latlong
from lightstage.rig import AreaLights
from raytrace_face.export import ENVIRONMENT_HEIGHT, write_exr, write_triangles
from raytrace_face.face.model import PARTS, FaceModel
from raytrace_face.face.parts import PART_MATERIALS, eye_texture
from raytrace_face.types import Camera

if TYPE_CHECKING:
    from raytrace_face.result import Reconstruction

SPP = 256
"""Samples a pixel of the exported scene; `mitsuba -Dspp=16 scene.xml` overrides it."""

NOTE = """Reconstruction of {photo} by raytrace_face. Head frame: x right, y up, z out of the face, millimetres.
     The camera is the photo's, on the fitted window. {bsdf}
     The radiance of each area light includes that of the surroundings it hides."""
OWN = """Needs the plugin "skin": in Python, `import mitsuba as mi, raytrace_face.backend as b; b.start();
     mi.render(mi.load_file("scene.xml"))`."""
STOCK = """Stock BSDFs only, for `mitsuba scene_stock.xml`. What differs from scene.xml: the maps of specular and
     roughness are replaced by their means (`roughplastic` takes no textures for them), light that is reflected inside
     the layer comes out again, which scene.xml leaves out (made up for by a constant factor on the diffuse map), and
     grazing reflectance follows Fresnel's equations instead of Schlick's. Expect up to 10 per cent."""
STOCK_DIFFUSE = 1.20
"""Diffuse albedo of `roughplastic` over that of the skin BSDF for equal brightness, measured at F0 = 0.035, r = 0.5."""


def write_scene(result: Reconstruction, folder: Path) -> None:
    """Write `scene.xml`, `scene_stock.xml`, `meshes/` and `textures/` into a new folder."""
    (folder / "meshes").mkdir(parents=True)
    (folder / "textures").mkdir()
    model = result.face_model()
    parts = write_part_meshes(model, result.vertices(), folder / "meshes")
    for name in ("diffuse", "specular", "roughness"):
        write_exr(folder / "textures" / f"{name}.exr", getattr(result.maps, name))
    stock = np.minimum(STOCK_DIFFUSE * result.maps.diffuse, 1)
    write_exr(folder / "textures" / "diffuse_stock.exr", stock)
    write_exr(folder / "textures" / "eyes.exr", eye_texture())
    write_exr(folder / "textures" / "eyes_stock.exr", np.minimum(STOCK_DIFFUSE * eye_texture(), 1))
    ambient = np.asarray(result.ambient_sh, np.float64)
    surroundings = sh_to_latlong(ambient, ENVIRONMENT_HEIGHT)
    lit = bool(surroundings.max() > 0)
    if lit:
        write_exr(folder / "textures" / "ambient.exr", surroundings)
    area = result.lights.area_lights()
    for index, corners in enumerate(area.corners):
        write_triangles(folder / "meshes" / f"light_{index:02d}.ply", corners, np.array([[0, 1, 2]]))
    camera = sensor(result.camera.windowed(result.window), result.face.T_camera_head)
    lights = emitters(area, ambient, lit)
    means = {"skin": (float(result.maps.specular.mean()), float(result.maps.roughness.mean()))}
    means |= {part: (f0, roughness) for part, (_, f0, roughness) in PART_MATERIALS.items()}
    for name, note, bsdfs in (
        ("scene.xml", OWN, [_skin(part) for part in parts]),
        ("scene_stock.xml", STOCK, [_plastic(part, *means[part]) for part in parts]),
    ):
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


def emitters(area: AreaLights, ambient_sh: NDArray[np.floating], lit: bool) -> list[str]:
    """Area lights and surroundings. A light hides the surroundings behind it, so its radiance includes them."""
    lines = []
    for index, (corners, radiance) in enumerate(zip(area.corners, area.radiance, strict=True)):
        points = np.concatenate([corners, corners.mean(axis=0, keepdims=True)])
        directions = points / np.linalg.norm(points, axis=1, keepdims=True)
        hidden = np.maximum(sh_basis(directions) @ ambient_sh, 0).mean(axis=0)
        lines.append(f"""    <shape type="ply" id="light_{index:02d}">
        <string name="filename" value="meshes/light_{index:02d}.ply"/>
        <emitter type="area"><rgb name="radiance" value="{_rgb(radiance + hidden)}"/></emitter>
    </shape>""")
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


def _plastic(part: str, f0: float, roughness: float) -> str:
    """`roughplastic` with the index of refraction that gives F0: eta = (1 + sqrt F0) / (1 - sqrt F0)."""
    root = math.sqrt(min(max(f0, 1e-4), 0.5))
    inner = [
        '            <string name="distribution" value="ggx"/>',
        f'            <float name="alpha" value="{max(roughness, MIN_ROUGHNESS) ** 2!r}"/>',
        f'            <float name="int_ior" value="{(1 + root) / (1 - root)!r}"/>',
        '            <float name="ext_ior" value="1"/>',
    ]
    if part in ("skin", "eyes"):
        inner.append(_texture("diffuse_reflectance", "diffuse_stock" if part == "skin" else "eyes_stock"))
    else:
        colour = np.minimum(STOCK_DIFFUSE * np.array(PART_MATERIALS[part][0]), 1)
        inner.append(f'            <rgb name="diffuse_reflectance" value="{_rgb(colour)}"/>')
    return "\n".join(['        <bsdf type="roughplastic">', *inner, "        </bsdf>"])
