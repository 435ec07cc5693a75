"""Basel's files and AlbedoMM become mm, standard deviations, linear albedo and outward triangles, or are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import loadmat, savemat

from raytrace_face.capture.colour import srgb_to_linear
from raytrace_face.errors import ModelError
from raytrace_face.face.formats import bfm
from raytrace_face.face.formats.check import outward
from raytrace_face.face.formats.raw import RawModel
from raytrace_face.face.mesh import triangle_normals
from tests.formats.layouts import BUILT_2019, Head, head, write_albedomm, write_bfm_2009, write_bfm_2017

MM = 2e-4
"""float32 micrometres of 200 mm are rounded to a hundredth of a micrometre; bases of unit columns to 1e-7 of a mode."""


@pytest.fixture(scope="module")
def face() -> Head:
    return head()


@pytest.fixture(scope="module")
def specular(face) -> tuple[np.ndarray, np.ndarray]:
    mean = np.full_like(face.mean, 0.2) + 0.1 * np.cos(face.mean / 50)
    return mean, 0.02 * np.stack([np.sin(face.mean / 30), np.cos(face.mean / 20)])


@pytest.fixture(params=["2009", "2009 as 7.3", "2017"])
def written(request, face, tmp_path) -> Path:
    path = tmp_path / "model"
    if request.param == "2017":
        write_bfm_2017(path, face)
    else:
        write_bfm_2009(path, face, hdf5="7.3" in request.param)
    return path


@pytest.fixture
def model_2017(face, tmp_path) -> Path:
    path = tmp_path / "model2017-1_face12_nomouth.h5"
    write_bfm_2017(path, face)
    return path


def same_triangles(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two lists hold the same triangles with the same winding, whatever corner comes first."""

    def sorted_rows(rows: np.ndarray) -> np.ndarray:
        turned = np.stack([np.roll(row, -int(np.argmin(row))) for row in rows])
        return turned[np.lexsort(turned.T)]

    return np.array_equal(sorted_rows(one), sorted_rows(other))


# what is read


def test_modes_are_mm_per_standard_deviation_in_every_version(written, face):
    """EV of 2009 are deviations, pcaVariance of 2017 variances: a mixture is wrong by the square."""
    raw = bfm.read(written)
    assert raw.identity.shape == face.modes.shape
    order = np.argsort(-np.linalg.norm(face.modes.reshape(len(face.modes), -1), axis=1), kind="stable")
    np.testing.assert_allclose(raw.identity, face.modes[order], atol=MM)


def test_mean_is_in_mm_and_holds_the_mean_expression(written, face):
    raw = bfm.read(written)
    expected = face.mean + face.expression_mean if raw.format == "BFM 2017" else face.mean
    np.testing.assert_allclose(raw.mean, expected, atol=MM)


def test_triangles_are_counter_clockwise_from_outside(written, face):
    raw = bfm.read(written)
    assert same_triangles(raw.triangles, face.triangles)
    middle = raw.mean.mean(0)
    assert ((raw.mean[raw.triangles].mean(1) - middle) * triangle_normals(raw.mean, raw.triangles)).sum() > 0


def test_expression_modes_are_those_of_the_file(model_2017, face):
    raw = bfm.read(model_2017)
    found = np.linalg.norm(raw.expression_modes.reshape(len(raw.expression_modes), -1), axis=1)
    written = np.linalg.norm(face.expression_modes.reshape(len(found), -1), axis=1)
    np.testing.assert_allclose(found, np.sort(written)[::-1], rtol=1e-5)
    assert raw.expression_names == ()
    assert len(raw.expression) == 0


def test_winding_does_not_depend_on_the_file(face):
    for triangles in (face.triangles, face.triangles[:, ::-1]):
        assert same_triangles(outward(face.mean, triangles), face.triangles)


def test_colours_become_linear_with_their_slope(written, face):
    raw = bfm.read(written)
    assert raw.albedo is not None
    np.testing.assert_allclose(raw.albedo.diffuse, srgb_to_linear(face.colour), atol=1e-5)
    step = 1e-3
    order = np.argsort(-np.linalg.norm(face.colour_modes.reshape(2, -1), axis=1))
    for read, mode in zip(raw.albedo.diffuse_modes, face.colour_modes[order], strict=True):
        up, down = (srgb_to_linear(face.colour + sign * step * mode).astype(np.float64) for sign in (1, -1))
        np.testing.assert_allclose(read, (up - down) / (2 * step), atol=2e-3)  # float32 over a step of 1e-3
    assert raw.albedo.specular is None
    assert any("light of the scanner" in limit for limit in raw.limits)


