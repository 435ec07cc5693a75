"""Benchmarks from NoW and MICC folders: miniatures in their layouts are made, and known meshes get known figures."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from scipy.spatial.transform import Rotation

from raytrace_face.benchmark.spec import load
from raytrace_face.cli import run
from raytrace_face.face.store import load_embedded
from raytrace_face.measure import meshes
from raytrace_face.measure.meshes import FaceMesh

PEOPLE = {"FaMoS_01": (2.0, -1.5, 2.0), "FaMoS_02": (-1.5, 2.0, -1.0)}
"""Name -> three identity modes, in standard deviations."""
CHALLENGES = ("multiview_neutral", "selfie")
ITEMS = [f"{person}_{challenge}_IMG_1" for person in PEOPLE for challenge in CHALLENGES]
TURN = Rotation.from_euler("xyz", [20, -35, 10], degrees=True)


def person(modes: tuple[float, ...], turn: Rotation = TURN) -> FaceMesh:
    """The front of someone's head, coarse, in the scanner's frame."""
    model = load_embedded(0)
    identity = np.zeros(len(model.identity), np.float32)
    identity[[0, 3, 5]] = modes
    neutral = model.vertices(identity, np.zeros(len(model.expression), np.float32))
    face = meshes._of_model(model, neutral, neutral)
    used, triangles = np.unique(
        face.triangles[face.vertices[face.triangles][..., 2].mean(axis=1) > -40], return_inverse=True
    )
    return FaceMesh(turn.apply(face.vertices[used]), triangles.reshape(-1, 3), turn.apply(face.landmarks))


def write_obj(path: Path, mesh: FaceMesh) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    trimesh.Trimesh(mesh.vertices, mesh.triangles, process=False).export(path)


def write_pp(path: Path, points: np.ndarray) -> None:
    """Picked points as MeshLab 2022 writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picked = "".join(
        f' <point y="{y:.6f}" name="{k}" x="{x:.6f}" active="1" z="{z:.6f}"/>\n' for k, (x, y, z) in enumerate(points)
    )
    head = ' <DocumentData>\n  <DateTime date="2019-04-01" time="12:00:00"/>\n  <User name="someone"/>\n'
    head += '  <DataFileName name="scan.obj"/>\n  <templateName name=""/>\n </DocumentData>\n'
    path.write_text(f"<!DOCTYPE PickedPoints>\n<PickedPoints>\n{head}{picked}</PickedPoints>\n")


def write_photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), (90, 80, 70)).save(path)


def now_folder(root: Path) -> Path:
    lines = [f"{name}/{challenge}/IMG_1.jpg" for name in PEOPLE for challenge in CHALLENGES]
    root.mkdir()
    (root / "imagepathsvalidation.txt").write_text("\n".join(lines) + "\n\n")
    for line in lines:
        write_photo(root / "NoW_Dataset/final_release_version/iphone_pictures" / line)
    for name, modes in PEOPLE.items():
        mesh = person(modes)
        write_obj(root / "scans" / name / "natural_head_rotation.000001.obj", mesh)
        write_pp(root / "scans_lmks_onlypp" / name / "natural_head_rotation.000001_picked_points.pp", mesh.landmarks)
    return root


def micc_folder(root: Path) -> Path:
    for name, take, modes in zip(("subject_01", "subject_02"), ("frontal1", "frontal2"), PEOPLE.values(), strict=True):
        mesh = person(modes)
        write_obj(root / name / "Model" / take / "obj" / "110718150301.obj", mesh)
        write_photo(root / "photos" / name / "frame_0001.png")
        (root / "landmarks").mkdir(exist_ok=True)
        np.savetxt(root / "landmarks" / f"{name}.txt", mesh.landmarks)
    return root


@pytest.fixture(scope="module")
def now(tmp_path_factory) -> Path:
    return now_folder(tmp_path_factory.mktemp("now") / "NoW")


@pytest.fixture(scope="module")
def micc(tmp_path_factory) -> Path:
    return micc_folder(tmp_path_factory.mktemp("micc"))


