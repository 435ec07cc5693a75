"""`export`: what other programs read is what the result says, in their conventions."""

from __future__ import annotations

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import fake_bpy
import numpy as np
import OpenEXR
import pytest
import trimesh
from PIL import Image

from lightstage.environment import sh_basis
from raytrace_face.capture.colour import srgb_to_linear
from raytrace_face.cli import run
from raytrace_face.export_blender import (
    SPECULAR_UNIT,
    camera,
    cycles_environment,
    head_arrays,
    to_blender,
    write_blender,
)
from raytrace_face.export_obj import write_obj
from raytrace_face.export_scene import stock_factors, write_scene
from raytrace_face.face.camera import project, to_camera
from raytrace_face.measure.light import angle_deg, dominant_direction
from raytrace_face.result import Reconstruction


@pytest.fixture
def folder(reconstruction, tiny_model, tmp_path, monkeypatch) -> Path:
    """A result folder whose model is not the embedded one."""
    load = Reconstruction.load.__func__
    monkeypatch.setattr(Reconstruction, "load", classmethod(lambda cls, path: load(cls, path, tiny_model)))
    return reconstruction.save(tmp_path / "face")


# --- OBJ ---


@pytest.fixture(scope="module")
def obj(reconstruction, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("obj")
    write_obj(reconstruction, folder)
    return folder / "face.obj"


def test_obj_is_the_mesh_of_the_model(obj, reconstruction, tiny_model):
    """Every corner of every triangle of each part: place and uv, as trimesh reads them, in file order."""
    scene = trimesh.load(obj, process=False)
    for number, part in enumerate(("skin", "eyes")):
        mesh = next(m for m in scene.geometry.values() if m.visual.material.name == part)
        chosen = tiny_model.triangles[tiny_model.triangle_part == number]
        corners = mesh.vertices[mesh.faces]
        assert np.array_equal(corners.astype(np.float32), reconstruction.vertices()[chosen])
        assert np.array_equal(mesh.visual.uv[mesh.faces].astype(np.float32), tiny_model.uv[chosen])


def test_obj_texture_under_a_vertex_is_the_albedo_under_it(obj, reconstruction, tiny_model):
    """Rationale: pins the rows of the picture and the direction of v; a flipped texture differs by up to 0.8."""
    mesh = next(m for m in trimesh.load(obj, process=False).geometry.values() if m.visual.material.name == "skin")
    uv = mesh.visual.uv[mesh.faces].mean(axis=1)
    shown = trimesh.visual.color.uv_to_interpolated_color(uv, mesh.visual.material.image)[:, :3] / 255
    ramp = np.linspace(0.1, 0.9, 64)
    centres = (np.arange(64) + 0.5) / 64  # the fixture's albedo: red grows with u, green with the row, downwards
    wanted = np.stack([np.interp(uv[:, 0], centres, ramp), np.interp(1 - uv[:, 1], centres, ramp)], axis=1)
    # a texel holds 0.0127 of the ramp, and trimesh maps uv to texel corners, half a texel off
    assert np.abs(srgb_to_linear(shown)[:, :2] - wanted).max() < 0.02


def test_mtl_has_the_pbr_statements(obj, reconstruction):
    text = obj.with_suffix(".mtl").read_text()
    skin, eyes = text.split("\n\n")
    assert "map_Kd textures/diffuse.png" in skin
    assert "map_Pr textures/roughness.png" in skin
    assert "Pm 0" in skin
    assert "Pr 0.25" in eyes
    values = {line.split()[0]: line.split()[1:] for line in skin.splitlines()}
    f0, ior = float(values["Ks"][0]), float(values["Ni"][0])
    assert f0 == pytest.approx(reconstruction.maps.specular.mean(), rel=1e-4)
    assert ((ior - 1) / (ior + 1)) ** 2 == pytest.approx(f0, rel=1e-3)  # Fresnel at normal incidence
    rough = np.asarray(Image.open(obj.parent / "textures" / "roughness.png")) / 255
    assert np.abs(rough - reconstruction.maps.roughness).max() <= 0.5 / 255 + 1e-6


# --- Mitsuba with stock plugins ---


@pytest.mark.parametrize(("f0", "roughness"), [(0.02, 0.3), (0.03, 0.5), (0.035, 0.45), (0.04, 0.7), (0.06, 0.6)])
def test_stock_plastic_is_as_bright_as_the_skin(f0, roughness):
    """Base and layer apart, means over views within 73 and lights within 78 degrees; 3 %: the table is bilinear."""
    from raytrace_face.backend import start

    mi = start()
    import drjit as dr

    from raytrace_face.tracer import skin

    rng = np.random.default_rng(0)

    def directions(smallest_cosine: float) -> object:
        cos = np.sqrt(rng.uniform(smallest_cosine**2, 1, 20000))
        phi, sin = rng.uniform(0, 2 * np.pi, 20000), np.sqrt(1 - cos * cos)
        return mi.Vector3f(*(mi.Float(v.astype(np.float32)) for v in (sin * np.cos(phi), sin * np.sin(phi), cos)))

    wi, wo = directions(0.3), directions(0.2)
    root = np.sqrt(f0)
    plastic = mi.load_dict(
        {
            "type": "roughplastic",
            "distribution": "ggx",
            "alpha": roughness**2,
            "int_ior": float((1 + root) / (1 - root)),
            "ext_ior": 1.0,
            "diffuse_reflectance": {"type": "rgb", "value": [0.5] * 3},
        }
    )
    si = dr.zeros(mi.SurfaceInteraction3f, 20000)
    si.wi = wi
    lobes = []
    for component in (1, 0):  # diffuse, glossy
        context = mi.BSDFContext()
        context.component = component
        lobes.append(np.array(plastic.eval(context, si, wo, True))[0])
    base, layer = skin.evaluate_lobes(
        wi, wo, mi.Vector3f(0, 0, 1), mi.Color3f(0.5), mi.Color3f(f0), mi.Float(roughness)
    )
    diffuse, specular = stock_factors(f0, roughness)
    assert diffuse * lobes[0].mean() == pytest.approx(np.array(base)[0].mean(), rel=0.03)
    glossy = np.array(layer)[0]
    assert specular * (lobes[1] ** 2).sum() == pytest.approx((glossy * lobes[1]).sum(), rel=0.03)


def test_stock_folder_is_complete_by_itself(reconstruction, tmp_path):
    from raytrace_face.backend import start

    mi = start()
    write_scene(reconstruction, tmp_path / "scene", ("scene_stock.xml",))
    picture = np.array(mi.render(mi.load_file(str(tmp_path / "scene" / "scene_stock.xml")), spp=4))
    assert picture.mean() > 0.01
    assert not (tmp_path / "scene" / "textures" / "roughness.exr").exists()


# --- Blender ---


@pytest.fixture(scope="module")
def blender(reconstruction, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("blender")
    write_blender(reconstruction, folder)
    return folder


@pytest.fixture(params=[3, 4])
def scene(request, blender, monkeypatch):
    """The scene that the script builds in the fake Blender of either generation, and its version."""
    for name, module in fake_bpy.modules(request.param).items():
        monkeypatch.setitem(sys.modules, name, module)
    runpy.run_path(str(blender / "scene.py"), run_name="__main__")
    bpy = sys.modules["bpy"]
    built = bpy.data.scenes["raytrace_face"]
    assert bpy.context.window.scene is built
    return built, request.param


def node(tree, kind: str):
    return next(n for n in tree.nodes if n._kind == kind)


def source(tree, socket):
    """The node whose output is linked to a socket, None without."""
    outputs = [s for s, target in tree.links if target is socket]
    return next((n for n in tree.nodes if outputs and outputs[0] in n.outputs.values()), None)


def test_fake_blender_refuses_what_the_api_does_not_have():
    bpy = fake_bpy.modules(4)["bpy"]
    camera = bpy.data.cameras.new("a")
    with pytest.raises(AttributeError, match="Camera has no focal"):
        camera.focal = 1.0
    with pytest.raises(TypeError):
        camera.sensor_fit = "WIDE"
    assert "Specular" not in node_inputs(bpy)


def node_inputs(bpy) -> set[str]:
    tree = bpy.data.materials.new("m").node_tree
    return set(tree.nodes.new("ShaderNodeBsdfPrincipled").inputs)


def test_script_builds_the_face_with_its_expressions(scene, reconstruction, tiny_model):
    """Basis + sum of weight x key is the posed face; corners carry their uv and their part's material."""
    head = next(o for o in scene[0].collection.objects if o.name == "face")
    mesh = head.data
    keys = list(head.keys.values())
    assert [k.name for k in keys] == ["neutral", "jawOpen", "mouthSmileLeft"]
    posed = mesh.vertices + sum(k.value * (k.data.values["co"].reshape(-1, 3) - mesh.vertices) for k in keys[1:])
    wanted = to_blender(reconstruction.vertices()[tiny_model.triangles])
    assert np.allclose(posed[mesh.faces], wanted, atol=1e-6)  # metres: a micrometre
    assert np.array_equal(mesh.uv_layers["uv"].data.values["uv"].reshape(-1, 3, 2), tiny_model.uv[tiny_model.triangles])
    assert np.array_equal(mesh.polygons.values["material_index"], tiny_model.triangle_part)
    assert [m.name for m in mesh.materials] == ["skin", "eyes"]


def test_vertices_of_seams_are_joined(reconstruction, tiny_model):
    weld = tiny_model.weld.copy()
    weld[7] = 3
    joined = replace(tiny_model, weld=weld)
    arrays = head_arrays(joined, reconstruction.vertices())
    assert len(arrays["vertices"]) == len(np.unique(weld[tiny_model.triangles]))
    assert np.array_equal(arrays["uv"], tiny_model.uv[tiny_model.triangles].reshape(-1, 2))


def test_skin_material_reads_the_maps(scene, blender, reconstruction):
    built, version = scene
    mesh = next(o for o in built.collection.objects if o.name == "face").data
    tree = mesh.materials[0].node_tree
    shader = node(tree, "ShaderNodeBsdfPrincipled")
    names = {"Base Color": "diffuse", fake_bpy.LEVEL[version]: "specular", "Roughness": "roughness"}
    for socket, name in names.items():
        image = source(tree, shader.inputs[socket]).image
        assert Path(image.filepath) == blender / "textures" / f"{name}.exr"
        assert vars(image.colorspace_settings).get("name") == (None if name == "diffuse" else "Non-Color")
    with OpenEXR.File(str(blender / "textures" / "specular.exr")) as file:
        level = file.channels()["RGB"].pixels
    assert np.allclose(SPECULAR_UNIT * level, reconstruction.maps.specular, rtol=1e-6)
    assert shader.inputs["IOR"].default_value == 1.5
    eyes = node(mesh.materials[1].node_tree, "ShaderNodeBsdfPrincipled")
    assert eyes.inputs[fake_bpy.LEVEL[version]].default_value == pytest.approx(0.03 / 0.08)


def test_blender_camera_sees_vertices_where_the_photo_has_them(scene, reconstruction):
    """Blender's own projection (sensor, lens, shift, camera along -z), against `face.camera.project`."""
    lens, matrix = scene[0].camera.data, scene[0].camera.matrix_world
    width, height = scene[0].render.resolution_x, scene[0].render.resolution_y
    vertices = reconstruction.vertices()
    seen = (to_blender(vertices) - matrix[:3, 3]) @ matrix[:3, :3]
    scale = lens.lens / lens.sensor_width
    x = width * (0.5 - lens.shift_x + scale * seen[:, 0] / -seen[:, 2])
    y = height / 2 - width * (-lens.shift_y + scale * seen[:, 1] / -seen[:, 2])
    view = reconstruction.camera.windowed(reconstruction.window)
    wanted = project(view, to_camera(reconstruction.face.T_camera_head, vertices))
    assert np.abs(np.stack([x, y], 1) - wanted).max() < 1e-3  # pixels
    assert abs(lens.shift_x) > 0.01  # the fixture's principal point is off the middle, both ways
    assert abs(lens.shift_y) > 0.01
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1, abs=1e-5)


def test_camera_looks_at_the_face_from_the_front():
    from raytrace_face.types import Camera

    away = np.eye(4)
    away[2, 3] = -1000  # the head lies a metre before the camera
    found = camera(Camera(100, 100, 200.0, (50.0, 50.0)), away)
    matrix = np.array(found["matrix"])
    assert matrix[:3, 3] == pytest.approx([0, -1, 0])
    assert -matrix[:3, 2] == pytest.approx([0, 1, 0])  # its view
    assert matrix[:3, 1] == pytest.approx([0, 0, 1])  # its up
    assert found["lens_mm"] == pytest.approx(72)
    assert found["shift"] == [0, 0]


def test_lights_of_the_script_are_the_lights_of_the_stage(scene, reconstruction):
    area = reconstruction.lights.area_lights()
    lights = [o for o in scene[0].collection.objects if o.name.startswith("light_")]
    assert len(lights) == len(area.corners) == 2
    for light, corners, radiance in zip(lights, area.corners, area.radiance, strict=True):
        assert light.visible_camera is False
        assert np.allclose(light.data.vertices, to_blender(corners), rtol=1e-6)
        tree = light.data.materials[0].node_tree
        inputs = node(tree, "ShaderNodeEmission").inputs
        shown = np.array(inputs["Color"].default_value[:3]) * inputs["Strength"].default_value
        points = np.concatenate([corners, corners.mean(0, keepdims=True)])
        directions = points / np.linalg.norm(points, axis=1, keepdims=True)
        behind = np.maximum(sh_basis(directions) @ reconstruction.ambient_sh, 0).mean(0)
        assert np.allclose(shown, radiance + behind, rtol=1e-5)


def test_surroundings_lie_where_cycles_looks_them_up(scene, blender, reconstruction):
    """u = 1/2 - atan2(y, x) / 2 pi, v = 1 - acos(z) / pi (Cycles, projection.h), v = 1 in the top row."""
    tree = scene[0].world.node_tree
    image = source(tree, node(tree, "ShaderNodeBackground").inputs["Color"]).image
    assert Path(image.filepath) == blender / "textures" / "ambient.exr"
    with OpenEXR.File(image.filepath) as file:
        pixels = file.channels()["RGB"].pixels
    height, width = pixels.shape[:2]
    for head in [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [-1.0, 0, 0], [0.3, -0.5, 0.8]]:
        direction = np.array(head) / np.linalg.norm(head)
        x, y, z = 1000 * to_blender(direction)
        u, v = 0.5 - np.arctan2(y, x) / (2 * np.pi), 1 - np.arccos(np.clip(z, -1, 1)) / np.pi
        found = pixels[min(int((1 - v) * height), height - 1), int(u * width) % width]
        wanted = np.maximum(sh_basis(direction[None]) @ reconstruction.ambient_sh, 0)[0]
        assert np.allclose(found, wanted, atol=0.02)  # a pixel is 1.4 degrees


def test_dark_room_has_a_black_world(reconstruction, tmp_path, monkeypatch):
    write_blender(replace(reconstruction, ambient_sh=np.zeros((9, 3), np.float32)), tmp_path)
    assert json.loads((tmp_path / "scene.json").read_text())["ambient"] is False
    assert cycles_environment(np.zeros((9, 3)), 4).max() == 0
    for name, module in fake_bpy.modules(4, window=False).items():
        monkeypatch.setitem(sys.modules, name, module)
    runpy.run_path(str(tmp_path / "scene.py"), run_name="__main__")
    built = sys.modules["bpy"].data.scenes["raytrace_face"]
    assert node(built.world.node_tree, "ShaderNodeBackground").inputs["Color"].default_value == [0, 0, 0, 1]


def test_script_alone_says_what_is_missing(blender, tmp_path, monkeypatch):
    (tmp_path / "scene.py").write_bytes((blender / "scene.py").read_bytes())
    for name, module in fake_bpy.modules(4).items():
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(RuntimeError, match=r"head\.npz"):
        runpy.run_path(str(tmp_path / "scene.py"), run_name="__main__")


# --- the command ---


@pytest.mark.parametrize("to", ["obj", "mitsuba", "mitsuba-stock", "blender"])
def test_export_writes_a_folder_that_force_may_replace(folder, tmp_path, to, capsys):
    arguments = ["export", str(folder), "--format", to, "--out", str(tmp_path / "out")]
    assert run(arguments) == 0
    names = {p.name for p in (tmp_path / "out").iterdir()}
    first = {"obj": "face.obj", "mitsuba": "scene.xml", "mitsuba-stock": "scene_stock.xml", "blender": "scene.py"}
    assert first[to] in names
    assert json.loads((tmp_path / "out" / "export.json").read_text())["format"] == to
    assert run(arguments) == 2
    assert run([*arguments, "--force"]) == 0
    assert "--force" in capsys.readouterr().err


@pytest.mark.parametrize(("to", "file"), [("glb", "face.glb"), ("ply", "mesh_posed.ply"), ("light-exr", "light.exr")])
def test_export_of_what_the_result_has_is_the_same_file(folder, tmp_path, to, file):
    out = tmp_path / f"out{Path(file).suffix}"
    assert run(["export", str(folder), "--format", to, "--out", str(out)]) == 0
    assert out.read_bytes() == (folder / file).read_bytes()


def test_exported_light_turns_back_into_its_direction(folder, reconstruction, tmp_path):
    """The mean direction of the map's light is that of the lights' flux plus the surroundings' linear band.

    By hand: sum of radiance x solid angle x direction; of SH the three linear terms (luminance). 1 degree: pixels.
    """
    from lightstage.environment import triangle_solid_angle
    from raytrace_face.capture.colour import REC709_LUMINANCE

    assert run(["export", str(folder), "--format", "light-exr", "--out", str(tmp_path / "a.exr")]) == 0
    with OpenEXR.File(str(tmp_path / "a.exr")) as file:
        found = dominant_direction(file.channels()["RGB"].pixels)
    area = reconstruction.lights.area_lights()
    total = np.zeros(3)
    for corners, radiance in zip(area.corners, area.radiance, strict=True):
        middle = corners.mean(0)
        total += radiance @ REC709_LUMINANCE * triangle_solid_angle(corners) * middle / np.linalg.norm(middle)
    y, z, x = 4 * np.pi / 3 * 0.4886025119029199 * (reconstruction.ambient_sh[1:4] @ REC709_LUMINANCE)
    assert angle_deg(found, total + np.array([x, y, z])) < 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--format", "obj", "--out", "a"], "not a result folder"),
        (["nowhere", "--format", "glb", "--out", "a.ply"], "must end in .glb"),
        (["nowhere", "--format", "glb", "--out", "no/a.glb"], "make it first"),
        (["nowhere", "--format", "stl", "--out", "a"], "stl"),
    ],
)
def test_bad_exports_exit_2_and_write_nothing(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert run(["export", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "stl" in message or said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_missing_file_of_a_result_is_named(folder, tmp_path, capsys):
    (folder / "face.glb").unlink()
    assert run(["export", str(folder), "--format", "glb", "--out", str(tmp_path / "a.glb")]) == 2
    assert "face.glb" in capsys.readouterr().err
    assert not (tmp_path / "a.glb").exists()
