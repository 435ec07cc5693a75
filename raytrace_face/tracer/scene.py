"""The head as a Mitsuba scene: one mesh for each part of the face model, no lights, moved without being rebuilt."""

from __future__ import annotations

from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np
from numpy.typing import NDArray

from lightstage.transport import owned
from raytrace_face.backend import MESH_FACES, MESH_POSITIONS, MESH_UV
from raytrace_face.face.model import PARTS, FaceModel


class HeadScene:
    """Geometry of a head in the head frame (mm).

    Shape i of the scene is part `parts[i]`; skin always comes first. `move` sets new vertices and lets the
    acceleration structure be refitted, so that kernels compiled for the scene stay valid.
    """

    def __init__(self, model: FaceModel, vertices: NDArray[np.floating] | None = None) -> None:
        start = model.mean if vertices is None else vertices
        self.parts = [p for p in range(len(PARTS)) if np.any(model.triangle_part == p)]
        self.part_vertices: list[NDArray[np.int64]] = []
        self.part_triangles: list[NDArray[np.int32]] = []
        shapes: dict[str, Any] = {"type": "scene"}
        for part in self.parts:
            triangles = model.triangles[model.triangle_part == part]
            used, local = np.unique(triangles, return_inverse=True)
            self.part_vertices.append(used)
            self.part_triangles.append(triangles)
            shapes[PARTS[part]] = _mesh(PARTS[part], start[used], local.reshape(-1, 3), model.uv[used])
        self.scene = mi.load_dict(shapes, optimize=False)
        self._params = mi.traverse(self.scene)
        self._at: NDArray[np.floating] | None = np.array(start)

    def move(self, vertices: Any) -> None:
        """Set the vertices: a NumPy array (V, 3), or a flat Dr.Jit array (3 V,) that may carry gradients.

        Where a NumPy array says what the last one said, nothing is built again: that is 30 ms.
        """
        attached = not isinstance(vertices, np.ndarray)
        if not attached and self._at is not None and np.array_equal(vertices, self._at):
            return
        self._at = None if attached else np.array(vertices)
        for part, used in zip(self.parts, self.part_vertices, strict=True):
            key = f"{PARTS[part]}.{MESH_POSITIONS}"
            if attached:
                index = (3 * used[:, None] + np.arange(3)).ravel()
                self._params[key] = dr.gather(mi.Float, vertices, owned(mi.UInt32, index.astype(np.uint32)))
            else:
                self._params[key] = owned(mi.Float, np.asarray(vertices[used], np.float32))
        self._params.update()

    def part_of(self, si: Any) -> Any:
        """Index into `PARTS` of the shape hit, as UInt32 (undefined where nothing was hit)."""
        part = mi.UInt32(0)
        for shape, number in zip(self.scene.shapes(), self.parts, strict=True):
            part = dr.select(si.shape == mi.ShapePtr(shape), mi.UInt32(number), part)
        return part


def _mesh(name: str, vertices: NDArray[np.floating], triangles: NDArray[np.integer], uv: NDArray[np.floating]) -> Any:
    mesh = mi.Mesh(name, len(vertices), len(triangles), has_vertex_normals=True, has_vertex_texcoords=True)
    params = mi.traverse(mesh)
    params[MESH_POSITIONS] = owned(mi.Float, np.asarray(vertices, np.float32))
    params[MESH_FACES] = owned(mi.UInt32, np.asarray(triangles, np.uint32))
    params[MESH_UV] = owned(mi.Float, np.asarray(uv, np.float32))
    params.update()
    return mesh
