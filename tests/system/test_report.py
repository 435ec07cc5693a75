"""Rationale: the report is opened from disk by a real browser: it shows what Python computes and asks nobody.

Skips where Chromium and its driver are not installed (Debian: `apt install chromium chromium-driver`).
"""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raytrace_face.capture.colour import encode_u8, srgb_to_linear
from raytrace_face.config import Config
from raytrace_face.report import onelight, write
from raytrace_face.report.packing import root_values
from raytrace_face.result import Reconstruction

pytestmark = pytest.mark.slow
HOSTILE = "<img src=x onerror=\"document.title='broken'\">.png"
WARNING = "</script><script>document.title='broken'</script>"


@pytest.fixture(scope="module")
def demo() -> Reconstruction:
    from skimage.data import astronaut

    from raytrace_face import reconstruct

    result = reconstruct(astronaut(), Config(quality="preview"), progress=False)
    return replace(result, photo_name=HOSTILE, warnings=(WARNING,))


@pytest.fixture(scope="module")
def page(demo, tmp_path_factory) -> Path:
    return demo.save(tmp_path_factory.mktemp("report") / "face", extras=write) / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium that renders in software and writes down what it asks the network for."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("Chromium and chromedriver are not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "enable-unsafe-swiftshader"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(driver))
    found.set_script_timeout(60)
    yield found
    found.quit()


READY = """
const done = arguments[0], wait = () => document.documentElement.dataset.ready ? done(true) : setTimeout(wait, 50);
wait();
"""
SET = """
const [values, done] = arguments;
for (const [id, value] of Object.entries(values)) {
  const control = document.getElementById(id);
  control.value = value;
  control.dispatchEvent(new Event("input"));
}
requestAnimationFrame(() => requestAnimationFrame(done));
"""


@pytest.fixture(scope="module")
def opened(browser, page) -> Any:
    browser.get_log("performance")
    browser.get(page.as_uri())
    browser.execute_async_script(READY)
    return browser


def canvas(browser: Any, name: str) -> np.ndarray:
    """Codes (H, W, 3) that a canvas shows."""
    address = browser.execute_script("return document.getElementById(arguments[0]).toDataURL('image/png')", name)
    return decoded(address)[..., :3]


