"""Light, skin and self-shadow of one reconstruction on another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from raytrace_face.edit.illumination import of_result, rotated_stage, seen_from
from raytrace_face.edit.trace import surface, trace, window_camera
from raytrace_face.errors import InputError
from raytrace_face.face.mesh import vertex_normals
from raytrace_face.result import Reconstruction
from raytrace_face.types import Array


def transferred(
    target: Reconstruction, light: Reconstruction | None = None, albedo: Reconstruction | None = None
) -> Reconstruction:
    """`target` with the light of one result and the skin of another; its pictures are still the old ones.

    The light stays where the camera of its photo sees it. Skin is the maps (diffuse and specular albedo, roughness),
    texel for texel: the face model's texture space is common.

    Raises:
        InputError: the skin belongs to another face model.
    """
    out = target
    if light is not None:
        moved = seen_from(of_result(light), light, target)
        R = target.face.T_camera_head[:3, :3].T.astype(np.float64) @ light.face.T_camera_head[:3, :3]
        ambient = np.asarray(moved.ambient_sh, np.float32)
        # without any turn every bit stays as it is
        turned = np.abs(R - np.eye(3)).max() > 1e-6
        lights = rotated_stage(light.lights, R) if turned else light.lights
        out = replace(out, lights=lights, ambient_sh=ambient if turned else light.ambient_sh)
    if albedo is not None:
        same_model(target, albedo)
        out = replace(out, maps=albedo.maps, statistical_diffuse=albedo.statistical_diffuse)
    return out


def transfer_renderings(
    target: Reconstruction,
    light: Reconstruction | None = None,
    albedo: Reconstruction | None = None,
    shadow: Reconstruction | None = None,
    *,
    size: int | None = None,
    spp: int = 64,
    seed: int = 0,
) -> tuple[Array, Array]:
    """Renderings (S, S, 3) of the target's window before and after.

    A shadow is carried from point to point of the common mesh: what each point of the other head receives of its
    own lamps. It replaces the shadow of the lamps; attached shading stays the target's.

    Raises:
        InputError: skin or shadow of another face model.
    """
    camera = window_camera(target, size)
    edited = transferred(target, light, albedo)
    old = trace(target, None, camera, spp=spp, seed=seed)
    new = old if edited is target else trace(edited, None, camera, spp=spp, seed=seed)
    if shadow is None:
        return old, new
    same_model(target, shadow)
    lamps = replace(of_result(edited), ambient_sh=np.zeros((9, 3)))
    unshadowed = trace(edited, lamps, camera, spp=spp, seed=seed, shadows=False)
    g = surface(target, camera)
    theirs, own = (_cast(r, g, max(spp // 2, 4), seed) for r in (shadow, edited))
    # single pixels where lips or nostrils of a mesh cut into each other
    change = ndimage.median_filter((theirs - own).reshape(new.shape[:2]), 3)
    return old, np.maximum(new + unshadowed * change[..., None], 0)


def same_model(a: Reconstruction, b: Reconstruction) -> None:
    """Check that two results share their texture space and mesh.

    Raises:
        InputError: they belong to different face models.
    """
    if a.model_name != b.model_name:
        raise InputError(
            f"the results belong to different face models, {a.model_name!r} and {b.model_name!r}: only light can be "
            "transferred between them; reconstruct one of them again with the other's model"
        )


def _cast(result: Reconstruction, g: object, samples: int, seed: int) -> Array:
    """(P,) shadow that a result's lamps cast at the points of its mesh that a G-buffer of the same mesh names."""
    from raytrace_face.tracer.render import GBuffer
    from raytrace_face.tracer.scene import HeadScene
    from raytrace_face.tracer.visibility import cast_visibility

    assert isinstance(g, GBuffer)
    model, vertices = result.face_model(), result.vertices()
    out = np.ones(len(g.part), np.float32)
    seen = np.flatnonzero(g.part != 255)
    points = g.interpolate(vertices)[seen]
    normals = g.interpolate(vertex_normals(vertices, model.triangles, model.weld))[seen]
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    head = HeadScene(model, vertices)
    lamps = result.lights.area_lights()
    out[seen] = cast_visibility(head, points, normals, lamps, samples, seed)
    return out