def test_version_is_told_by_vertices_and_else_by_date(face, tmp_path):
    path = tmp_path / "x.h5"
    write_bfm_2017(path, face, BUILT_2019)
    raw = bfm.read(path)
    assert raw.format == "BFM 2019"
    assert f"{len(face.mean)} vertices" in raw.version
    write_bfm_2017(path, sphere(27_657))
    raw = bfm.read(path)
    assert (raw.format, raw.version) == ("BFM 2019", "face12")


def sphere(count: int) -> Head:
    """An egg of so many vertices with one mode: as large as a published file, and quick to write."""
    rows = next(n for n in range(int(np.sqrt(count)), 0, -1) if count % n == 0)
    columns = count // rows
    v, u = np.meshgrid(np.linspace(0.02, 0.98, rows), np.linspace(0.1, 0.9, columns), indexing="ij")
    latitude, longitude = np.pi * (v - 0.5), 2 * np.pi * (u - 0.5)
    unit = np.stack([np.cos(latitude) * np.sin(longitude), np.sin(latitude), np.cos(latitude) * np.cos(longitude)], -1)
    mean = unit.reshape(-1, 3) * [75.0, 100.0, 80.0]
    a = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    b, c, d = a + 1, a + columns, a + columns + 1
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)])
    one = mean[None] * 0.05
    return Head(mean, one, triangles, 0 * mean, one[:, :, ::-1], np.full_like(mean, 0.5), one / 100)


def test_only_the_strongest_modes_are_kept_and_this_is_said(written, face):
    raw = bfm.read(written, modes=3)
    energy = np.sort((face.modes.reshape(len(face.modes), -1) ** 2).sum(1))[::-1]
    assert len(raw.identity) == 3
    np.testing.assert_allclose((raw.identity.reshape(3, -1) ** 2).sum(1), energy[:3], rtol=1e-4)
    share = 100 * energy[:3].sum() / energy.sum()
    assert f"3 of 6 identity modes are kept ({share:.1f} % of the variance)" in raw.limits


def test_a_file_without_expressions_has_none(model_2017, face):
    with h5py.File(model_2017, "r+") as file:
        del file["expression"]
    raw = bfm.read(model_2017)
    np.testing.assert_allclose(raw.mean, face.mean, atol=MM)
    assert raw.expression_modes.shape == (0, len(face.mean), 3)
    assert "no expressions of its own" in raw.limits


# AlbedoMM


def test_albedomm_takes_the_place_of_the_colours(model_2017, face, specular, tmp_path):
    albedo = tmp_path / "albedo.h5"
    write_albedomm(albedo, face, *specular)
    raw = bfm.read(model_2017, albedo)
    assert raw.albedo is not None
    np.testing.assert_allclose(raw.albedo.diffuse, face.colour, atol=1e-6)  # linear already
    np.testing.assert_allclose(raw.albedo.specular, specular[0], atol=1e-6)
    order = np.argsort(-np.linalg.norm(specular[1].reshape(2, -1), axis=1))
    np.testing.assert_allclose(raw.albedo.specular_modes, specular[1][order], atol=1e-6)
    assert "academic research only" in raw.licence
    assert "Smith et al." in raw.citation
    assert set(raw.provenance) == {model_2017.name, "albedo.h5"}
    assert not any("light of the scanner" in limit for limit in raw.limits)


def test_albedomm_of_another_crop_is_refused(model_2017, face, tmp_path):
    other = sphere(6_000)
    albedo = tmp_path / "albedoModel2020_bfm_albedoPart.h5"
    write_albedomm(albedo, other, other.colour, other.colour_modes)
    says = rf"albedoPart\.h5' has 6000 vertices, '{model_2017.name}' {len(face.mean)}: give .* same crop"
    with pytest.raises(ModelError, match=says):
        bfm.read(model_2017, albedo)


def test_albedomm_must_be_whole(model_2017, face, specular, tmp_path):
    albedo = tmp_path / "albedo.h5"
    write_albedomm(albedo, face, *specular)
    with h5py.File(albedo, "r+") as file:
        del file["specularAlbedo/model/pcaBasis"]
    with pytest.raises(ModelError, match=r"albedo\.h5' lacks 'specularAlbedo/model/pcaBasis'"):
        bfm.read(model_2017, albedo)


# what is refused


