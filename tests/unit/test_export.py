"""Exported files say the same as the arrays they come from, in the conventions of their formats."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pygltflib
import pytest
import trimesh
from PIL import Image

from lightstage.environment import latlong_directions, sh_basis
from raytrace_face import panel
from raytrace_face.capture.colour import encode_u8, srgb_to_linear
from raytrace_face.capture.photo import load_photo
from raytrace_face.export import (
    environment,
    specular_factors,
    write_exr,
    write_glb,
    write_ply,
)
from raytrace_face.export_scene import MIN_ROUGHNESS, write_scene
from raytrace_face.face.mesh import vertex_normals
from raytrace_face.face.store import load_embedded


@pytest.fixture(scope="module")
def mi():
    from raytrace_face.backend import start

    return start(deterministic=False)


def test_exr_keeps_every_float_and_the_top_row_first(tmp_path):
    image = np.random.default_rng(0).normal(0, 100, (5, 7, 3)).astype(np.float32)
    write_exr(tmp_path / "a.exr", image)
    import OpenEXR

    with OpenEXR.File(str(tmp_path / "a.exr")) as file:
        assert np.array_equal(file.channels()["RGB"].pixels, image)


def test_exr_of_one_channel_is_luminance(tmp_path):
    image = np.random.default_rng(0).random((70, 80), np.float32)
    write_exr(tmp_path / "a.exr", image)
    assert np.array_equal(load_photo(tmp_path / "a.exr").linear[..., 1], image)


def test_ply_reads_back_with_normals_outwards(reconstruction, tiny_model, tmp_path):
    vertices = reconstruction.vertices()
    write_ply(tmp_path / "a.ply", vertices, tiny_model)
    mesh = trimesh.load(tmp_path / "a.ply", process=False)
    assert np.array_equal(np.asarray(mesh.vertices, np.float32), vertices)
    assert np.array_equal(mesh.faces, tiny_model.triangles)
    head = np.arange(len(vertices)) < 25 * 33
    outwards = (mesh.vertex_normals * (vertices - [0, 0, -60])).sum(1)[head]
    assert (outwards > 0).mean() > 0.99  # the skin is an egg round (0, 0, -60), a little dented by the expression


# --- GLB ---


@pytest.fixture(scope="module")
def glb(reconstruction, tiny_model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("glb") / "face.glb"
    neutral = reconstruction.vertices(expression=False)
    write_glb(path, tiny_model, neutral, reconstruction.face.expression, reconstruction.maps)
    return path


def accessor(gltf: pygltflib.GLTF2, index: int) -> np.ndarray:
    a = gltf.accessors[index]
    kind, width = {5126: ("<f4", {"VEC3": 3, "VEC2": 2}), 5125: ("<u4", {"SCALAR": 1})}[a.componentType]

    def view(number: int, kind: str) -> np.ndarray:
        v = gltf.bufferViews[number]
        return np.frombuffer(gltf.binary_blob()[v.byteOffset : v.byteOffset + v.byteLength], kind)

    if a.sparse is None:
        return view(a.bufferView, kind).reshape(a.count, width[a.type])
    out = np.zeros((a.count, width[a.type]), kind)
    where = view(a.sparse.indices.bufferView, {5123: "<u2", 5125: "<u4"}[a.sparse.indices.componentType])
    out[where] = view(a.sparse.values.bufferView, kind).reshape(a.sparse.count, width[a.type])
    return out


def picture(gltf: pygltflib.GLTF2, texture: int) -> np.ndarray:
    view = gltf.bufferViews[gltf.images[gltf.textures[texture].source].bufferView]
    data = gltf.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
    return np.asarray(Image.open(io.BytesIO(data)))


def test_glb_is_in_metres_and_in_the_head_frame(glb, reconstruction, tiny_model):
    scene = trimesh.load(glb)
    vertices = reconstruction.vertices(expression=False)
    used = np.unique(tiny_model.triangles)
    assert np.allclose(scene.bounds, [vertices[used].min(0) / 1000, vertices[used].max(0) / 1000], atol=1e-6)


def test_glb_obeys_the_alignment_and_bounds_rules_of_gltf(glb):
    gltf = pygltflib.GLTF2().load(str(glb))
    assert gltf.asset.version == "2.0"
    assert len(gltf.meshes[0].primitives) == 2
    for primitive in gltf.meshes[0].primitives:
        positions = accessor(gltf, primitive.attributes.POSITION)
        declared = gltf.accessors[primitive.attributes.POSITION]
        assert np.allclose(positions.min(0), declared.min)
        assert np.allclose(positions.max(0), declared.max)
        normals = accessor(gltf, primitive.attributes.NORMAL)
        assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
        assert accessor(gltf, primitive.indices).max() < len(positions)
    assert all(view.byteOffset % 4 == 0 for view in gltf.bufferViews)
    assert gltf.buffers[0].byteLength <= len(gltf.binary_blob())


def test_glb_morph_targets_at_their_default_weights_are_the_posed_head(glb, reconstruction, tiny_model):
    gltf = pygltflib.GLTF2().load(str(glb))
    mesh = gltf.meshes[0]
    assert mesh.extras["targetNames"] == list(tiny_model.expression_names)
    assert np.allclose(mesh.weights, reconstruction.face.expression)
    posed = reconstruction.vertices() / 1000
    for part, primitive in enumerate(mesh.primitives):
        used = np.unique(tiny_model.triangles[tiny_model.triangle_part == part])
        moved = accessor(gltf, primitive.attributes.POSITION).astype(float)
        for weight, target in zip(mesh.weights, primitive.targets, strict=True):
            moved += weight * accessor(gltf, target["POSITION"])
        assert np.abs(moved - posed[used]).max() < 2.1e-5  # metres: two targets leave out what moves by 0.01 mm


def test_glb_morph_target_turns_the_normals_with_the_surface(glb, reconstruction, tiny_model):
    gltf = pygltflib.GLTF2().load(str(glb))
    primitive = gltf.meshes[0].primitives[0]
    used = np.unique(tiny_model.triangles[tiny_model.triangle_part == 0])
    for shape, target in zip(tiny_model.expression, primitive.targets, strict=True):
        open_jaw = reconstruction.vertices(expression=False) + shape
        wanted = vertex_normals(open_jaw, tiny_model.triangles, tiny_model.weld)[used]
        got = accessor(gltf, primitive.attributes.NORMAL) + accessor(gltf, target["NORMAL"])
        seen = np.linalg.norm(wanted, axis=1) > 0.5
        assert np.abs(got - wanted)[seen].max() < 2e-3  # what turns by less than a thousandth stays


def test_a_target_that_moves_nothing_has_one_entry(tmp_path, reconstruction, tiny_model):
    """The format wants at least one; eyes do not move with the jaw."""
    still = replace(tiny_model, expression=np.zeros_like(tiny_model.expression))
    write_glb(tmp_path / "a.glb", still, reconstruction.vertices(expression=False), np.zeros(2), reconstruction.maps)
    gltf = pygltflib.GLTF2().load(str(tmp_path / "a.glb"))
    for target in gltf.meshes[0].primitives[1].targets:
        assert gltf.accessors[target["POSITION"]].sparse.count == 1
        assert not accessor(gltf, target["POSITION"]).any()


VALIDATE = """
const validator = require("gltf-validator");
validator.validateBytes(new Uint8Array(require("fs").readFileSync(process.argv[2])))
  .then((report) => console.log(JSON.stringify(report.issues)));
