"""What a reconstruction is, and its folder on disk (docs/file-format.md)."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightstage.rig import AreaLights, Rig, StageLights
from raytrace_face.config import Config
from raytrace_face.errors import InputError, RaytraceFaceError
from raytrace_face.output import new_folder, sha256, write_json
from raytrace_face.types import Array, Camera, FaceParams, Maps, Window

if TYPE_CHECKING:
    from raytrace_face.face.model import FaceModel

FORMAT_VERSION = 1
"""Version of the folder. A reader refuses a larger one."""
LANES = 1 << 22
"""Rays traced at a time by `Reconstruction.render`: bounds its memory to about 1 GB."""
REPORTED_PACKAGES = ("raytrace-face", "mitsuba", "drjit", "numpy", "scipy", "torch", "ai-edge-litert")


@dataclass(frozen=True)
class Pictures:
    """Images on the fit window, (S, S, 3) or (S, S), float32, linear; rows from the top."""

    photo: Array
    """(S, S, 3) the photo on the window."""
    render: Array
    """(S, S, 3) re-rendering of the reconstruction; black outside the head."""
    stage1: Array
    """(S, S, 3) re-rendering after stage 1 (statistical albedo)."""
    shading: Array
    """(S, S, 3) diffuse irradiance / pi with shadows: what white skin would look like."""
    shadow: Array
    """(S, S) total self-shadow: shaded luminance with visibility over without, 1 = no shadow."""
    light_shadow: Array
    """(L, S, S) visibility of each light of the stage, 1 = visible; lights that are off are all 1."""
    normals: Array
    """(S, S, 3) unit shading normals in the camera frame, 0 outside the head."""
    diffuse: Array
    """(S, S, 3) diffuse albedo seen in the window."""
    specular: Array
    """(S, S) F0 seen in the window."""
    roughness: Array
    """(S, S) roughness seen in the window."""
    confidence: Array
    """(S, S) confidence of the reflectance seen in the window."""
    mask: Array
    """(S, S) weight of the pixel in the fit, [0, 1]."""


@dataclass(frozen=True)
class Reconstruction:
    """A face out of a photo: geometry, reflectance, camera, light and self-shadows."""

    model_name: str
    """Name of the face model the coefficients belong to."""
    camera: Camera
    """Camera of the whole photo."""
    window: Window
    """Region of the photo that was fitted."""
    face: FaceParams
    lights: StageLights
    """The light stage, head frame."""
    ambient_sh: Array
    """(9, 3) radiance of the surroundings, order-2 SH, head frame."""
    dominant_light: Array
    """(3,) unit vector to the light that gives the face most, camera frame."""
    maps: Maps
    statistical_diffuse: Array
    """(T, T, 3) diffuse albedo of stage 1, under the statistical prior."""
    pictures: Pictures
    landmarks_px: Array
    """(478, 2) detected landmarks in photo pixels."""
    photo_name: str
    photo_sha256: str
    config: Config
    timings: dict[str, float]
    """Seconds by phase."""
    metrics: dict[str, float]
    """Figures of the fit: psnr_stage1_db, psnr_db, landmark_rms_px, ..."""
    warnings: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)
    """Loss curves by stage."""
    model_sha256: str = ""
    """Digest of a brought face model's arrays, by which a stored result finds it again; "" for the embedded one."""
    model: FaceModel | None = field(default=None, repr=False, compare=False)
    """The face model itself; None = the embedded one, which must then bear `model_name`, or one of the library. Not
    saved."""

    def dominant_light_head(self) -> Array:
        """(3,) unit vector to the main light, head frame."""
        return self.face.T_camera_head[:3, :3].T @ self.dominant_light

    def dominant_light_angles(self) -> tuple[float, float]:
        """Azimuth (positive = from the image's right) and elevation of the main light in degrees, camera frame."""
        x, y, z = (float(v) for v in self.dominant_light)
        return float(np.degrees(np.arctan2(x, z))), float(np.degrees(np.arcsin(np.clip(y, -1, 1))))

    def face_model(self) -> FaceModel:
        """The face model that the coefficients belong to.

        Raises:
            InputError: it is neither given nor embedded nor in the library.
        """
        if self.model is not None:
            return self.model
        if self.model_sha256:
            from raytrace_face.face.library import of_result

            return of_result(self.model_name, self.model_sha256, self.config.face_model)
        from raytrace_face.face.store import load_embedded

        model = load_embedded()
        if model.name != self.model_name:
            raise InputError(
                f"the result belongs to the face model {self.model_name!r}, but the embedded one is {model.name!r}: "
                "pass it, Reconstruction.load(folder, model=...)"
            )
        return model

    def vertices(self, expression: bool = True) -> Array:
        """Vertices (V, 3) of the face in mm, head frame; without expression the neutral face."""
        weights = self.face.expression if expression else np.zeros_like(self.face.expression)
        return self.face_model().vertices(self.face.identity, weights)

    def render(
        self,
        camera: Camera | None = None,
        lights: StageLights | AreaLights | None = None,
        ambient_sh: Array | None = None,
        *,
        spp: int = 64,
        seed: int = 0,
        shadows: bool | None = None,
    ) -> Array:
        """Trace the face: (H, W, 3) linear Rec. 709, black where the head is not.

        Args:
            camera: default the photo's camera on the fitted window, `camera.windowed(window)`.
            lights: a light stage or plain area lights, head frame, mm; default those of the reconstruction.
            ambient_sh: (9, 3), head frame; default that of the reconstruction. Zeros switch the surroundings off.
            spp: rays a pixel.
            seed: same seed, same noise (to the last bit only with `config.deterministic`).
            shadows: trace visibility; default as the reconstruction was made.
        """
        if spp < 1:
            raise InputError(f"spp is {spp}: it must be at least 1")
        from raytrace_face.backend import start

        start(self.config.device, self.config.deterministic)
        import torch

        from raytrace_face.tracer.render import RenderInputs, View, all_pixels, render
        from raytrace_face.tracer.scene import HeadScene

        view_camera = self.camera.windowed(self.window) if camera is None else camera
        stage = self.lights if lights is None else lights
        area = stage.area_lights() if isinstance(stage, StageLights) else stage
        ambient = self.ambient_sh if ambient_sh is None else ambient_sh
        vertices = self.vertices()
        inputs = RenderInputs.of(
            vertices, self.face.T_camera_head, view_camera.focal_px, self.maps.diffuse, self.maps.specular,
            self.maps.roughness, area.corners, area.radiance, ambient,
        )  # fmt: skip
        visible = self.config.light.shadows if shadows is None else shadows
        head = HeadScene(self.face_model(), vertices)
        pixels = all_pixels(view_camera)
        picture = np.empty((len(pixels), 3), np.float32)
        step = max(LANES // spp, 1)
        with torch.no_grad():
            for number, begin in enumerate(range(0, len(pixels), step)):
                part = slice(begin, begin + step)
                view = View(view_camera, pixels[part], spp, visible)
                picture[part] = render(head, view, inputs, seed + 7919 * number).numpy()
        return picture.reshape(view_camera.height, view_camera.width, 3)

    def depth(self, camera: Camera | None = None) -> Array:
        """Trace the depth of the face: (H, W) mm along the optical axis, 0 where the head is not.

        Args:
            camera: default the photo's camera on the fitted window, `camera.windowed(window)`.
        """
        from raytrace_face.backend import start

        start(self.config.device, self.config.deterministic)
        from raytrace_face.tracer.depth import depth_map
        from raytrace_face.tracer.scene import HeadScene

        view_camera = self.camera.windowed(self.window) if camera is None else camera
        return depth_map(HeadScene(self.face_model(), self.vertices()), view_camera, self.face.T_camera_head)

    def save(
        self,
        folder: str | Path,
        force: bool = False,
        extras: Callable[[Reconstruction, Path], None] | None = None,
    ) -> Path:
        """Write the result folder (docs/file-format.md) in one piece: it appears complete or not at all.

        Args:
            folder: where to.
            force: replace an existing result.
            extras: writes more files, called with the result and the folder before it gets its name; such as
                `raytrace_face.report.write`.

        Raises:
            OutputError: the folder exists (and `force` is not set), or cannot be written.
        """
        from raytrace_face import export, export_scene, panel

        result = self if self.versions else replace(self, versions=installed_versions())
        with new_folder(Path(folder), force) as temporary:
            arrays = result._arrays()
            _write_arrays(temporary / "arrays.safetensors", arrays)
            description = result.describe()
            description["arrays_sha256"] = sha256(temporary / "arrays.safetensors")
            write_json(temporary / "result.json", description)
            export.write_assets(result, temporary)
            export_scene.write_scene(result, temporary / "scene")
            panel.draw(result).save(temporary / "panel.png")
            if extras is not None:
                extras(result, temporary)
        return Path(folder)

    def describe(self) -> dict[str, Any]:
        """Everything but the arrays and pictures, as JSON-ready values: the content of `result.json`."""
        azimuth, elevation = self.dominant_light_angles()
        camera = {f.name: getattr(self.camera, f.name) for f in fields(Camera)}
        return {
            "format_version": FORMAT_VERSION,
            "photo": {"name": self.photo_name, "sha256": self.photo_sha256},
            "model": self.model_name,
            "model_sha256": self._model_sha256(),
            "camera": {**camera, "principal_px": list(self.camera.principal_px)},
            "crop": {f.name: getattr(self.window, f.name) for f in fields(Window)},
            "T_camera_head": self.face.T_camera_head.tolist(),
            "dominant_light": {
                "direction_camera": self.dominant_light.tolist(),
                "direction_head": self.dominant_light_head().tolist(),
                "azimuth_deg": azimuth,
                "elevation_deg": elevation,
            },
            "light_stage": {"rig": self.lights.rig.name, "radius_mm": self.lights.radius_mm},
            "lights": _describe_lights(self.lights),
            "ambient_sh": self.ambient_sh.tolist(),
            "identity": self.face.identity.tolist(),
            "expression": dict(zip(self.face_model().expression_names, self.face.expression.tolist(), strict=True)),
            "landmarks_px": self.landmarks_px.tolist(),
            "metrics": dict(self.metrics),
            "timings": dict(self.timings),
            "warnings": list(self.warnings),
            "seed": self.config.seed,
            "config": self.config.to_dict(),
            "versions": dict(self.versions),
            "history": {name: list(curve) for name, curve in self.history.items()},
        }

    def _model_sha256(self) -> str:
        if self.model is None:
            return self.model_sha256
        from raytrace_face.face.archive import fingerprint
        from raytrace_face.face.store import load_embedded

        embedded, sha256 = load_embedded(), fingerprint(self.model)
        own = self.model.name == embedded.name and sha256 == fingerprint(embedded)
        return "" if own else sha256

    def _arrays(self) -> dict[str, np.ndarray]:
        """Every array by dotted name."""
        found: dict[str, np.ndarray] = {}

        def visit(prefix: str, node: Any) -> None:
            for f in fields(node):
                value = getattr(node, f.name)
                if isinstance(value, np.ndarray):
                    found[prefix + f.name] = value
                elif isinstance(value, (FaceParams, StageLights, Rig, Maps, Pictures)):
                    visit(f"{prefix}{f.name}.", value)

        visit("", self)
        return found

    @classmethod
    def load(cls, folder: str | Path, model: FaceModel | None = None) -> Reconstruction:
        """Read a result folder; every array comes back bit for bit.

        Args:
            model: the face model, when it is neither the embedded one nor in the library.

        Raises:
            InputError: no result folder, damaged, or written by a newer version.
        """
        path = Path(folder)
        description = _read_json(path)
        arrays = _read_arrays(path, description)
        try:
            return _assemble(description, arrays, model)
        except RaytraceFaceError as error:
            raise InputError(f"result {str(path)!r} is damaged ({error}): reconstruct it again") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"result {str(path)!r} is damaged ({error!r}): reconstruct it again") from error