def decoded(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


@pytest.fixture(scope="module")
def data(page) -> dict[str, Any]:
    text = page.read_text("utf-8")
    return json.loads(text.partition('id="data">')[2].partition("</script>")[0])


def unpacked(stage: dict[str, Any]) -> onelight.OneLight:
    """The one-light images as the page holds them."""
    size, planes = stage["size"], []
    for source in stage["sources"]:
        tiles = decoded(source["tiles"])
        parts = (tiles[:size, :size], tiles[:size, size:], tiles[size:, :size], tiles[size:, size:])
        planes.append([root_values(codes, scale) for codes, scale in zip(parts, source["scale"], strict=True)])
    coverage = decoded(stage["coverage"]) / np.float32(255)
    albedo = srgb_to_linear(decoded(stage["albedo"]) / 255)
    return onelight.OneLight(coverage, albedo, *np.moveaxis(np.array(planes), 1, 0))


# --- asked for and shown ---


def test_nothing_is_asked_of_the_network(opened, page):
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert page.as_uri() in asked  # the log works
    assert [url for url in asked if not url.startswith(("data:", page.as_uri()))] == []
    assert [entry for entry in opened.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_page_is_small(page):
    assert page.stat().st_size < 10e6


def test_text_of_others_stays_text(opened):
    assert opened.title == f"{HOSTILE}: reconstruction"
    assert opened.find_element("tag name", "h1").text == HOSTILE
    assert WARNING in opened.find_element("css selector", ".warning").text
    assert opened.find_elements("css selector", "[onerror]") == []


def test_every_control_has_a_name(opened):
    nameless = opened.execute_script(
        """return [...document.querySelectorAll("input, select, button, canvas, summary")].filter((e) =>
          !(e.labels?.length && [...e.labels].some((l) => l.textContent.trim())) && !e.getAttribute("aria-label")
          && !e.textContent.trim()).map((e) => e.outerHTML)"""
    )
    assert nameless == []
    assert opened.execute_script("return document.querySelectorAll('input').length") > 52 + 2 * 20


def test_page_fits_a_phone(opened):
    try:
        size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
        opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        assert opened.execute_script("return document.documentElement.scrollWidth") <= 360
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


# --- the light stage ---


def test_stage_begins_with_the_reconstruction(opened, demo):
    """The canvas against the result's own picture: both traced, with their own noise; 35 dB in the fitted region."""
    shown = canvas(opened, "stage").reshape(256, 2, 256, 2, 3).mean(axis=(1, 3))
    fitted = demo.pictures.mask > 0.5
    error = (shown - encode_u8(demo.pictures.render))[fitted] / 255
    assert -10 * np.log10((error**2).mean()) > 35


def test_sliders_show_the_sum_that_python_computes(opened, demo, data):
    """One side light, half the ambient, 60 % of the shadows. 2 codes of 255: rounding of codes and of 32-bit sums."""
    before = canvas(opened, "stage")
    count, side = demo.lights.rig.count, 4
    values = {f"light-{k + 1}": 0 for k in range(count)}
    opened.execute_async_script(SET, values | {f"light-{side + 1}": 1.3, "surroundings-1": 0.5, "stage-shadows": 0.6})
    after = canvas(opened, "stage")
    weights = np.zeros((count + 5, 3))
    weights[side] = 1.3
    weights[count : count + 3] = 0.5 * np.eye(3)
    images = unpacked(data["stage"])
    whole = images.coverage == 1
    assert np.abs(after.astype(int) - before)[whole].mean() > 10
    assert np.abs(encode_u8(images.picture(weights, 0.6)).astype(int) - after)[whole].max() <= 2
    # and against the images before they were packed into 8 bits: the error of the packing, rms
    traced = onelight.trace(demo)
    gap = encode_u8(traced.picture(weights, 0.6))[whole].astype(float) - after[whole]
    assert np.sqrt((gap**2).mean()) < 3


def test_a_slider_moves_by_keys(opened):
    from selenium.webdriver.common.keys import Keys

    before = canvas(opened, "stage")
    opened.find_element("id", "stage-exposure").send_keys(Keys.ARROW_LEFT * 8)
    opened.execute_async_script(SET, {})
    assert canvas(opened, "stage").mean() < before.mean() - 2


def test_key_light_moves_to_the_other_side(opened, data):
    """Split light from the right, then the same light from the left: the bright half changes sides."""
    opened.execute_async_script(SET, {"stage-exposure": 0, "stage-shadows": 1})
    opened.execute_script(
        "const s = document.getElementById('stage-preset'); s.value = 'split'; s.dispatchEvent(new Event('change'))"
    )
    opened.execute_async_script(SET, {})
    assert opened.find_element("id", "preset-description").text.startswith("Key from the side")
    middle = data["stage"]["size"] // 2
    right = canvas(opened, "stage")
    opened.execute_async_script(SET, {"key-around": -90})
    left = canvas(opened, "stage")
    assert right[:, middle:].mean() > 1.5 * right[:, :middle].mean()
    assert left[:, :middle].mean() > 1.5 * left[:, middle:].mean()


def test_a_light_between_lights_keeps_its_strength(opened):
    total = """
    const { lighting } = raytraceFace.stage;
    return lighting.lights().reduce((sum, rgb) => sum + rgb[0], 0);
    """
    opened.execute_async_script(SET, {"key-around": -90})
    first = opened.execute_script(total)
    opened.execute_async_script(SET, {"key-around": -61, "key-height": 17})
    assert opened.execute_script(total) == pytest.approx(first, rel=0.03)  # shares below 0.4 % are left out


# --- the face in 3D ---


def test_viewer_loads_the_whole_model(opened, demo):
    assert f"{demo.face_model().vertex_count:,} vertices" in opened.find_element("id", "viewer-status").text
    assert opened.execute_script("return raytraceFace.viewer.vertexCount") == demo.face_model().vertex_count


def test_viewer_begins_with_the_photos_view(opened, data):
    """Its silhouette is that of the traced head: intersection over union above 0.99."""
    shown = canvas(opened, "viewer")
    size = len(shown)
    solid = np.abs(shown.astype(int) - shown[size // 2, 2]).max(axis=-1) > 4
    covered = Image.fromarray(decoded(data["stage"]["coverage"])).resize((size, size), Image.Resampling.BILINEAR)
    covered = np.asarray(covered) > 127
    assert (solid & covered).sum() / (solid | covered).sum() > 0.99


def test_expression_and_orbit_change_the_view(opened):
    from selenium.webdriver.common.keys import Keys

    first = canvas(opened, "viewer").astype(int)
    opened.execute_async_script(SET, {"expression-jawOpen": 0.8})
    jaw = canvas(opened, "viewer").astype(int)
    moved = np.abs(jaw - first).max(axis=-1) > 12
    assert moved.any()
    assert moved[len(moved) // 2 :].sum() > 0.95 * moved.sum()  # the jaw, not the brow
    opened.find_element("id", "viewer").send_keys(Keys.ARROW_LEFT * 4)
    opened.execute_async_script(SET, {})
    assert (np.abs(canvas(opened, "viewer").astype(int) - jaw).max(axis=-1) > 12).mean() > 0.05


@pytest.mark.parametrize("look", ["clay", "wireframe"])
def test_looks_differ(opened, look):
    def choose(name: str) -> np.ndarray:
        opened.execute_script("document.querySelector(`input[value=${arguments[0]}]`).click()", name)
        opened.execute_async_script(SET, {})
        return canvas(opened, "viewer").astype(int)

    skin, other = choose("textured"), choose(look)
    assert np.abs(other - skin).mean() > 3
    if look == "wireframe":
        assert np.abs(other - choose("clay")).mean() > 1


# --- without scripts ---


def test_stills_are_there_without_javascript(browser, page):
    """Boxes of the DevTools DOM: pictures have a size; what needs a script has no box at all."""
    try:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        browser.get(page.as_uri())
        root = browser.execute_cdp_cmd("DOM.getDocument", {"depth": 0})["root"]["nodeId"]

        def nodes(selector: str) -> list[int]:
            found = browser.execute_cdp_cmd("DOM.querySelectorAll", {"nodeId": root, "selector": selector})
            return found["nodeIds"]

        def width(node: int) -> float:
            return browser.execute_cdp_cmd("DOM.getBoxModel", {"nodeId": node})["model"]["width"]

        pictures = nodes(".compare img, .gallery img, .sheet img, .curve")
        assert len(pictures) >= 2 + 8 + 1 + 2
        assert min(width(node) for node in pictures) > 100
        from selenium.common.exceptions import WebDriverException

        for hidden in nodes("#stage, #viewer, #compare-slider"):
            with pytest.raises(WebDriverException, match="box model"):
                width(hidden)
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