"""


def validator_issues(path: Path, folder: Path) -> dict:
    """What Khronos' validator says; skips where node or the npm package `gltf-validator` is not installed."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    script = folder / "validate.js"
    script.write_text(VALIDATE)
    done = subprocess.run([node, str(script), str(path)], capture_output=True, text=True)
    if "Cannot find module 'gltf-validator'" in done.stderr:
        pytest.skip("the npm package gltf-validator is not found: install it, and set NODE_PATH to its node_modules")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", ["tiny", "embedded"])
def test_khronos_validator_has_nothing_to_say(kind, glb, reconstruction, tmp_path):
    path = glb
    if kind == "embedded":
        model, path = load_embedded(), tmp_path / "embedded.glb"
        write_glb(path, model, model.mean, np.full(len(model.expression), 0.1), reconstruction.maps)
        gltf = pygltflib.GLTF2().load(str(path))
        assert len(gltf.meshes[0].extras["targetNames"]) == 52
        assert len(gltf.meshes[0].primitives) == 4
    issues = validator_issues(path, tmp_path)
    assert issues["messages"] == []


def test_glb_texture_under_a_vertex_is_the_albedo_under_it(glb, reconstruction, tiny_model):
    """Row 0 of the map is v = 1; glTF's v runs down. Looked up in both ways, a vertex has one albedo."""
    gltf = pygltflib.GLTF2().load(str(glb))
    primitive = gltf.meshes[0].primitives[0]
    base = gltf.materials[primitive.material].pbrMetallicRoughness
    codes = picture(gltf, base.baseColorTexture.index)
    uv_down = accessor(gltf, primitive.attributes.TEXCOORD_0)
    used = np.unique(tiny_model.triangles[tiny_model.triangle_part == 0])
    size, shift = len(codes), np.array([0.3, 0.3]) / len(codes)  # off the borders of texels, where the vertices lie
    uv_up = np.clip(tiny_model.uv[used] + shift, 0, 1 - 1e-4)
    texel = np.floor(np.clip(uv_down + shift * [1, -1], 0, 1 - 1e-4) * size).astype(int)
    wanted = np.floor(np.stack([uv_up[:, 0], 1 - uv_up[:, 1]], 1) * size).astype(int)
    shown = srgb_to_linear(codes[texel[:, 1], texel[:, 0]] / 255)
    assert np.abs(shown - reconstruction.maps.diffuse[wanted[:, 1], wanted[:, 0]]).max() < 0.01  # 8-bit sRGB codes