@pytest.fixture(scope="module")
def made(now, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "now"
    assert run(["benchmark", "make", "now", str(now), str(folder), "--quiet"]) == 0
    return folder


def results(folder: Path, scale: float, names: dict[str, tuple[float, ...]]) -> Path:
    """Another program's meshes: the very scans, scaled, in a frame of their own."""
    folder.mkdir()
    for name, modes in names.items():
        mesh = person(modes, Rotation.from_euler("xyz", [5, 10, -8], degrees=True))
        scaled = FaceMesh(scale * mesh.vertices + 7, mesh.triangles, scale * mesh.landmarks + 7)
        write_obj(folder / f"{name}.obj", scaled)
        np.savetxt(folder / f"{name}.txt", scaled.landmarks)
    return folder


def figures(folder: Path) -> dict[tuple[str, str], float]:
    with (folder / "table.csv").open() as file:
        return {(r["method"], r["figure"]): float(r["mean"]) for r in csv.DictReader(file)}


def test_now_is_made_from_its_own_layout(now, made):
    found = load(made)
    assert found.protocol == "now"
    assert [i.id for i in found.items] == ITEMS
    assert [i["challenge"] for i in found.items] == [*CHALLENGES, *CHALLENGES]
    assert len({i["scan"] for i in found.items}) == 2, "one scan a person, not a photo"
    assert len(list((made / "scans").iterdir())) == 4
    for item in found.items:
        assert found.path(str(item["photo"])).stat().st_size > 100
    scan, landmarks = meshes.load_scan(
        found.path(str(found.items[0]["scan"])), found.path(str(found.items[0]["landmarks"]))
    )
    truth = person(PEOPLE["FaMoS_01"])
    assert landmarks == pytest.approx(truth.landmarks, abs=1e-5)
    assert scan.vertices.mean(axis=0) == pytest.approx(truth.vertices.mean(axis=0), abs=1)


def test_the_scan_itself_scores_zero_and_a_larger_one_only_where_size_counts(made, tmp_path):
    by_item = {i: PEOPLE[i[:8]] for i in ITEMS}
    perfect, large = results(tmp_path / "perfect", 1.0, by_item), results(tmp_path / "large", 1.1, by_item)
    given = [str(perfect), str(large), "nothing"]
    options = ["--method", *given, "--jobs", "1", "--quiet", "--out", str(tmp_path / "out")]
    assert run(["benchmark", "run", str(made), *options]) == 0
    found = figures(tmp_path / "out")
    for name in ("aligned_median_mm", "aligned_mean_mm", "nose_median_mm", "cheeks_median_mm"):
        # ICP stops when its next step moves no point more than 1e-4 mm, which is some steps away from the end
        assert found["perfect", name] == pytest.approx(0, abs=5e-3), name
        assert found["large", name] == pytest.approx(0, abs=5e-3), name
    assert found["perfect", "unscaled_median_mm"] == pytest.approx(0, abs=1e-3)
    # a face of about 60 mm radius that is a tenth too large, laid on as well as it goes
    assert 0.5 < found["large", "unscaled_median_mm"] < 6
    assert found["perfect", "normals_median_deg"] < 0.1
    assert found["perfect", "failed"] == 0
    # doing nothing is the mean face, which has its own row beside any method
    for name in ("aligned_median_mm", "unscaled_median_mm", "normals_median_deg"):
        assert found["nothing", name] == pytest.approx(found["mean face", name], rel=1e-6)
        assert found["nothing", name] > 100 * max(found["perfect", name], 1e-3), name
    text = (tmp_path / "out" / "table.md").read_text()
    assert "| mean face | 4 | 0 | " in text
    # four photos of two people: the interval is over people
    assert ("perfect", "posed_median_mm") not in found, "a file brings one shape"
    assert text.count("by challenge") == 1
    assert "| selfie | 2 |" in text


def test_people_in_now_are_scans_not_photos(made, tmp_path):
    """Photos of one person share the scan: with one person there is no interval, however many the photos."""
    options = ["--method", "nothing", "--jobs", "1", "--quiet", "--out", str(tmp_path / "out")]
    single = tmp_path / "single"
    shutil.copytree(made, single)
    text = (single / "benchmark.toml").read_text().split("[[item]]")
    (single / "benchmark.toml").write_text("[[item]]".join(text[:3]))
    assert run(["benchmark", "run", str(single), *options]) == 0
    with (tmp_path / "out" / "table.csv").open() as file:
        (row,) = (r for r in csv.DictReader(file) if (r["method"], r["figure"]) == ("nothing", "aligned_median_mm"))
    assert (row["count"], row["low"]) == ("2", "nan")


def test_micc_is_made_and_run(micc, tmp_path):
    made = tmp_path / "made"
    assert run(["benchmark", "make", "micc", str(micc), str(made), "--quiet"]) == 0
    found = load(made)
    assert found.protocol == "micc"
    assert [i.id for i in found.items] == ["subject_01_frame_0001", "subject_02_frame_0001"]
    names = dict(zip([i.id for i in found.items], PEOPLE.values(), strict=True))
    perfect = results(tmp_path / "perfect", 1.0, names)
    (perfect / "subject_02_frame_0001.txt").unlink()
    options = ["--method", str(perfect), "--jobs", "1", "--quiet", "--out", str(tmp_path / "out")]
    assert run(["benchmark", "run", str(made), *options]) == 0
    with (tmp_path / "out" / "items.csv").open() as file:
        first, second = csv.DictReader(file)
    assert float(first["aligned_median_mm"]) == pytest.approx(0, abs=1e-3)
    assert first["error"] == ""
    # without its landmarks the second cannot be laid on: it counts as the mean face, and is named
    assert "subject_02_frame_0001.txt" in second["error"]
    assert float(second["aligned_median_mm"]) == pytest.approx(float(second["mean face.aligned_median_mm"]))
    assert "- perfect, subject_02_frame_0001: InputError" in (tmp_path / "out" / "table.md").read_text()
    assert "mean face" in (tmp_path / "out" / "table.md").read_text()


def test_only_some_people(now, tmp_path):
    assert run(["benchmark", "make", "now", str(now), str(tmp_path / "b"), "--quiet", "--subjects", "FaMoS_02"]) == 0
    assert {i["scan"] for i in load(tmp_path / "b").items} == {"scans/FaMoS_02.obj"}


def unlink(pattern: str):
    def change(root: Path) -> None:
        for path in root.glob(pattern):
            path.unlink()

    return change


def rewrite(name: str, text: str):
    return lambda root: (root / name).write_text(text)


PICTURES = "NoW_Dataset/final_release_version/iphone_pictures"
BROKEN = {
    "now, no list": ("now", unlink("imagepathsvalidation.txt"), "imagepathsvalidation.txt"),
    "now, a line": ("now", rewrite("imagepathsvalidation.txt", "a/b.jpg"), "'a/b.jpg'"),
    "now, a way out": ("now", rewrite("imagepathsvalidation.txt", "../x/b.jpg"), "'../x/b.jpg'"),
    "now, empty": ("now", rewrite("imagepathsvalidation.txt", "\n"), "none at all"),
    "now, photo": ("now", unlink(f"{PICTURES}/FaMoS_02/selfie/*"), "FaMoS_02/selfie/IMG_1.jpg' does not exist"),
    "now, scan": ("now", unlink("scans/FaMoS_02/*"), "scans/FaMoS_02' has no scan"),
    "now, landmarks": ("now", unlink("scans_lmks_onlypp/FaMoS_02/*"), "FaMoS_02' has no landmarks (.pp)"),
    "micc, no people": ("micc", lambda root: [shutil.rmtree(p) for p in root.glob("subject_*")], "no folders subject_"),
    "micc, model": ("micc", lambda root: shutil.rmtree(root / "subject_01/Model"), "subject_01' has no Model/frontal1"),
    "micc, scan": ("micc", unlink("subject_01/Model/*/obj/*"), "has no scan"),
    "micc, photos": ("micc", unlink("photos/subject_02/*"), "photos/subject_02' has no photos"),
    "micc, landmarks": ("micc", unlink("landmarks/subject_02.txt"), "has no subject_02.pp"),
    "micc, six landmarks": (
        "micc", lambda root: np.savetxt(root / "landmarks/subject_02.txt", np.eye(3)[[0, 1, 2] * 2]), "expected (7, 3)"
    ),
    "micc, one name twice": (
        "micc", lambda root: write_photo(root / "photos/subject_01/frame_0001.jpg"), "'subject_01_frame_0001' twice"
    ),
    "micc, a blank": (
        "micc", lambda root: write_photo(root / "photos/subject_01/frame 2.jpg"), "'subject_01_frame 2'"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_missing_is_named_and_nothing_is_written(case, now, micc, tmp_path, capsys):
    kind, change, message = BROKEN[case]
    shutil.copytree({"now": now, "micc": micc}[kind], tmp_path / "data")
    change(tmp_path / "data")
    assert run(["benchmark", "make", kind, str(tmp_path / "data"), str(tmp_path / "made"), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_an_unknown_person_is_named_beside_known_ones(now, tmp_path, capsys):
    arguments = [str(now), str(tmp_path / "made"), "--subjects", "FaMoS_02", "FaMoS_09", "--quiet"]
    assert run(["benchmark", "make", "now", *arguments]) == 2
    assert "no photo of FaMoS_09 in" in capsys.readouterr().err


def test_an_unknown_unit_is_one_line(made, tmp_path, capsys):
    shutil.copytree(made, tmp_path / "bad")
    toml = tmp_path / "bad" / "benchmark.toml"
    toml.write_text(toml.read_text().replace('unit = "mm"', 'unit = "inch"'))
    options = ["--method", "nothing", "--jobs", "1", "--quiet", "--out", str(tmp_path / "out")]
    assert run(["benchmark", "run", str(tmp_path / "bad"), *options]) == 2
    assert "unit 'inch': use one of mm, cm, m" in capsys.readouterr().err