def installed_versions() -> dict[str, str]:
    """Versions of this package, of what it computes with, and of Python."""
    import platform

    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in REPORTED_PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _describe_lights(lights: StageLights) -> list[dict[str, Any]]:
    corners, radiance = lights.corners_mm(), lights.radiance()
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    return [
        {
            "centre_mm": corners[k].mean(axis=0).tolist(),
            "corners_mm": corners[k].tolist(),
            "normal": normals[k].tolist(),
            "radiance": radiance[k].tolist(),
            "d": float(lights.distance[k]),
            "a": float(lights.area[k]),
            "p": lights.centre[k].tolist(),
            "i": lights.intensity[k].tolist(),
        }
        for k in range(lights.rig.count)
    ]


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, path)


def _read_json(folder: Path) -> dict[str, Any]:
    path = folder / "result.json"
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{str(folder)!r} is not a result folder (it has no result.json): check the path") from None
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read ({error.strerror}): check the path") from error
    except ValueError as error:
        raise InputError(f"{str(path)!r} is damaged ({error}): reconstruct it again") from error
    version = description.get("format_version") if isinstance(description, dict) else None
    if type(version) is not int:
        raise InputError(f"{str(path)!r} has no format_version, so it is not a result: check the path")
    if version > FORMAT_VERSION:
        raise InputError(f"{str(path)!r} has format {version}, newer than {FORMAT_VERSION}: update raytrace-face")
    return description


