"""What a reconstruction is, and its folder on disk (docs/file-format.md)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightstage.rig import AreaLights, Rig, StageLights
from raytrace_face.config import Config
from raytrace_face.errors import InputError, RaytraceFaceError
from raytrace_face.output import new_folder
from raytrace_face.pictures import Pictures, Untraced
from raytrace_face.result_io import group, installed_versions, read_arrays, read_description, write
from raytrace_face.types import Array, Camera, FaceParams, Glimpse, Maps, Window

if TYPE_CHECKING:
    from raytrace_face.face.model import FaceModel

LANES = 1 << 22
"""Rays traced at a time by `Reconstruction.render`: bounds its memory to about 1 GB."""


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
    pictures: Pictures = field(repr=False)
    """`Untraced` ones are traced when they are first used."""
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

    def __post_init__(self) -> None:
        if isinstance(self.pictures, Untraced):
            self.pictures.belong(self)

    @property
    def traced(self) -> bool:
        """Whether the pictures are there already."""
        return not isinstance(self.pictures, Untraced) or self.pictures.traced

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

        A result whose pictures are not traced is two files, from which every command goes on.

        Args:
            folder: where to.
            force: replace an existing result.
            extras: writes more files, called with the result and the folder before it gets its name; such as
                `raytrace_face.report.write`.

        Raises:
            OutputError: the folder exists (and `force` is not set), or cannot be written.
        """
        result = self if self.versions else replace(self, versions=installed_versions())
        with new_folder(Path(folder), force) as temporary:
            write(temporary, result.describe(), result.arrays())
            if result.traced:
                from raytrace_face import export, export_scene, panel

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
            "format_version": 1 if self.traced else 2,
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

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array by dotted name: the content of `arrays.safetensors`."""
        found: dict[str, np.ndarray] = {}

        def visit(prefix: str, node: Any) -> None:
            for f in fields(node):
                value = getattr(node, f.name)
                if isinstance(value, np.ndarray):
                    found[prefix + f.name] = value
                elif isinstance(value, Untraced) and not value.traced:
                    visit("glimpse.", value.glimpse)
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
        description = read_description(path)
        arrays = read_arrays(path, description)
        try:
            return _assemble(description, arrays, model)
        except RaytraceFaceError as error:
            raise InputError(f"result {str(path)!r} is damaged ({error}): reconstruct it again") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"result {str(path)!r} is damaged ({error!r}): reconstruct it again") from error


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


def _assemble(d: dict[str, Any], arrays: dict[str, np.ndarray], model: FaceModel | None) -> Reconstruction:
    stage = d["light_stage"]
    rig = Rig(stage["rig"], **group(arrays, "lights.rig."))
    camera = {**d["camera"], "principal_px": tuple(d["camera"]["principal_px"])}
    glimpse = group(arrays, "glimpse.")
    return Reconstruction(
        model_name=d["model"],
        model_sha256=d.get("model_sha256", ""),
        camera=Camera(**camera),
        window=Window(**d["crop"]),
        face=FaceParams(**group(arrays, "face.")),
        lights=StageLights(rig, **group(arrays, "lights."), radius_mm=stage["radius_mm"]),
        maps=Maps(**group(arrays, "maps.")),
        pictures=Untraced(Glimpse(**glimpse)) if glimpse else Pictures(**group(arrays, "pictures.")),
        **group(arrays, ""),
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
