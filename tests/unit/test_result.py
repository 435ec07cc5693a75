"""A result folder holds all of a reconstruction, appears whole or not at all, and renders to the same picture."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

import raytrace_face.export
from raytrace_face.errors import InputError, OutputError
from raytrace_face.face.camera import project, to_camera
from raytrace_face.output import check_output, new_folder, write_json
from raytrace_face.result import Reconstruction, installed_versions
from raytrace_face.result_io import write
from raytrace_face.types import Camera

FILES = [
    *("result.json", "arrays.safetensors", "mesh_neutral.ply", "mesh_posed.ply", "shadow.exr", "light.exr"),
    *("render.exr", "render.png", "face.glb", "panel.png", "scene/scene.xml", "scene/scene_stock.xml"),
    *("scene/meshes/skin.ply", "scene/textures/ambient.exr"),
    *(f"textures/{m}.{e}" for m in ("diffuse", "specular", "roughness", "confidence") for e in ("exr", "png")),
]


@pytest.fixture(scope="module")
def folder(reconstruction, tmp_path_factory) -> Path:
    return reconstruction.save(tmp_path_factory.mktemp("out") / "face")


def test_folder_holds_every_documented_file(folder):
    for name in FILES:
        assert (folder / name).stat().st_size > 0, name
    text = (Path(__file__).parents[2] / "docs" / "file-format.md").read_text("utf-8")
    for name in [*FILES, *json.loads((folder / "result.json").read_text())]:
        assert f"`{Path(name).name}`" in text or f"`{name}`" in text, f"{name} is not documented"


def test_json_has_what_the_issue_names_and_no_nan(folder, reconstruction):
    d = json.loads((folder / "result.json").read_text(), parse_constant=pytest.fail)
    assert set(d["camera"]) == {"width", "height", "focal_px", "principal_px"}
    assert np.shape(d["T_camera_head"]) == (4, 4)
    assert set(d["dominant_light"]) == {"direction_camera", "direction_head", "azimuth_deg", "elevation_deg"}
    assert len(d["lights"]) == 20
    assert set(d["lights"][0]) == {"centre_mm", "corners_mm", "normal", "radiance", "d", "a", "p", "i"}
    assert list(d["expression"]) == ["jawOpen", "mouthSmileLeft"]
    assert np.shape(d["landmarks_px"]) == (478, 2)
    assert np.shape(d["ambient_sh"]) == (9, 3)
    assert d["metrics"]["landmark_rms_px"] is None
    assert d["photo"]["name"] == reconstruction.photo_name
    for key in ("identity", "crop", "timings", "versions", "seed", "config", "warnings", "history", "model"):
        assert key in d


def test_lights_look_at_the_head_from_where_they_stand(folder):
    for light in json.loads((folder / "result.json").read_text())["lights"]:
        assert np.dot(light["normal"], light["centre_mm"]) < 0
        assert np.allclose(np.mean(light["corners_mm"], axis=0), light["centre_mm"])
        # I = (d^2 / a) i (EG 2021, section 4)
        assert np.allclose(light["radiance"], light["d"] ** 2 / light["a"] * np.array(light["i"]))


def same(a: object, b: object) -> None:
    """Equality of dataclasses down to the bits of their arrays."""
    for f in fields(a):  # type: ignore[arg-type]
        x, y = getattr(a, f.name), getattr(b, f.name)
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype, f.name
            assert x.shape == y.shape, f.name
            assert x.tobytes() == y.tobytes(), f.name
        elif hasattr(x, "__dataclass_fields__"):
            same(x, y)
        elif f.name == "metrics":
            assert x.keys() == y.keys()
            assert all(x[k] == y[k] or (math.isnan(x[k]) and math.isnan(y[k])) for k in x)
        elif f.name not in ("versions", "model", "model_sha256"):  # which `save` fills in
            assert x == y, f.name


def test_save_then_load_gives_back_every_array_bit_for_bit(folder, reconstruction, tiny_model):
    loaded = Reconstruction.load(folder, model=tiny_model)
    same(reconstruction, loaded)
    assert loaded.versions == installed_versions()


def test_saving_twice_gives_the_same_arrays_file(folder, reconstruction, tmp_path):
    again = reconstruction.save(tmp_path / "again")
    for name in ("arrays.safetensors", "face.glb", "scene/scene.xml", "light.exr", "panel.png"):
        assert (folder / name).read_bytes() == (again / name).read_bytes(), name


def test_non_contiguous_arrays_survive(reconstruction, tmp_path, tiny_model):
    turned = replace(reconstruction, landmarks_px=np.asfortranarray(reconstruction.landmarks_px))
    loaded = Reconstruction.load(turned.save(tmp_path / "face"), model=tiny_model)
    assert np.array_equal(loaded.landmarks_px, reconstruction.landmarks_px)


def test_loaded_result_renders_to_the_same_bytes_when_deterministic(folder, reconstruction, tiny_model):
    loaded = Reconstruction.load(folder, model=tiny_model)
    first = reconstruction.render(spp=4, seed=1)
    assert first.tobytes() == loaded.render(spp=4, seed=1).tobytes()
    assert first.tobytes() != loaded.render(spp=4, seed=2).tobytes()


def test_light_is_linear(reconstruction):
    """Half the light, and no surroundings, is half the picture; zero light is black."""
    lights, dark = reconstruction.lights, np.zeros((9, 3), np.float32)
    whole = reconstruction.render(ambient_sh=dark, spp=4)
    half = reconstruction.render(lights=replace(lights, intensity=lights.intensity / 2), ambient_sh=dark, spp=4)
    none = reconstruction.render(lights=replace(lights, intensity=lights.intensity * 0), ambient_sh=dark, spp=4)
    assert np.allclose(half, whole / 2, rtol=1e-5, atol=1e-7)  # float32 rounding
    assert whole.max() > 0
    assert none.max() == 0


def test_shadows_only_take_light_away(reconstruction):
    """Same seed, same samples: visibility multiplies each by 0 or 1."""
    assert np.all(reconstruction.render(spp=4, shadows=False) >= reconstruction.render(spp=4) - 1e-6)


def test_render_in_pieces_covers_every_pixel(reconstruction, monkeypatch):
    """A small ray budget splits the picture; the noise differs, the mean does not."""
    whole = reconstruction.render(spp=16)
    monkeypatch.setattr("raytrace_face.result.LANES", 16 * 500)
    pieces = reconstruction.render(spp=16)
    assert np.array_equal(whole[:10], pieces[:10])  # the first 500 pixels have the same seed
    assert pieces.mean() == pytest.approx(whole.mean(), rel=0.02)  # 36,864 rays, standard error well below 1 %


def test_projected_vertex_is_rendered_where_it_projects(reconstruction, tiny_model):
    """The eye ball alone: its projected vertices and its rendered silhouette have the same bounding box."""
    only_eyes = replace(
        tiny_model,
        triangles=tiny_model.triangles[tiny_model.triangle_part == 1],
        triangle_part=tiny_model.triangle_part[tiny_model.triangle_part == 1],
    )
    camera = reconstruction.camera.windowed(reconstruction.window.resized(192))
    seen = replace(reconstruction, model=only_eyes).render(camera, spp=64, shadows=False).sum(-1) > 0
    used = np.unique(only_eyes.triangles)
    corners = project(camera, to_camera(reconstruction.face.T_camera_head, reconstruction.vertices()[used]))
    rows, columns = np.nonzero(seen)
    for axis, pixels in ((0, columns), (1, rows)):
        # the outermost vertices lie in the outermost lit pixels; a pixel that the ball covers by less than a 64th may
        # be missed by all rays, so one pixel less is allowed
        low, high = math.floor(corners[:, axis].min()), math.floor(corners[:, axis].max())
        assert low <= pixels.min() <= low + 1
        assert high - 1 <= pixels.max() <= high


def test_another_camera_renders_its_own_size(reconstruction):
    picture = reconstruction.render(camera=Camera(20, 10, 30.0, (10.0, 5.0)), spp=1)
    assert picture.shape == (10, 20, 3)


def test_zero_samples_are_refused(reconstruction):
    with pytest.raises(InputError, match="spp is 0"):
        reconstruction.render(spp=0)


# --- the folder appears whole or not at all ---


def test_existing_output_is_refused_and_untouched(folder, reconstruction):
    before = (folder / "result.json").read_bytes()
    with pytest.raises(OutputError, match=r"exists.*--force"):
        reconstruction.save(folder)
    assert (folder / "result.json").read_bytes() == before


def test_force_replaces_a_result(reconstruction, tmp_path):
    target = reconstruction.save(tmp_path / "face")
    (target / "old").touch()
    reconstruction.save(target, force=True)
    assert not (target / "old").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["face"]


@pytest.mark.parametrize("kind", ["folder with other things", "file"])
def test_force_never_deletes_what_is_not_a_result(tmp_path, kind):
    target = tmp_path / "precious"
    if kind == "file":
        target.write_text("x")
    else:
        target.mkdir()
        (target / "thesis.tex").touch()
    with pytest.raises(OutputError, match="not a result folder"):
        check_output(target, force=True)


def test_unwritable_parent_is_found_before_the_work():
    with pytest.raises(OutputError, match="cannot be written"):
        check_output(Path("/proc/face"))


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_an_interrupted_save_leaves_nothing(reconstruction, tmp_path, monkeypatch, error):
    def interrupted(*_: object) -> None:
        raise error

    monkeypatch.setattr(raytrace_face.export, "write_glb", interrupted)
    with pytest.raises(error):
        reconstruction.save(tmp_path / "face")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_replacement_keeps_the_old_result(tmp_path):
    target = tmp_path / "face"
    with new_folder(target) as new:
        write_json(new / "result.json", {"generation": 1})

    def interrupted() -> None:
        with new_folder(target, force=True) as new:
            write_json(new / "result.json", {"generation": 2})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert json.loads((target / "result.json").read_text()) == {"generation": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["face"]


# --- damaged folders get one clear line ---


def corrupt(folder: Path, name: str, data: bytes | None) -> None:
    path = folder / name
    path.unlink()
    if data is not None:
        path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("result.json", None, "not a result folder"),
        ("result.json", b"{", "damaged"),
        ("result.json", b"[]", "format_version"),
        ("result.json", b'{"format_version": 99}', "newer"),
        ("result.json", b'{"format_version": 1}', "sha256"),
        ("arrays.safetensors", None, "cannot be read"),
        ("arrays.safetensors", b"", "sha256"),
        ("arrays.safetensors", b"\x80\x04 not a pickle either", "sha256"),
    ],
)
def test_damaged_result_is_one_clear_line(reconstruction, tmp_path, tiny_model, name, data, message):
    with new_folder(tmp_path / "face") as new:
        write(new, reconstruction.describe(), reconstruction.arrays())
    Reconstruction.load(tmp_path / "face", model=tiny_model)
    corrupt(tmp_path / "face", name, data)
    with pytest.raises(InputError, match=message) as caught:
        Reconstruction.load(tmp_path / "face", model=tiny_model)
    assert "\n" not in str(caught.value)


def test_missing_keys_are_damage(reconstruction, folder, tmp_path, tiny_model):
    d = json.loads((folder / "result.json").read_text())
    for key in ("camera", "crop", "config", "light_stage", "photo", "timings"):
        broken = {k: v for k, v in d.items() if k != key}
        target = tmp_path / key
        target.mkdir()
        write_json(target / "result.json", broken)
        (target / "arrays.safetensors").write_bytes((folder / "arrays.safetensors").read_bytes())
        with pytest.raises(InputError, match="damaged"):
            Reconstruction.load(target, model=tiny_model)


def test_result_of_another_model_asks_for_it(reconstruction):
    with pytest.raises(InputError, match="'tiny'"):
        replace(reconstruction, model=None).vertices()