def test_glb_roughness_is_green_and_nothing_is_metal(glb, reconstruction):
    gltf = pygltflib.GLTF2().load(str(glb))
    base = gltf.materials[0].pbrMetallicRoughness
    codes = picture(gltf, base.metallicRoughnessTexture.index)
    assert np.abs(codes[..., 1] / 255 - reconstruction.maps.roughness).max() <= 0.5 / 255 + 1e-6
    assert base.metallicFactor == 0
    assert base.roughnessFactor == 1


@pytest.mark.parametrize("f0", [0.0, 0.01, 0.028, 0.04, 0.06, 0.2])
def test_khr_specular_is_the_fresnel_of_the_skin_bsdf(f0):
    """F0 = min(0.04 colour, 1) strength and F90 = strength (KHR_materials_specular) against F90 = min(1, 25 F0)."""
    strength, colour, factor = specular_factors(np.full((2, 2, 3), f0, np.float32))
    assert np.allclose(np.minimum(0.04 * colour * factor, 1) * strength[..., None], f0, atol=1e-7)
    assert np.allclose(strength, min(1, 25 * f0), atol=1e-6)
    assert colour.max() <= 1 + 1e-6


def test_khr_specular_of_a_mixed_map():
    f0 = np.random.default_rng(0).uniform(0.0, 0.1, (8, 8, 3)).astype(np.float32)
    strength, colour, factor = specular_factors(f0)
    assert np.allclose(0.04 * colour * factor * strength[..., None], f0, atol=1e-6)
    assert strength.max() <= 1
    assert colour.max() <= 1 + 1e-6


def test_smallest_roughness_is_the_tracers(mi):
    from raytrace_face.tracer import skin

    assert skin.MIN_ROUGHNESS == MIN_ROUGHNESS


# --- environment ---


