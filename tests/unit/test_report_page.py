"""The report's one-light images add up to the reconstruction; its page is well-formed, closed and honest."""

from __future__ import annotations

import base64
import io
import shlex
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from raytrace_face.capture.colour import encode_u8, luminance
from raytrace_face.cli import run, settings_of
from raytrace_face.config import Config
from raytrace_face.errors import InputError
from raytrace_face.report import figures, head, onelight, packing, stage
from raytrace_face.report.page import asset, policy, write


def decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


# --- one light at a time ---


@pytest.fixture(scope="module")
def images(reconstruction) -> onelight.OneLight:
    return onelight.trace(reconstruction, size=48, samples=64)


def inner(images: onelight.OneLight) -> np.ndarray:
    return images.coverage == 1


@pytest.mark.parametrize("shadows", [True, False])
def test_the_sum_of_the_lights_is_the_reconstruction(reconstruction, images, shadows):
    """Two estimators of one picture: transport matrix here, sampled lights there. Expected: they differ by their noise
    (64 and 256 rays) and by the 42 directions that stand for the sky, 2 % of the mean in all; F0 above 0.04 (this
    face's goes to 0.06) is where the transport is linear and the BSDF is not."""
    f0 = np.minimum(reconstruction.maps.specular, 0.04)
    result = replace(reconstruction, maps=replace(reconstruction.maps, specular=f0))
    ours = onelight.trace(result, size=48, samples=64).picture(onelight.fitted_weights(result), float(shadows))
    traced = result.render(spp=256, shadows=shadows)
    skin = inner(images)
    assert skin.sum() > 300
    assert np.abs(ours - traced)[skin].mean() < 0.05 * traced[skin].mean()
    assert ours[skin].mean() == pytest.approx(traced[skin].mean(), rel=0.02)


def test_shadows_only_take_light_away(images):
    skin = inner(images)
    assert np.all(images.diffuse <= images.diffuse_open * (1 + 1e-5) + 1e-7)
    assert np.all(images.gloss <= images.gloss_open * (1 + 1e-5) + 1e-7)
    assert (images.diffuse < 0.9 * images.diffuse_open)[:, skin].any()  # the eye ball shades the egg


def test_a_light_gives_a_white_surface_that_faces_it_its_strength(images, reconstruction):
    """Per unit irradiance / pi at the centre; the egg is nearer to the lights than its centre: up to 1.25.

    Under radiance 1 from everywhere a point without shadow reflects (1 - F0) (1 - F), F = F0 + (F90 - F0) / 21 the mean
    of Schlick's Fresnel over the hemisphere: 0.90 for the smallest F0 of this map, 0.03; 2 % for the noise.
    """
    lights = images.diffuse_open[: reconstruction.lights.rig.count]
    assert 0.8 < lights.max() < 1.25
    assert images.diffuse_open[-2].max() == pytest.approx(0.97 * (1 - 0.03 - (0.75 - 0.03) / 21), rel=0.02)


def test_packed_planes_keep_the_picture(images, reconstruction):
    """Codes of 8 bits and JPEG: 3 codes rms of what is shown, over random lights."""
    data = stage.stage_data(reconstruction, images)
    size, planes = data["size"], []
    for source in data["sources"]:
        tiles = decoded(source["tiles"])
        parts = [tiles[:size, :size], tiles[:size, size:], tiles[size:, :size], tiles[size:, size:]]
        planes.append([packing.root_values(codes, s) for codes, s in zip(parts, source["scale"], strict=True)])
    diffuse, gloss, *_ = np.array(planes).transpose(1, 0, 2, 3)
    back = replace(images, diffuse=diffuse, gloss=gloss)
    weights = np.random.default_rng(0).random((len(planes), 3)) * 0.2
    gap = encode_u8(back.picture(weights)).astype(float) - encode_u8(images.picture(weights))
    assert np.sqrt((gap[inner(images)] ** 2).mean()) < 3


def test_names_of_lights_say_where_they_are(reconstruction):
    lights = stage.light_names(reconstruction)
    assert len({light["name"] for light in lights}) == 20
    strongest = int(np.argmax(reconstruction.lights.irradiance().sum(1)))
    towards = reconstruction.face.T_camera_head[:3, :3] @ reconstruction.lights.directions()[strongest]
    assert ("right" in lights[strongest]["name"]) == (towards[0] > 0)
    assert ("above" in lights[strongest]["name"]) == (towards[1] > 0)


# --- figures ---


def test_command_repeats_what_was_asked_for(reconstruction):
    config = Config(quality="preview", seed=3, deterministic=True)
    config = replace(config, light=replace(config.light, shadows=False))
    words = figures.command(replace(reconstruction, config=config, photo_name="a 'b'.png"))
    options = ["--quality", "preview", "--seed", "3", "--deterministic", "--no-shadows"]
    assert shlex.split(words) == ["raytrace-face", "reconstruct", "a 'b'.png", *options]


def test_settings_without_an_option_go_into_a_file(reconstruction, tmp_path):
    """The command with its file asks for the configuration again, to the last setting."""
    config = Config(seed=5)
    light, stage2 = replace(config.light, rig="octahedron", light_penalty=0.25), replace(config.stage2, iterations=7)
    config = replace(config, light=light, stage2=stage2)
    words = shlex.split(figures.command(replace(reconstruction, config=config)))
    assert words[-4:] == ["--seed", "5", "--config", "settings.toml"]
    (tmp_path / "settings.toml").write_text(figures.config_file(config))
    assert settings_of(tmp_path / "settings.toml", {"seed": 5}) == config
    assert figures.config_file(Config()) == ""