def _read_arrays(folder: Path, description: dict[str, Any]) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = folder / "arrays.safetensors"
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != description.get("arrays_sha256"):
            raise InputError(f"{str(path)!r} does not belong to result.json (other sha256): reconstruct it again")
        arrays = load(data)
        bad = [name for name, values in arrays.items() if not np.isfinite(values).all()]
        if bad:
            raise InputError(f"{str(path)!r} holds NaN or infinite values in {bad[0]}: reconstruct it again")
        return arrays
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read ({error.strerror}): reconstruct it again") from error
    except SafetensorError as error:
        raise InputError(f"{str(path)!r} is damaged ({error}): reconstruct it again") from error


def _group(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays directly under a prefix."""
    inner = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
    return {name: value for name, value in inner.items() if "." not in name}


def _assemble(d: dict[str, Any], arrays: dict[str, np.ndarray], model: FaceModel | None) -> Reconstruction:
    stage = d["light_stage"]
    rig = Rig(stage["rig"], **_group(arrays, "lights.rig."))
    camera = {**d["camera"], "principal_px": tuple(d["camera"]["principal_px"])}
    return Reconstruction(
        model_name=d["model"],
        model_sha256=d.get("model_sha256", ""),
        camera=Camera(**camera),
        window=Window(**d["crop"]),
        face=FaceParams(**_group(arrays, "face.")),
        lights=StageLights(rig, **_group(arrays, "lights."), radius_mm=stage["radius_mm"]),
        maps=Maps(**_group(arrays, "maps.")),
        pictures=Pictures(**_group(arrays, "pictures.")),
        **_group(arrays, ""),
        photo_name=d["photo"]["name"],
        photo_sha256=d["photo"]["sha256"],
        config=Config.from_dict(d["config"]),
        timings=d["timings"],
        metrics={name: math.nan if value is None else value for name, value in d["metrics"].items()},
        warnings=tuple(d["warnings"]),
        versions=d["versions"],
        history=d["history"],
        model=model,
    )
