"""Rebuild a face in Blender, 3.3 or newer, for Cycles:  blender --python scene.py

Reads head.npz, scene.json and textures/, which raytrace_face wrote beside this file, and makes a new scene
"raytrace_face": the head with a shape key an expression, its materials, the camera of the photo, the lights and the
surroundings. Metres; Blender's axes (z up, the face looks along -y). Everything was converted before it was written,
so there is no geometry here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bpy  # type: ignore[import-not-found]
import mathutils  # type: ignore[import-not-found]
import numpy as np

FOLDER = Path(__file__).resolve().parent


def build() -> Any:
    """Make the scene; returns it."""
    if not (FOLDER / "head.npz").is_file():
        raise RuntimeError(f"head.npz is not in {FOLDER}: run this file where it was written")
    description = json.loads((FOLDER / "scene.json").read_text(encoding="utf-8"))
    with np.load(FOLDER / "head.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    scene = bpy.data.scenes.new("raytrace_face")
    _add(scene, _head(arrays, description))
    for index, corners in enumerate(arrays["light_corners"]):
        _add(scene, _light(f"light_{index:02d}", corners, arrays["light_radiance"][index]))
    scene.camera = _add(scene, _camera(description["camera"]))
    scene.world = _surroundings(description["ambient"])
    _settings(scene, description["camera"])
    if bpy.context.window is not None:
        bpy.context.window.scene = scene
    return scene


def _add(scene: Any, thing: Any) -> Any:
    scene.collection.objects.link(thing)
    return thing


def _head(arrays: dict[str, np.ndarray], description: dict[str, Any]) -> Any:
    """One mesh; vertices are shared over the seams of the texture, whose uv belong to the corners of the triangles."""
    mesh = bpy.data.meshes.new("face")
    neutral, triangles = arrays["vertices"], arrays["triangles"]
    mesh.from_pydata(neutral.tolist(), [], triangles.tolist())
    mesh.uv_layers.new(name="uv").data.foreach_set("uv", arrays["uv"].ravel())
    for material in description["materials"]:
        mesh.materials.append(_material(**material))
    mesh.polygons.foreach_set("material_index", arrays["triangle_material"])
    mesh.polygons.foreach_set("use_smooth", np.ones(len(triangles), bool))
    mesh.update()
    head = bpy.data.objects.new("face", mesh)
    head.shape_key_add(name="neutral", from_mix=False)
    for (name, weight), shift in zip(description["expression"].items(), arrays["expression"], strict=True):
        key = head.shape_key_add(name=name, from_mix=False)
        key.data.foreach_set("co", (neutral + shift).ravel())
        key.slider_min, key.slider_max, key.value = 0.0, 1.0, weight
    return head


def _material(name: str, base_color: Any, specular: Any, roughness: Any) -> Any:
    """Principled BSDF; each value is a number, a colour or the name of a texture.

    `specular` is F0 / 0.08, which both generations of the node call so at an index of refraction of 1.5.
    """
    material = bpy.data.materials.new(name)
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    nodes.clear()
    shader, output = nodes.new("ShaderNodeBsdfPrincipled"), nodes.new("ShaderNodeOutputMaterial")
    shader.distribution = "GGX"
    shader.inputs["IOR"].default_value = 1.5
    level = shader.inputs["Specular IOR Level" if "Specular IOR Level" in shader.inputs else "Specular"]  # Blender 4, 3
    colour, rough = shader.inputs["Base Color"], shader.inputs["Roughness"]
    for socket, value in ((colour, base_color), (level, specular), (rough, roughness)):
        if isinstance(value, str):
            texture = nodes.new("ShaderNodeTexImage")
            texture.image = _image(value, data=socket is not colour)
            texture.extension = "EXTEND"
            links.new(texture.outputs["Color"], socket)
        else:
            socket.default_value = [*value, 1.0] if isinstance(value, list) else value
    links.new(shader.outputs["BSDF"], output.inputs["Surface"])
    return material


def _image(name: str, data: bool = False) -> Any:
    """A texture; without `data` its numbers are linear Rec. 709 colours, which is how Blender takes an EXR file."""
    image = bpy.data.images.load(str(FOLDER / "textures" / f"{name}.exr"))
    if data:
        image.colorspace_settings.name = "Non-Color"
    return image


def _light(name: str, corners: np.ndarray, radiance: np.ndarray) -> Any:
    """A triangle that emits, since Blender's area lights are rectangles and ellipses. The camera does not see it."""
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata(corners.tolist(), [], [(0, 1, 2)])
    material = bpy.data.materials.new(name)
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    nodes.clear()
    emission, output = nodes.new("ShaderNodeEmission"), nodes.new("ShaderNodeOutputMaterial")
    strength = float(radiance.max())
    emission.inputs["Color"].default_value = [*(radiance / strength).tolist(), 1.0]
    emission.inputs["Strength"].default_value = strength
    links.new(emission.outputs["Emission"], output.inputs["Surface"])
    mesh.materials.append(material)
    light = bpy.data.objects.new(name, mesh)
    light.visible_camera = False
    return light


def _camera(description: dict[str, Any]) -> Any:
    """The photo's camera on the fitted window."""
    lens = bpy.data.cameras.new("photo")
    lens.sensor_fit, lens.sensor_width, lens.lens = "HORIZONTAL", description["sensor_mm"], description["lens_mm"]
    lens.shift_x, lens.shift_y = description["shift"]
    lens.clip_start, lens.clip_end = 0.01, 1000.0
    camera = bpy.data.objects.new("photo", lens)
    camera.matrix_world = mathutils.Matrix(description["matrix"])
    return camera


def _surroundings(lit: bool) -> Any:
    """A world of textures/ambient.exr, which lies as Cycles looks it up; black without it."""
    world = bpy.data.worlds.new("surroundings")
    world.use_nodes = True
    nodes, links = world.node_tree.nodes, world.node_tree.links
    nodes.clear()
    background, output = nodes.new("ShaderNodeBackground"), nodes.new("ShaderNodeOutputWorld")
    background.inputs["Color"].default_value = [0.0, 0.0, 0.0, 1.0]
    if lit:
        texture = nodes.new("ShaderNodeTexEnvironment")
        texture.image = _image("ambient")
        links.new(texture.outputs["Color"], background.inputs["Color"])
    links.new(background.outputs["Background"], output.inputs["Surface"])
    return world


def _settings(scene: Any, camera: dict[str, Any]) -> None:
    """Direct light only, as the face was fitted; colours as they are, without a film look."""
    scene.render.engine = "CYCLES"
    scene.render.resolution_x, scene.render.resolution_y = camera["size"]
    scene.render.resolution_percentage = 100
    scene.render.film_transparent = True
    scene.view_settings.view_transform = "Standard"
    scene.cycles.samples = 256
    scene.cycles.use_denoising = False
    scene.cycles.max_bounces = 0
    scene.cycles.pixel_filter_type = "BOX"


if __name__ == "__main__":
    build()
