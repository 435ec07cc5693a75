"""Rationale: a benchmark is the same table however it is run, and what an ablation switches off is off.

The photo is the astronaut's, smallest settings; figures mean nothing here, equality and switches do. Runs that are
compared are processes of their own, as users start them.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from lightstage.rig import geodesic
from raytrace_face.benchmark.methods import ABLATIONS, DEFAULT, METHODS, NOTHING
from raytrace_face.benchmark.spec import Item, load, write
from raytrace_face.config import Config
from raytrace_face.face.camera import project, to_camera
from raytrace_face.measure import meshes
from raytrace_face.measure.light import angle_deg, rotation_angle_deg
from raytrace_face.result import Reconstruction

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("RAYTRACE_FACE_DATA", "nowhere"))
SMALL = (
    "quality=preview", "stage1.size=48", "stage1.samples=2", "stage2.size=64", "stage2.texture=64", "stage2.samples=2",
    "stage2.iterations=3",
)  # fmt: skip


def astronaut() -> np.ndarray:
    from skimage.data import astronaut as data

    return data()[:300, 80:380]


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Path:
    """Two photos, scored against a small scan: the front of the mean face."""
    folder = tmp_path_factory.mktemp("bench") / "astronauts"
    (folder / "photos").mkdir(parents=True)
    Image.fromarray(astronaut()).save(folder / "photos" / "a.png")
    Image.fromarray(astronaut()[:, ::-1]).save(folder / "photos" / "b.png")
    face = meshes.mean_face()
    skin = face.vertices[np.unique(face.triangles)]
    front = skin[(skin[:, 2] > -20) & (np.abs(skin[:, 0]) < 70)][::5]
    trimesh.PointCloud(front).export(folder / "scan.ply")
    np.savetxt(folder / "scan.txt", face.landmarks)
    values = {"scan": "scan.ply", "landmarks": "scan.txt", "challenge": ""}
    items = [Item(name, {"photo": f"photos/{name}.png", **values}) for name in ("a", "b")]
    write(folder, "now", "Astronauts", {"unit": "mm"}, items)
    return folder


def command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "raytrace_face", "benchmark", *arguments], capture_output=True, text=True, timeout=600,
        check=False, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def run(bench: Path, folder: Path, out: str, *options: str) -> tuple[bytes, bytes]:
    settings = ["--set", *SMALL, "deterministic=true"]
    command("run", str(bench), "--out", out, "--quiet", *settings, *options, folder=folder)
    assert "InputError" not in (folder / out / "table.md").read_text()
    return (folder / out / "table.md").read_bytes(), (folder / out / "table.csv").read_bytes()


@pytest.fixture(scope="module")
def alone(bench, tmp_path_factory) -> tuple[bytes, bytes]:
    """Both tables of a run in one process."""
    return run(bench, tmp_path_factory.mktemp("alone"), "one", "--jobs", "1")


def test_one_process_and_two_give_the_same_tables(bench, alone, tmp_path):
    assert b"| ours | 2 | 0 |" in alone[0]
    assert run(bench, tmp_path, "two", "--jobs", "2") == alone


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (the extra 'ray')")
def test_two_workers_of_ray_give_the_same_tables(bench, alone, tmp_path):
    assert run(bench, tmp_path, "ray", "--jobs", "2", "--ray", "auto") == alone


# ablations


@pytest.fixture(scope="module")
def switched(bench, tmp_path_factory) -> dict[str, Reconstruction]:
    """The first photo under every ablation, run as one benchmark: method -> what was scored."""
    from raytrace_face.cli import run as run_command

    module = importlib.import_module("raytrace_face.fit.reconstruct")
    original, found = module.reconstruct, []

    def remembering(*arguments, **options) -> Reconstruction:
        found.append(original(*arguments, **options))
        return found[-1]

    text = (bench / "benchmark.toml").read_text().split("[[item]]")
    folder = tmp_path_factory.mktemp("one") / "bench"
    shutil.copytree(bench, folder)
    (folder / "benchmark.toml").write_text("[[item]]".join(text[:2]))
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "reconstruct", remembering)
        arguments = ["benchmark", "run", str(folder), "--method", DEFAULT, "ablations", NOTHING, "--jobs", "1"]
        assert run_command([*arguments, "--quiet", "--out", str(out), "--set", *SMALL]) == 0
    table = (out / "table.md").read_text()
    assert "Error" not in table
    names = [DEFAULT, *ABLATIONS]
    assert all(f"| {METHODS[name].text} | 1 | 0 |" in table for name in (*names, NOTHING))
    assert len(load(folder).items) == 1
    return dict(zip(names, found, strict=True))


def lights_on(r: Reconstruction) -> int:
    return int((r.lights.irradiance().sum(axis=1) > 0).sum())


def test_sh_light_leaves_no_lamp_on(switched):
    assert lights_on(switched[DEFAULT]) > 0
    assert lights_on(switched["sh-light"]) == 0
    assert switched["sh-light"].ambient_sh[0].min() > 0
    assert switched["sh-light"].ambient_sh[0].mean() > switched[DEFAULT].ambient_sh[0].mean()


def test_dense_light_is_not_sparse(switched):
    assert lights_on(switched[DEFAULT]) <= Config().light.max_lights
    assert lights_on(switched["dense-light"]) > Config().light.max_lights


def head_direction(r: Reconstruction) -> np.ndarray:
    return r.face.T_camera_head[:3, :3].T.astype(float) @ r.dominant_light


def test_light_that_is_not_refined_lies_on_the_grid(switched):
    """The strongest light is one of the 162 directions of the search; refined it is not."""
    grid = geodesic(Config().light.search_level).vertices
    nearest = {k: (grid @ head_direction(switched[k])).max() for k in (DEFAULT, "no-refine")}
    assert nearest["no-refine"] == pytest.approx(1, abs=1e-6)
    assert nearest[DEFAULT] < 1 - 1e-5  # a quarter of a degree


def test_least_squares_is_another_light(switched):
    a, b = (switched[k].lights.irradiance() for k in (DEFAULT, "least-squares"))
    assert np.abs(a - b).max() > 1e-3 * a.max()


def test_without_shadows_every_light_is_seen_everywhere(switched):
    assert (switched["no-shadow"].pictures.shadow == 1).all()
    assert switched[DEFAULT].pictures.shadow.min() < 0.5


def test_the_mean_shape_is_the_mean_shape(switched):
    r = switched["mean-shape"]
    assert not r.face.identity.any()
    assert r.vertices(expression=False) == pytest.approx(r.face_model().mean, abs=0)
    assert r.face.expression.any(), "the network's expression stays"
    assert np.abs(switched[DEFAULT].face.identity).max() > 0.1
    # it is posed all the same, and the pose makes up for the shape that it may not have
    turn = rotation_angle_deg(r.face.T_camera_head[:3, :3], switched[DEFAULT].face.T_camera_head[:3, :3])
    assert turn < 20


def test_landmarks_alone_shape_the_face_where_shading_does_not(switched, bench):
    from raytrace_face.capture import capture, load_photo
    from raytrace_face.fit.landmarks import fit_landmarks

    r = switched["landmarks"]
    photo = load_photo(bench / "photos" / "a.png")
    fit = fit_landmarks(r.face_model(), capture(photo, None, r.config.resolved().stage2.size), photo)
    assert r.face.identity == pytest.approx(fit.face.identity, abs=1e-6)
    assert np.abs(switched[DEFAULT].face.identity - fit.face.identity).max() > 0.01


def test_the_mean_albedo_is_the_priors(switched):
    from raytrace_face.face.skin_prior import albedo, skin_prior
    from raytrace_face.tracer.texture import texel_map

    r = switched["mean-albedo"]
    prior, texels = skin_prior(r.face_model()), texel_map(r.face_model(), r.statistical_diffuse.shape[0])
    mean = np.clip(texels.spread(albedo(prior, np.zeros(len(prior.modes)))), 0.002, 0.98)
    assert r.statistical_diffuse == pytest.approx(mean, abs=1e-5)
    assert np.abs(switched[DEFAULT].statistical_diffuse - mean).max() > 0.01


def test_without_maps_the_skin_is_statistical(switched):
    r = switched["no-maps"]
    assert r.maps.diffuse.tobytes() == r.statistical_diffuse.tobytes()
    assert not r.maps.confidence.any()
    assert r.pictures.render.tobytes() == r.pictures.stage1.tobytes()
    default = switched[DEFAULT]
    assert np.abs(default.maps.diffuse - default.statistical_diffuse).max() > 0.01


def test_without_symmetry_the_unseen_side_is_another(switched):
    a, b = (switched[k].maps.diffuse for k in (DEFAULT, "no-symmetry"))
    assert np.abs(a - b).max() > 0.01


# with data


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory) -> Path:
    """One head under one light at one yaw."""
    if not (DATA / "ict").is_dir():
        pytest.skip("RAYTRACE_FACE_DATA names no folder with ict")
    folder = tmp_path_factory.mktemp("synthetic")
    options = ["--count", "1", "--lights", "hard", "--yaw", "30", "--seed", "4", "--quiet"]
    command("make", "synthetic", str(DATA / "ict"), "made", *options, folder=folder)
    return folder / "made"


def test_a_synthetic_photo_is_what_its_description_says(synthetic, mi):
    """Its head, built again from the seed, lies where the description says; albedo is known there and nowhere else."""
    from raytrace_face.benchmark import make_synthetic
    from raytrace_face.benchmark.ict import NARROW, load_ict
    from raytrace_face.tracer.render import gbuffer
    from raytrace_face.tracer.scene import HeadScene
    from raytrace_face.types import Camera

    (item,) = load(synthetic).items
    assert (item.id, item["light"], item["yaw_deg"]) == ("ict0_hard_yaw30", "hard", 30.0)
    photo = np.asarray(Image.open(synthetic / str(item["photo"])))
    assert photo.shape == (512, 512, 3)
    assert 0.7 < photo.max() / 255 <= 1
    T = np.array(item["T_camera_head"])
    assert rotation_angle_deg(T[:3, :3], np.eye(3)) == pytest.approx(30, abs=10)  # nod and tilt are up to 6 each
    assert np.linalg.norm(item["light_direction"]) == pytest.approx(1, abs=1e-6)
    assert (
        45 < angle_deg(np.array(item["light_direction"]), np.array([0, 0, 1.0])) < 80
    )  # hard lights come from the side
    ict = load_ict(DATA / "ict")
    subject = make_synthetic.make_subject(ict, 0, "all", 4)
    with np.load(synthetic / str(item["head"])) as z:
        scan, landmarks = z["vertices"], z["landmarks"]
    own = {v.tobytes() for v in subject.neutral[:NARROW]}
    assert 2000 < len(scan) < NARROW
    assert all(v.tobytes() in own for v in scan)
    assert landmarks == pytest.approx(subject.neutral[ict.landmarks[list(make_synthetic.SEVEN)]])
    camera = Camera(512, 512, float(item["focal_px"]), (256, 256))
    seven = subject.posed[ict.landmarks[list(make_synthetic.SEVEN)]]
    assert np.array(item["landmarks_px"]) == pytest.approx(project(camera, to_camera(T, seven)), abs=1e-6)
    assert photo.shape[0] > np.max(item["landmarks_px"]) > np.min(item["landmarks_px"]) > 0
    hit = (gbuffer(HeadScene(ict.model, subject.posed), camera, T).part != 255).reshape(512, 512)
    with np.load(synthetic / str(item["truth"])) as z:
        albedo = z["albedo"].astype(np.float32)
    assert 0.1 < hit.mean() < 0.9
    assert not albedo[~hit].any()
    assert (albedo[hit].sum(axis=1) > 0).mean() > 0.95  # but for teeth and the inside of the mouth
    assert albedo.max() < 1


def test_doing_nothing_has_a_floor_for_everything_but_its_own_photo(synthetic, tmp_path):
    command("run", str(synthetic), "--method", "nothing", "--jobs", "1", "--out", "out", "--quiet", folder=tmp_path)
    with (tmp_path / "out" / "table.csv").open() as file:
        found = {(r["method"], r["figure"]): float(r["mean"]) for r in csv.DictReader(file)}
    (item,) = load(synthetic).items
    truth = angle_deg(np.array(item["light_direction"]), np.array([0, 0, 1.0]))
    assert found["nothing", "light_error_deg"] == pytest.approx(float(truth), abs=1e-3)
    assert found["nothing", "pose_deg"] == pytest.approx(30, abs=12)
    assert 0.1 < found["nothing", "albedo_rmse"] < 2  # shading, background apart, is all in it
    assert found["nothing", "aligned_median_mm"] == found["mean face", "aligned_median_mm"]
    assert 0.5 < found["mean face", "aligned_median_mm"] < 3
    assert ("nothing", "psnr_db") not in found


@pytest.mark.skipif(not (DATA / "yaleb").is_dir(), reason="RAYTRACE_FACE_DATA names no folder with yaleb")
def test_result_folders_score_as_the_run_that_made_them(tmp_path):
    """A saved result under `<id>` is another way to bring a method; its shadows are traced in a fresh process."""
    subject, light = sorted(p.name for p in (DATA / "yaleb").glob("yaleB*"))[0], "A+050E+00"
    made = ["--subjects", subject, "--lights", light, "--quiet"]
    command("make", "yaleb", str(DATA / "yaleb"), "made", *made, folder=tmp_path)
    photo = tmp_path / "made" / "photos" / f"{subject}_{light}.png"
    (tmp_path / "mine").mkdir()
    (tmp_path / "small.toml").write_text(
        'quality = "preview"\n[stage1]\nsize = 48\nsamples = 2\n[stage2]\nsize = 64\ntexture = 64\nsamples = 2\n'
        "iterations = 3\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "raytrace_face", "reconstruct", str(photo), "--colour", "linear", "--quiet",
         "--deterministic", "--config", "small.toml", "--out", f"mine/{subject}_{light}"],
        capture_output=True, text=True, timeout=600, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    options = ["--method", DEFAULT, "mine", "--quiet", "--out", "out", "--set", *SMALL, "deterministic=true"]
    command("run", "made", *options, folder=tmp_path)
    with (tmp_path / "out" / "items.csv").open() as file:
        ours, theirs = csv.DictReader(file)
    assert ours["error"] == theirs["error"] == ""
    differing = [k for k in ours if k not in ("method", "seconds") and ours[k] != theirs[k]]
    assert differing == []