def test_ramp_hits_its_colours_and_is_linear_between():
    assert figures.ramp(np.array([0.0, 0.5, 1.0]), figures.GREY).tolist() == [[0] * 3, [128] * 3, [255] * 3]


def test_observed_share_is_of_area(reconstruction):
    maps = reconstruction.maps
    for value in (0.0, 1.0):
        confidence = np.full_like(maps.confidence, value)
        shares = figures.observed_share(replace(reconstruction, maps=replace(maps, confidence=confidence)))
        assert shares == pytest.approx((value, value))
    left = np.zeros_like(maps.confidence)
    left[:, : left.shape[1] // 2] = 1  # u < 1/2 is one half of the egg
    share, _ = figures.observed_share(replace(reconstruction, maps=replace(maps, confidence=left)))
    assert share == pytest.approx(0.5, abs=0.03)  # one of 32 columns of vertices


def test_difference_is_blue_where_the_render_is_too_dark(reconstruction):
    p = reconstruction.pictures
    photo = np.full_like(p.photo, 0.5)
    dark = replace(reconstruction, pictures=replace(p, photo=photo, render=0.5 * photo, mask=np.ones_like(p.mask)))
    codes = decoded(figures.stills(dark)[0].uri).astype(int)
    assert (codes[..., 2] > codes[..., 0]).all()
    assert luminance(codes.astype(float)).std() < 2


def test_missing_figures_are_left_out(reconstruction):
    names = [figure.name for figure in figures.figures(replace(reconstruction, metrics={}, timings={}))]
    assert "Likeness" not in names
    assert "Main light" in names


def test_curves_of_one_step_or_negative_loss(reconstruction):
    history = {"a": [1.0], "b": [-1.0, -2.0, float("nan")]}
    (curve,) = figures.curves(replace(reconstruction, history=history))
    assert curve.points == "0.0,10.0 300.0,110.0"


def test_names_of_expressions_are_words():
    assert [head.spoken(name) for name in ("jawOpen", "eyeLookInLeft")] == ["Jaw open", "Eye look in left"]


# --- the page ---


class Tags(HTMLParser):
    """Open and close tags in order; complains about wrong nesting and about ids that are there twice."""

    VOID = frozenset(("meta", "link", "img", "input", "br"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> in the wrong place"

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data


HOSTILE = "<img src=x onerror=alert(1)>.png"


@pytest.fixture(scope="module")
def report(reconstruction, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("report")
    hostile = replace(reconstruction, photo_name=HOSTILE, warnings=("</script><script>alert(2)</script>",))
    write(hostile, folder)
    assert [p.name for p in folder.iterdir()] == ["report.html"]
    return (folder / "report.html").read_text("utf-8")


def test_page_is_well_formed_and_small(report):
    tags = Tags()
    tags.feed(report)
    tags.close()
    assert tags.open == []
    ids = [a["id"] for _, a in tags.seen if "id" in a]
    assert len(ids) == len(set(ids))
    assert len(report) < 10e6


def test_text_of_others_is_text(report):
    tags = Tags()
    tags.feed(report)
    assert HOSTILE in tags.text
    assert "</script><script>alert(2)</script>" in tags.text
    assert not [a for _, a in tags.seen for name in a if name.startswith("on")]
    assert [tag for tag, _ in tags.seen].count("script") == 2  # the data and our own


def test_page_names_no_address_but_embedded_ones(report):
    tags = Tags()
    tags.feed(report)
    addresses = [a[name] or "" for _, a in tags.seen for name in ("src", "href", "action", "srcset") if name in a]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "url(" not in asset("report.css")


def test_every_still_control_has_a_label(report):
    tags = Tags()
    tags.feed(report)
    labelled = {a["for"] for tag, a in tags.seen if tag == "label" and "for" in a}
    for tag, a in tags.seen:
        if tag in ("input", "select") and a.get("type") not in ("checkbox", "radio"):
            assert a.get("aria-label") or a.get("id") in labelled, a
        if tag in ("img", "canvas"):
            assert a.get("alt") or a.get("aria-label"), tag


def test_policy_allows_our_own_script_alone(report):
    tags = Tags()
    tags.feed(report)
    (found,) = (a["content"] for tag, a in tags.seen if a.get("http-equiv") == "Content-Security-Policy")
    style = report.partition("<style>")[2].partition("</style>")[0]
    script = report.rpartition("<script>")[2].partition("</script>")[0]
    assert found == policy(style, script)
    assert found.startswith("default-src 'none'")


def test_same_result_same_page(report, reconstruction, tmp_path):
    hostile = replace(reconstruction, photo_name=HOSTILE, warnings=("</script><script>alert(2)</script>",))
    write(hostile, tmp_path)
    assert (tmp_path / "report.html").read_text("utf-8") == report  # the fixture is deterministic


def test_an_interrupted_report_keeps_the_old_one(reconstruction, tmp_path, monkeypatch):
    (tmp_path / "report.html").write_text("old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("raytrace_face.report.page.viewer_data", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(reconstruction, tmp_path)
    assert (tmp_path / "report.html").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_report_of_no_result_is_one_line(tmp_path, capsys):
    assert run(["report", str(tmp_path / "nothing")]) == 2
    said = capsys.readouterr().err
    assert "not a result folder" in said
    assert said.count("\n") == 1


def test_extras_that_fail_leave_no_folder(reconstruction, tmp_path):
    def failing(*_: object) -> None:
        raise InputError("no")

    with pytest.raises(InputError):
        reconstruction.save(tmp_path / "face", extras=failing)
    assert list(tmp_path.iterdir()) == []