def test_environment_holds_the_flux_of_the_lights_and_the_surroundings(reconstruction):
    """Each light covers its solid angle with its radiance: sum over pixels = sum over lights (Riemann sum: 1e-3)."""
    from lightstage.environment import latlong_solid_angles, triangle_solid_angle

    area = reconstruction.lights.area_lights()
    light = environment(reconstruction)
    directions = latlong_directions(len(light))
    ambient = np.maximum(sh_basis(directions) @ reconstruction.ambient_sh, 0)
    flux = ((light - ambient) * latlong_solid_angles(len(light))[..., None]).sum((0, 1))
    wanted = sum(triangle_solid_angle(c) * r for c, r in zip(area.corners, area.radiance, strict=True))
    assert np.allclose(flux, wanted, rtol=1e-3)
    brightest = directions[np.unravel_index(light.sum(-1).argmax(), light.shape[:2])]
    strongest = area.corners[area.radiance.sum(1).argmax()].mean(0)
    assert brightest @ strongest / np.linalg.norm(strongest) > np.cos(np.radians(20))  # half the width of a light


# --- the Mitsuba scene ---

SIZE, SPP = 64, 256


@pytest.fixture(scope="module")
def smooth(reconstruction):
    """The synthetic reconstruction on a smaller window; smooth specular and roughness maps, as skin has."""
    ramp = np.linspace(0, 1, 64, dtype=np.float32)
    specular = np.repeat(np.broadcast_to(0.025 + 0.02 * ramp[:, None, None], (64, 64, 1)), 3, 2)
    maps = replace(
        reconstruction.maps,
        diffuse=0.7 * reconstruction.maps.diffuse,
        specular=np.ascontiguousarray(specular),
        roughness=np.ascontiguousarray(np.broadcast_to(0.4 + 0.3 * ramp[None, :], (64, 64))),
    )
    config = replace(reconstruction.config, deterministic=False)
    return replace(reconstruction, maps=maps, window=reconstruction.window.resized(SIZE), config=config)


