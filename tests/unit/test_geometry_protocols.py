"""Geometry protocols: known errors get known figures, whatever the motion, the order of vertices and the density."""

from __future__ import annotations

import csv
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from scipy.spatial.transform import Rotation

from raytrace_face.cli import run
from raytrace_face.errors import InputError
from raytrace_face.face.store import load_embedded
from raytrace_face.measure import geometry, meshes, protocols
from raytrace_face.measure.alignment import Similarity
from raytrace_face.measure.geometry import Errors
from raytrace_face.measure.meshes import FaceMesh
from raytrace_face.measure.surface import Surface, unit

DATA = Path(os.environ.get("RAYTRACE_FACE_DATA", "nowhere"))
MOTION = Similarity(
    1.0, Rotation.from_euler("xyz", [20, -35, 10], degrees=True).as_matrix(), np.array([50, -20, 900.0])
)


def ball(radius: float, subdivisions: int = 4) -> Surface:
    sphere = trimesh.creation.icosphere(subdivisions, radius)
    return Surface(np.asarray(sphere.vertices), np.asarray(sphere.faces))


@pytest.fixture(scope="module")
def person() -> FaceMesh:
    """Someone who is not the mean: coarse face of the embedded model, two strong modes, front of the head only."""
    model = load_embedded(0)
    identity = np.zeros(len(model.identity), np.float32)
    identity[[0, 3, 5]] = 2.0, -1.5, 2.0
    expression = np.zeros(len(model.expression), np.float32)
    expression[model.expression_names.index("jawOpen")] = 0.6
    neutral = model.vertices(identity, expression * 0)
    face = meshes._of_model(model, neutral, model.vertices(identity, expression))
    front = face.vertices[face.triangles][..., 2].mean(axis=1) > -40
    return replace(face, triangles=face.triangles[front])


@pytest.fixture(scope="module")
def scan(person) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, normals and landmarks of a scan of the person: three times as fine, in the scanner's frame."""
    used, triangles = np.unique(person.triangles, return_inverse=True)
    vertices, triangles = trimesh.remesh.subdivide(person.vertices[used], triangles.reshape(-1, 3))
    normals = Surface(vertices, triangles).vertex_normals
    return MOTION.apply(vertices), normals @ MOTION.rotation.T, MOTION.apply(person.landmarks)


def mean_like(person: FaceMesh) -> FaceMesh:
    """The coarse mean head: a mesh with a real error against the person's scan."""
    model = load_embedded(0)
    return meshes._of_model(model, model.mean, model.mean)


# distances


def test_distance_from_a_sphere_is_known():
    """A ball of 50 mm against points of a ball of 53 mm moved by 4 mm: |p| - 50, up to the flatness of triangles."""
    p = 53 * unit(np.random.default_rng(0).normal(size=(2000, 3))) + [4, 0, 0]
    expected = np.abs(np.linalg.norm(p, axis=1) - 50)
    found = geometry.surface_distances(p, ball(50))
    # triangles with edges up to 4.1 mm lie at most 4.1^2 / (6 * 50) = 0.057 mm inside a ball of 50 mm
    assert np.abs(found - expected).max() < 0.06
    assert geometry.plane_distances(p, ball(50)).mean() == pytest.approx(expected.mean(), abs=0.06)
    assert np.abs(geometry.normal_errors_deg(p, unit(p - [4, 0, 0]), ball(50))).max() < np.degrees(4 / 50) + 1