def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[h5py.File], None]:
    def apply(file: h5py.File) -> None:
        value = change(file[name][()])
        del file[name]
        file[name] = value

    return apply


def with_nan(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    values[tuple(np.array(values.shape) // 2)] = np.nan
    return values


def collapsed(cells: np.ndarray) -> np.ndarray:
    cells = cells.copy()
    cells[1, ::10] = cells[0, ::10]
    return cells


WRONG: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "NaN": (changed("shape/model/pcaBasis", with_nan), "shape basis holds values that are not finite"),
    "negative variance": (changed("shape/model/pcaVariance", lambda v: -v), "shape has a negative variance"),
    "short mean": (changed("shape/model/mean", lambda v: v[:-3]), "shape basis has shape"),
    "broken triple": (changed("color/model/mean", lambda v: v[:-1]), "not three a vertex"),
    "deviations missing": (changed("expression/model/pcaVariance", lambda v: v[:-1]), "expression basis has shape"),
    "metres": (changed("shape/model/mean", lambda v: v / 1000), "which no head is .* not in the units of BFM"),
    "scaled columns": (changed("shape/model/pcaBasis", lambda v: v * 40), "layout says 1: it is of another version"),
    "no triangles": (changed("shape/representer/cells", lambda c: c[:, :0]), "has no triangles"),
    "transposed triangles": (changed("shape/representer/cells", lambda c: c.T), r"cells has shape .*\(3, any\)"),
    "1-based triangles": (changed("shape/representer/cells", lambda c: c + 1), "points at vertex"),
    "other reference": (changed("shape/representer/points", lambda p: p[:, :-1]), "points has shape"),
    "doubled triangles": (changed("shape/representer/cells", lambda c: np.tile(c, 2)), "more than two triangles"),
    "flat triangles": (changed("shape/representer/cells", collapsed), "have no area"),
    "no triangle list": (lambda file: file.__delitem__("shape/representer/cells"), "lacks 'shape/representer/cells'"),
    "text for numbers": (changed("shape/model/mean", lambda v: v.astype("S9")), "not numbers"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_file_is_refused_by_name(model_2017, case):
    change, says = WRONG[case]
    with h5py.File(model_2017, "r+") as file:
        change(file)
    with pytest.raises(ModelError, match=rf"{model_2017.name}.*({says})"):
        bfm.read(model_2017)


def test_mirrored_export_is_refused(model_2017):
    with h5py.File(model_2017, "r+") as file:
        marks = json.loads(bytes(file["metadata/landmarks/json"][()]))
        for mark in marks:
            mark["coordinates"][0] *= -1
        del file["metadata/landmarks/json"]
        file["metadata/landmarks/json"] = np.bytes_(json.dumps(marks).encode())
    with pytest.raises(ModelError, match="left landmarks do not lie at larger x"):
        bfm.read(model_2017)


@pytest.mark.parametrize("text", [None, "", "{", "[1, 2]", '{"center.nose.tip": [0, 0, 0]}'])
def test_landmarks_are_not_needed(model_2017, text):
    with h5py.File(model_2017, "r+") as file:
        del file["metadata"]
        if text is not None:
            file["metadata/landmarks/json"] = text  # a string of variable length, as h5py writes it
    assert bfm.read(model_2017).format == "BFM 2017"


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_file_that_is_cut_off_is_refused(written, share):
    data = written.read_bytes()
    written.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelError, match=r"'model' .*(cut off or damaged|lacks)"):
        bfm.read(written)


def test_matlab_file_in_mm_or_without_texture_is_refused(face, tmp_path):
    path = tmp_path / "01_MorphableModel.mat"
    write_bfm_2009(path, replace(face, mean=face.mean / 1000))
    with pytest.raises(ModelError, match="no head is"):
        bfm.read(path)
    write_bfm_2009(path, face)
    values = {k: v for k, v in loadmat(path).items() if not k.startswith(("__", "tex"))}
    savemat(path, values)
    with pytest.raises(ModelError, match=r"01_MorphableModel\.mat' lacks 'texMU'"):
        bfm.read(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"nothing\.h5' does not exist"):
        bfm.read(tmp_path / "nothing.h5")


def test_reading_gives_what_a_raw_model_promises(written):
    raw: RawModel = bfm.read(written)
    assert raw.mean.dtype == raw.identity.dtype == np.float32
    assert raw.triangles.dtype == np.int32
    assert raw.uv is None
    assert raw.triangle_part is None
    assert len(raw.provenance["model"]) == 64
    assert "no eyeballs" in " ".join(raw.limits)