@pytest.fixture(scope="module")
def scene_folder(smooth, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scene") / "scene"
    write_scene(smooth, folder)
    return folder


def blocks(image: np.ndarray) -> np.ndarray:
    """Means over 4 x 4 pixels."""
    return image.reshape(SIZE // 4, 4, SIZE // 4, 4, 3).mean((1, 3))


def test_exported_scene_renders_to_the_same_picture(mi, smooth, scene_folder):
    """Rationale: one test pins light, camera, principal point, texture orientation, BSDF and units of the export.

    Expected: block means agree within Monte-Carlo noise (measured from two seeds of either) and
    1.5 % of the mean, which leaves room for the lat-long resampling of the surroundings and the tessellated
    shadow edges.
    """
    ours = [smooth.render(spp=SPP, seed=seed) for seed in (1, 2)]
    scene = mi.load_file(str(scene_folder / "scene.xml"))
    theirs = [np.array(mi.render(scene, spp=SPP, seed=seed)) for seed in (3, 4)]
    noise = np.hypot(*(np.abs(blocks(a) - blocks(b)).mean() for a, b in (ours, theirs)))
    level = blocks(ours[0]).mean()
    difference = blocks(sum(theirs) / 2) - blocks(sum(ours) / 2)
    assert np.abs(difference).mean() < 1.5 * noise + 0.002 * level
    assert abs(difference.mean()) < 0.01 * level
    # and it is no accident: mirrored, or flipped, the pictures do not agree
    for wrong in (theirs[0][:, ::-1], theirs[0][::-1]):
        assert np.abs(blocks(wrong) - blocks(ours[0])).mean() > 0.1 * level


def test_stock_scene_is_close(mi, scene_folder):
    """Means within 10 %, pixels within 12 %: other Fresnel, other base (the file's comment says so)."""
    own, stock = (
        np.array(mi.render(mi.load_file(str(scene_folder / name)), spp=64, seed=3))
        for name in ("scene.xml", "scene_stock.xml")
    )
    assert stock.mean() == pytest.approx(own.mean(), rel=0.1)
    assert np.sqrt((blocks(own - stock) ** 2).mean()) < 0.12 * np.sqrt((blocks(own) ** 2).mean())
    assert 'type="skin"' not in (scene_folder / "scene_stock.xml").read_text()


def test_scene_of_a_dark_room_loads(mi, smooth, tmp_path):
    """No surroundings and no light: black, not an error."""
    dark = replace(
        smooth,
        ambient_sh=np.zeros((9, 3), np.float32),
        lights=replace(smooth.lights, intensity=np.zeros((20, 3))),
    )
    write_scene(dark, tmp_path / "scene")
    assert np.array(mi.render(mi.load_file(str(tmp_path / "scene" / "scene.xml")), spp=1)).max() == 0


# --- scenes as data ---


def test_furnace_scene_reflects_no_more_than_it_receives(mi):
    """Constant light of 1: the ball's mean over 64 samples stays below 1 + 1 %, and a white matte ball vanishes."""
    import scenes

    file = str(scenes.path("furnace"))
    ball = np.array(mi.render(mi.load_file(file, size="32"), spp=64))[8:24, 8:24]
    assert 0.7 < ball.mean() < 1.01
    matte = np.array(mi.render(mi.load_file(file, size="32", specular="0, 0, 0"), spp=64))
    assert np.abs(matte.mean((0, 1)) - 1).max() < 0.005  # 65,536 paths


def test_two_lights_add_up(mi):
    import scenes

    def image(**values: str) -> np.ndarray:
        return np.array(mi.render(mi.load_file(str(scenes.path("two_lights")), size="32", **values), spp=256))

    both, warm, cold = image(), image(cold="0, 0, 0"), image(warm="0, 0, 0")
    assert np.allclose(both.mean((0, 1)), (warm + cold).mean((0, 1)), rtol=0.02)  # 262,144 paths
    assert warm[8:16, 16:24].mean() > warm[16:24, 8:16].mean()  # from the upper right


def test_studio_stands_for_constant_surroundings(mi):
    """20 lights of total 4 pi L: a matte ball shows its albedo, within the evenness of 20 directions (3 %)."""
    import scenes

    ball = np.array(mi.render(mi.load_file(str(scenes.path("studio")), size="32", specular="0, 0, 0"), spp=256))
    assert np.allclose(ball[12:20, 12:20].mean((0, 1)), [0.6, 0.42, 0.34], rtol=0.03)


def test_face_scene_takes_a_result(mi, scene_folder):
    import scenes

    textures = {name: str(scene_folder / "textures" / f"{name}.exr") for name in ("diffuse", "specular", "roughness")}
    scene = mi.load_file(
        str(scenes.path("face")), size="32", mesh=str(scene_folder / "meshes" / "skin.ply"), **textures
    )
    assert np.array(mi.render(scene, spp=4)).mean() > 0.01


def test_unknown_scene_names_the_known_ones():
    import scenes

    with pytest.raises(ValueError, match="furnace"):
        scenes.path("kitchen")


# --- panel ---


def test_panel_shows_ten_tiles_and_the_photo_first(reconstruction):
    image = panel.draw(reconstruction)
    assert image.width == 5 * 256 + 6 * 6
    top = image.height - 2 * (256 + panel.LABEL + panel.GAP)
    tile = np.asarray(image)[top + panel.LABEL : top + panel.LABEL + 256, 6 : 6 + 256]
    size = reconstruction.window.size
    middle = ((np.arange(size) + 0.5) * 256 / size).astype(int)
    assert np.array_equal(tile[middle][:, middle], encode_u8(reconstruction.pictures.photo))


def test_panel_of_a_long_warning_stays_inside(reconstruction):
    assert panel.draw(replace(reconstruction, warnings=("word " * 200, "b"), metrics={})).width == 5 * 256 + 6 * 6