def brute_force(p: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    """Distance of a point from a triangle by cases: its plane where the foot lies inside, else its three edges."""
    n = np.cross(b - a, c - a)
    n /= np.linalg.norm(n)
    foot = p - ((p - a) @ n) * n
    if all(np.cross(v - u, foot - u) @ n >= 0 for u, v in ((a, b), (b, c), (c, a))):
        return float(abs((p - a) @ n))
    ends = []
    for u, v in ((a, b), (b, c), (c, a)):
        t = np.clip((p - u) @ (v - u) / ((v - u) @ (v - u)), 0, 1)
        ends.append(float(np.linalg.norm(p - u - t * (v - u))))
    return min(ends)


def test_exact_distances_are_those_of_brute_force():
    rng = np.random.default_rng(1)
    corners = rng.normal(0, 20, (40, 3, 3))
    surface = Surface(corners.reshape(-1, 3), np.arange(120).reshape(-1, 3))
    points = rng.normal(0, 25, (50, 3))
    expected = [min(brute_force(p, *triangle) for triangle in corners) for p in points]
    assert geometry.surface_distances(points, surface) == pytest.approx(expected, abs=1e-9)


def test_gaussian_noise_on_a_plane_has_the_moments_of_a_half_normal():
    sigma, count = 0.8, 20_000
    rng = np.random.default_rng(2)
    points = np.concatenate([rng.uniform(-50, 50, (count, 2)), rng.normal(0, sigma, (count, 1))], axis=1)
    plane = Surface(
        np.array([[-90.0, -90, 0], [90, -90, 0], [90, 90, 0], [-90, 90, 0]]), np.array([[0, 1, 2], [0, 2, 3]])
    )
    e = Errors.of(geometry.surface_distances(points, plane))
    error = 4 * sigma / np.sqrt(count)  # four standard errors; those of median and mean are under sigma / sqrt(n)
    assert e.median == pytest.approx(0.6745 * sigma, abs=error)
    assert e.mean == pytest.approx(np.sqrt(2 / np.pi) * sigma, abs=error)
    assert e.std == pytest.approx(np.sqrt(1 - 2 / np.pi) * sigma, abs=error)
    assert e.p90 == pytest.approx(1.6449 * sigma, abs=3 * error)  # the density is a third there
    assert e.rmse == pytest.approx(sigma, abs=error)
    assert e.n == count


def test_the_three_distances_are_ordered(person, scan):
    surface = Surface(person.vertices, person.triangles)
    points = MOTION.undo(scan[0]) + np.random.default_rng(3).normal(0, 1, scan[0].shape)
    vertex = geometry.vertex_distances(points, surface)
    assert (geometry.surface_distances(points, surface) <= vertex + 1e-9).all()
    assert (geometry.plane_distances(points, surface) <= vertex + 1e-9).all()


def test_a_mesh_wound_the_other_way_has_the_same_normal_errors():
    p = 51 * unit(np.random.default_rng(4).normal(size=(300, 3)))
    right = ball(50)
    wrong = Surface(right.vertices, right.triangles[:, ::-1])
    a, b = (geometry.normal_errors_deg(p, unit(p), surface) for surface in (right, wrong))
    assert a == pytest.approx(b, abs=1e-9)
    assert a.max() < 3


def test_cumulative_curve_counts_points():
    distances = np.random.default_rng(5).exponential(1, 1000)
    limits = np.linspace(0, 4, 9)
    expected = [(distances <= limit).mean() for limit in limits]
    assert geometry.cumulative_curve(distances, limits) == pytest.approx(expected)


def test_no_points_have_no_errors():
    e = Errors.of(np.zeros(0))
    assert e.n == 0
    assert np.isnan([e.median, e.mean, e.std, e.p90, e.rmse]).all()


# protocols


@pytest.mark.parametrize("protocol", ["now", "micc"])
def test_truth_against_itself_has_no_error(person, scan, protocol):
    used = np.unique(person.triangles)
    points = MOTION.apply(person.vertices[used])
    normals = Surface(person.vertices, person.triangles).vertex_normals[used] @ MOTION.rotation.T
    scores = protocols.PROTOCOLS[protocol](points, scan[2], person, normals)
    # ICP stops when steps fall under 1e-4 mm, and where corners lie on corners many such steps may be left
    assert scores.aligned.p90 < 5e-3
    assert scores.rigid.p90 < 5e-3
    assert scores.point_to_point.p90 < 5e-3
    assert scores.motion.scale == pytest.approx(1, abs=1e-4)
    assert scores.normals_deg is not None
    assert scores.normals_deg.p90 < 0.1
    assert scores.posed is not None
    assert scores.posed.mean > scores.aligned.mean + 0.2  # the open jaw is an error against a neutral scan


@pytest.mark.parametrize("protocol", ["now", "micc"])
def test_scores_do_not_depend_on_frame_order_or_size_of_the_mesh(person, scan, protocol):
    points, normals, landmarks = scan
    mesh = mean_like(person)
    measure = protocols.PROTOCOLS[protocol]
    expected = measure(points, landmarks, mesh, normals).row()
    order = np.random.default_rng(6).permutation(len(mesh.vertices))
    place = np.argsort(order)
    far = Similarity(1.0, Rotation.random(rng=7).as_matrix(), np.array([300.0, 0, -5000]))
    assert mesh.posed is not None
    moved = FaceMesh(
        far.apply(mesh.vertices[order]), place[mesh.triangles], far.apply(mesh.landmarks), far.apply(mesh.posed[order])
    )
    # ICP stops when steps fall under 1e-4 mm
    assert measure(points, landmarks, moved, normals).row() == pytest.approx(expected, abs=2e-3)
    shuffled = np.random.default_rng(8).permutation(len(points))
    turned = measure(far.apply(points[shuffled]), far.apply(landmarks), mesh, normals[shuffled] @ far.rotation.T)
    assert turned.row() == pytest.approx(expected, abs=2e-3)
    bigger = replace(mesh, vertices=1.2 * mesh.vertices, landmarks=1.2 * mesh.landmarks, posed=1.2 * mesh.posed)
    scaled = measure(points, landmarks, bigger, normals).row()
    assert scaled["scale"] == pytest.approx(expected["scale"] / 1.2, abs=1e-4)
    # ICP starts from another scale and ends a few steps apart; the planes of micc turn with the nearest vertex
    assert scaled["aligned_median_mm"] == pytest.approx(expected["aligned_median_mm"], abs=5e-3)
    assert scaled["normals_mean_deg"] == pytest.approx(expected["normals_mean_deg"], abs=0.05)
    assert scaled["unscaled_median_mm"] > expected["unscaled_median_mm"] + 1


def test_distance_to_the_surface_does_not_depend_on_the_density_of_the_mesh_but_to_vertices_it_does(person, scan):
    points, _, landmarks = scan
    coarse = mean_like(person)
    vertices, triangles = trimesh.remesh.subdivide(coarse.vertices, coarse.triangles)
    fine = FaceMesh(vertices, triangles, coarse.landmarks)
    a, b = (protocols.now(points, landmarks, mesh) for mesh in (coarse, fine))
    # the surface is the same; only which triangles ICP tries differs
    assert a.aligned.median == pytest.approx(b.aligned.median, abs=5e-3)
    assert a.rigid.mean == pytest.approx(b.rigid.mean, abs=5e-3)
    assert a.point_to_point.median > 1.3 * b.point_to_point.median


def test_scale_is_recovered_and_reported(person, scan):
    points, _, landmarks = scan
    small = replace(person, vertices=person.vertices / 1.1, landmarks=person.landmarks / 1.1, posed=None)
    scores = protocols.now(points, landmarks, small)
    assert scores.motion.scale == pytest.approx(1.1, abs=1e-4)
    assert scores.aligned.median < 1e-3
    assert scores.rigid.median > 1
    assert scores.posed is None
    assert scores.normals_deg is None
    assert np.isnan([scores.row()["posed_median_mm"], scores.row()["normals_mean_deg"]]).all()


def test_known_noise_of_the_scan_is_the_error(person, scan):
    """Against the true mesh the distances are those of the noise along the normals: half-normal."""
    points, normals, landmarks = scan
    noisy = points + np.random.default_rng(9).normal(0, 0.5, (len(points), 1)) * normals
    scores = protocols.now(noisy, landmarks, person)
    for region in ("forehead", "cheeks"):  # smooth: on folds, the noise brings points nearer to other triangles
        e = scores.regions[region]
        # four standard errors of the median of a half-normal; alignment takes up 7 of thousands of freedoms
        assert e.median == pytest.approx(0.6745 * 0.5, abs=4 * 0.79 * 0.5 / np.sqrt(e.n)), region
        assert e.n > 200


def test_now_counts_the_ball_of_the_published_evaluation(person, scan):
    points, _, landmarks = scan
    p = landmarks
    bridge = 0.5 * p[1] + 0.5 * p[2]
    centre = 0.7 * p[4] + 0.3 * bridge
    radius = 1.4 * (np.linalg.norm(p[0] - p[3]) + np.linalg.norm(bridge - p[4])) / 2
    expected = np.sqrt(((points - centre) ** 2).sum(axis=1)) <= radius
    assert 100 < expected.sum() < len(points)
    assert (protocols.now(points, landmarks, person).counted == expected).all()


def test_micc_keeps_exactly_the_points_within_95_mm_of_the_nose_tip(person, scan):
    points, _, landmarks = scan
    tip = protocols.nose_tip(points, landmarks)
    scores = protocols.micc(points, landmarks, person)
    expected = np.sqrt(((points - tip) ** 2).sum(axis=1)) <= 95
    assert 100 < expected.sum() < len(points)
    assert (scores.counted == expected).all()
    assert scores.aligned.n == expected.sum() == len(scores.distance_mm)
    model = load_embedded(0)
    network = model.landmark_points(person.vertices)[list(model.landmark_index).index(1)]  # the network's nose tip
    assert np.linalg.norm(tip - MOTION.apply(network[None])[0]) < 8
    given = protocols.micc(points, landmarks, person, tip=landmarks[4])
    assert (given.counted == (np.linalg.norm(points - landmarks[4], axis=1) <= 95)).all()


def test_regions_lie_where_their_names_say(person, scan):
    points, _, landmarks = scan
    found = protocols.face_regions(points, landmarks)
    assert set(found) == set(protocols.REGIONS)
    assert sum(mask.astype(int) for mask in found.values()).max() == 1  # none overlap
    head = MOTION.undo(points)
    p = MOTION.undo(landmarks)
    assert head[found["forehead"]][:, 1].min() > p[:4, 1].max() + 15
    assert head[found["mouth"]][:, 1].max() < p[4, 1]
    assert found["mouth"][np.linalg.norm(points - landmarks[5], axis=1).argmin()]
    assert found["nose"][((points - protocols.nose_tip(points, landmarks)) ** 2).sum(axis=1).argmin()]
    assert np.abs(head[found["nose"]][:, 0]).max() < np.abs(p[0, 0])
    left, right = (head[found["cheeks"]][:, 0] > 0).sum(), (head[found["cheeks"]][:, 0] < 0).sum()
    assert left == pytest.approx(right, rel=0.2)


def test_a_local_error_is_found_in_its_region(person, scan):
    """The nose of the mesh is drawn out by 6 mm: the nose's error grows, the forehead's hardly."""
    points, _, landmarks = scan
    base = protocols.now(points, landmarks, person).row()
    nose = protocols.face_regions(MOTION.apply(person.vertices), landmarks)["nose"]
    longer = np.array(person.vertices)
    longer[nose, 2] += 6
    row = protocols.now(points, landmarks, replace(person, vertices=longer)).row()
    assert row["nose_median_mm"] > base["nose_median_mm"] + 2
    assert row["forehead_median_mm"] < base["forehead_median_mm"] + 1


def test_landmarks_in_another_order_are_refused(person, scan):
    points, _, landmarks = scan
    with pytest.raises(InputError, match="order of NoW"):
        protocols.now(points, landmarks[[3, 2, 1, 0, 4, 6, 5]], person)
    with pytest.raises(InputError, match="no scan point"):
        protocols.now(points + 1000, landmarks, person)
    with pytest.raises(InputError, match="no scan point"):
        protocols.micc(points + 1000, landmarks, person)


def test_tables_carry_the_mean_face(person, scan):
    points, normals, landmarks = scan
    scores = protocols.compare("now", "ours", points, landmarks, person, normals)
    rows = protocols.table_rows(scores)
    assert [row["shape"] for row in rows] == ["ours", "mean face"]
    mean = protocols.now(points, landmarks, meshes.mean_face(), normals)
    assert {k: v for k, v in rows[1].items() if k != "shape"} == mean.row()
    assert mean.aligned.median > scores["ours"].aligned.median + 0.2
    with pytest.raises(InputError, match="rename"):
        protocols.compare("now", "mean face", points, landmarks, person)


def test_mean_face_has_its_landmarks_on_both_sides():
    points = meshes.mean_face().landmarks
    assert points[[0, 1, 5], 0] == pytest.approx(-points[[3, 2, 6], 0], abs=0.01)  # mm; the embedding is symmetric
    assert (points[[0, 1, 5], 0] < 0).all()  # the person's right is the image's left
    assert points[4, 0] == pytest.approx(0, abs=0.1)


@pytest.mark.skipif(not (DATA / "ict").is_dir(), reason="RAYTRACE_FACE_DATA has no folder ict")
def test_mean_ict_face_is_near_the_embedded_mean_face():
    """The embedded model was registered to ICT's statistics: means apart by about a millimetre, landmarks by two."""
    from raytrace_face.benchmark.ict import NARROW, load_ict

    ict = load_ict(DATA / "ict")
    scan = ict.model.mean.astype(np.float64)
    landmarks = scan[ict.landmarks[[36, 39, 42, 45, 33, 48, 54]]]
    mean = meshes.mean_face()
    scores = protocols.now(scan[:NARROW], landmarks, mean)
    assert 0.2 < scores.aligned.median < 1.2
    assert scores.motion.scale == pytest.approx(1, abs=0.02)
    assert np.linalg.norm(scores.motion.apply(mean.landmarks) - landmarks, axis=1).max() < 4


# files and the command


@pytest.fixture
def files(person, scan, tmp_path, monkeypatch) -> list[str]:
    """A miniature scan and a mesh in the working folder; the arguments that measure them."""
    monkeypatch.chdir(tmp_path)
    used, triangles = np.unique(person.triangles, return_inverse=True)
    trimesh.Trimesh(MOTION.apply(person.vertices[used]), triangles.reshape(-1, 3), process=False).export("scan.ply")
    np.savetxt("scan.txt", scan[2])
    mesh = mean_like(person)
    trimesh.Trimesh(mesh.vertices, mesh.triangles, process=False).export("mesh.obj")
    np.save("mesh.npy", mesh.landmarks)
    return [
        *("evaluate", "geometry", "--scan", "scan.ply", "--scan-landmarks", "scan.txt"),
        *("--mesh", "mesh.obj", "--mesh-landmarks", "mesh.npy"),
    ]


def test_command_measures_and_writes(files, person, capsys):
    assert run([*files, "--out", "out"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("| now, mm | median | mean | std | p90 | un-scaled median | posed median | normals deg |")
    assert [line.split("|")[1].strip() for line in said[2:]] == ["mesh.obj", "mean face"]
    assert Path("out/table.md").read_text().splitlines() == said
    with Path("out/table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["shape"] for row in rows] == ["mesh.obj", "mean face"]
    assert f"{float(rows[0]['aligned_median_mm']):.2f}" == said[2].split("|")[2].strip()
    with np.load("out/distances.npz", allow_pickle=False) as z:
        assert len(z["points_mm"]) == len(z["method_mm"]) == len(z["mean_face_mm"]) == float(rows[0]["points"])
        assert np.median(z["method_mm"]) == pytest.approx(float(rows[0]["aligned_median_mm"]), abs=1e-5)
    for name in ("errors.png", "cumulative.png"):
        with Image.open(f"out/{name}") as picture:
            assert np.ptp(np.asarray(picture.convert("L"))) > 100
    assert sorted(p.name for p in Path("out").iterdir()) == [
        "cumulative.png", "distances.npz", "errors.png", "table.csv", "table.md"
    ]  # fmt: skip
    assert run([*files, "--out", "out"]) == 2  # never overwritten
    assert "exists" in capsys.readouterr().err
    assert run([*files, "--quiet", "--out", "again"]) == 0
    assert capsys.readouterr() == ("", "")
    assert Path("again/table.csv").read_bytes() == Path("out/table.csv").read_bytes()  # nothing random


def figures_of(table):
    return [float(cell) for cell in re.findall(r"\| (-?\d+\.\d+) (?=\|)", table)]


def test_units_are_taken_at_their_word(files, scan, capsys):
    assert run([*files, "--protocol", "micc"]) == 0
    expected = capsys.readouterr().out
    assert len(figures_of(expected)) > 10
    for name, landmarks, factor in (("scan.ply", "scan.txt", 0.001), ("mesh.obj", "mesh.npy", 0.1)):
        mesh = trimesh.load_mesh(name, process=False)
        trimesh.Trimesh(factor * mesh.vertices, mesh.faces, process=False).export(name)
        if landmarks == "scan.txt":
            np.savetxt(landmarks, factor * scan[2])
        else:
            np.save(landmarks, factor * np.load(landmarks))
    assert run([*files, "--protocol", "micc", "--unit", "cm", "--scan-unit", "m"]) == 0
    # the files hold 32-bit numbers, so that a figure may round to the other side
    assert figures_of(capsys.readouterr().out) == pytest.approx(figures_of(expected), abs=0.0101)
    assert run([*files, "--unit", "cm", "--quiet"]) == 2
    said = capsys.readouterr().err
    assert "looks like m" in said
    assert "--scan-unit" in said


def text(name: str, content: str):
    return lambda: Path(name).write_text(content)


def replaced(name: str, row: str):
    """The file with its first line replaced."""
    return lambda: Path(name).write_text("\n".join([row, *Path(name).read_text().splitlines()[1:]]))


def pickled() -> None:
    np.save("mesh.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


def not_finite() -> None:
    lines = Path("mesh.obj").read_text().splitlines()
    first = next(k for k, line in enumerate(lines) if line.startswith("v "))
    Path("mesh.obj").write_text("\n".join([*lines[:first], "v nan 0 0", *lines[first + 1 :]]))


ENTITY = (
    '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><PickedPoints><point x="&x;" y="0" z="0"/></PickedPoints>'
)
BAD = {
    "missing scan": (lambda: Path("scan.ply").unlink(), "does not exist"),
    "missing landmarks": (lambda: Path("scan.txt").unlink(), "does not exist"),
    "empty mesh file": (text("mesh.obj", ""), "is empty"),
    "mesh without vertices": (text("mesh.obj", "# nothing\n"), "is empty"),
    "mesh without triangles": (text("mesh.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\n"), "no triangles"),
    "truncated ply": (lambda: Path("scan.ply").write_bytes(Path("scan.ply").read_bytes()[:3000]), "damaged"),
    "not a mesh": (text("scan.ply", "hello"), "damaged"),
    "triangle out of range": (text("mesh.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 99\n"), "damaged"),
    "vertex that is not a number": (not_finite, "not finite"),
    "pickle": (pickled, "allow_pickle"),
    "six landmarks": (replaced("scan.txt", ""), "(6, 3)"),
    "two coordinates": (text("scan.txt", "1 2\n" * 7), "(7, 2)"),
    "landmark that is not a number": (replaced("scan.txt", "nan 0 0"), "not finite"),
    "words": (text("scan.txt", "left eye\n"), "could not convert"),
    "landmarks on a line": (text("scan.txt", "".join(f"{10 * k} 0 0\n" for k in range(7))), "one line"),
    "landmarks of another mesh": (lambda: np.save("mesh.npy", np.load("mesh.npy") + 100), "share frame"),
    "metres": (lambda: np.save("mesh.npy", np.load("mesh.npy") / 1000), "looks like m"),
    "no unit at all": (lambda: np.save("mesh.npy", np.load("mesh.npy") * 7), "scale mesh and landmarks"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_one_clear_line(case, files, capsys):
    make, message = BAD[case]
    make()
    before = sorted(p.name for p in Path().iterdir())
    assert run([*files, "--out", "out"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("raytrace-face: error: ")
    assert said.count("\n") == 1
    assert message in said
    assert sorted(p.name for p in Path().iterdir()) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--mesh": "mesh.xyz"}, "must end in"),
        ({"--mesh": "nowhere"}, "does not exist"),
        ({"--mesh": "."}, "leave --mesh-landmarks out"),
        ({"--mesh-landmarks": "picked.pp"}, "XML entities"),
        ({"--mesh-landmarks": "mesh.obj"}, "must end in"),
        ({"--mesh-landmarks": ""}, "give --mesh-landmarks"),
        ({"--out": "/proc/face"}, "cannot be written"),
    ],
)
def test_bad_options_are_one_clear_line(change, message, files, capsys):
    Path("mesh.xyz").touch()
    Path("picked.pp").write_text(ENTITY)
    for name, value in change.items():
        if name in files:
            at = files.index(name)
            files[at : at + 2] = [name, value] if value else []
        else:
            files += [name, value]
    assert run(files) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_landmark_files_of_all_kinds_hold_the_same_points(scan, tmp_path):
    points = scan[2]
    np.savetxt(tmp_path / "a.txt", points, header="seven points")
    np.savetxt(tmp_path / "a.csv", points, delimiter=", ")
    np.save(tmp_path / "a.npy", points)
    (tmp_path / "a.json").write_text(json.dumps(points.tolist()))
    (tmp_path / "b.json").write_text(json.dumps({"landmarks": points.tolist()}))
    picked = "".join(f' <point name="{k}" active="1" x="{x}" y="{y}" z="{z}"/>\n' for k, (x, y, z) in enumerate(points))
    (tmp_path / "a.pp").write_text(f"<!DOCTYPE PickedPoints>\n<PickedPoints>\n{picked}</PickedPoints>\n")
    for name in ("a.txt", "a.csv", "a.npy", "a.json", "b.json", "a.pp"):
        assert meshes.load_landmarks(tmp_path / name) == pytest.approx(points, abs=1e-9)


@pytest.mark.parametrize("suffix", meshes.MESH_SUFFIXES)
def test_mesh_files_of_all_kinds_hold_the_same_surface(person, tmp_path, suffix):
    used, triangles = np.unique(person.triangles, return_inverse=True)
    vertices = person.vertices[used]
    trimesh.Trimesh(vertices, triangles.reshape(-1, 3), process=False).export(tmp_path / f"a{suffix}")
    found, faces = meshes.load_mesh(tmp_path / f"a{suffix}")
    assert len(found) == len(vertices)  # STL's corners are joined again
    assert len(faces) == len(person.triangles)
    assert geometry.surface_distances(vertices, Surface(found, faces)).max() < 1e-4  # float32 in most files


def test_parts_of_a_scene_are_put_in_their_places(tmp_path):
    box = trimesh.creation.box((1, 1, 1))
    scene = trimesh.Scene()
    for k in (0, 10):
        scene.add_geometry(box.copy(), transform=trimesh.transformations.translation_matrix([k, 0, 0]))
    scene.export(tmp_path / "two.glb")
    vertices, triangles = meshes.load_mesh(tmp_path / "two.glb")
    assert len(triangles) == 24
    assert vertices[:, 0].min() == pytest.approx(-0.5)
    assert vertices[:, 0].max() == pytest.approx(10.5)


def test_a_scan_of_bare_points_has_no_normals_and_is_measured(scan, person, tmp_path):
    points, _, landmarks = scan
    trimesh.PointCloud(points).export(tmp_path / "cloud.ply")
    np.save(tmp_path / "cloud.npy", landmarks)
    found, places = meshes.load_scan(tmp_path / "cloud.ply", tmp_path / "cloud.npy")
    assert found.normals is None
    scores = protocols.now(found.vertices, places, person, found.normals)
    assert scores.aligned.median < 1e-3
    with pytest.raises(InputError, match="no triangles"):
        meshes.load_mesh(tmp_path / "cloud.ply")


def test_result_folder_brings_skin_landmarks_and_expression(reconstruction, tmp_path, capsys):
    """A result on the embedded model: neutral and posed shape are told apart, eyes and teeth are left out."""
    model = load_embedded()
    zeros = np.zeros(len(model.identity), np.float32)
    weights = np.zeros(len(model.expression_names), np.float32)
    weights[model.expression_names.index("jawOpen")] = 1.0
    face = replace(reconstruction.face, identity=zeros, expression=weights)
    folder = replace(reconstruction, face=face, model_name=model.name, model=model).save(tmp_path / "result")
    found, mean = meshes.load_face(folder), meshes.mean_face()
    assert np.allclose(found.vertices, mean.vertices, atol=1e-5)
    assert np.allclose(found.landmarks, mean.landmarks, atol=1e-5)
    assert found.posed is not None
    assert np.linalg.norm(found.posed - found.vertices, axis=1).max() > 5
    assert len(found.triangles) == (model.triangle_part == 0).sum()
