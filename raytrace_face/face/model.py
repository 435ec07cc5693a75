"""The face model: a linear basis over one mesh, with everything the fit needs to know about it.

One type for every model (embedded or brought by the user): vertices are
`mean + identity . alpha + expression . beta` with alpha in units of standard deviation and beta in [0, 1]. Expressions
bear ARKit's names in every model; those of a model with a statistical expression space lie in it (`native_expression`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raytrace_face.types import Array

PARTS = ("skin", "eyes", "teeth", "mouth")
"""What a triangle belongs to. Only "skin" carries the reflectance maps; all parts cast shadows."""


@dataclass(frozen=True)
class AlbedoBasis:
    """Statistical reflectance on the vertices, linear Rec. 709; diffuse and specular are independent."""

    diffuse: Array
    """(V, 3) mean diffuse albedo, in (0, 1)."""
    diffuse_modes: Array
    """(M, V, 3) per standard deviation."""
    specular: Array | None = None
    """(V, 3) mean specular albedo in the model's own scale; None: not modelled."""
    specular_modes: Array | None = None
    """(S, V, 3) per standard deviation."""


@dataclass(frozen=True)
class FaceModel:
    """A linear face model in the head frame (mm)."""

    name: str
    mean: Array
    """(V, 3) mm, head frame."""
    identity: Array
    """(K, V, 3) mm per standard deviation."""
    expression: Array
    """(E, V, 3) mm at weight 1."""
    expression_names: tuple[str, ...]
    """(E,) ARKit names in camelCase ("jawOpen", "mouthSmileLeft")."""
    triangles: NDArray[np.int32]
    """(F, 3) counter-clockwise seen from outside."""
    triangle_part: NDArray[np.uint8]
    """(F,) index into `PARTS`."""
    uv: Array
    """(V, 2) in [0, 1], origin bottom-left; one per vertex (seam vertices are duplicated)."""
    weld: NDArray[np.int32]
    """(V,) index of the representative of each group of duplicated vertices, for smooth normals over seams."""
    mirror: NDArray[np.int32]
    """(V,) index of the vertex mirrored at x = 0; the embedded model's skin uv obeys uv[mirror] == (1 - u, v)."""
    landmark_index: NDArray[np.int32]
    """(N,) index into the 478 network landmarks."""
    landmark_triangle: NDArray[np.int32]
    """(N,) triangle each landmark lies on."""
    landmark_barycentric: Array
    """(N, 3) barycentric coordinates in that triangle."""
    landmark_sigma_mm: Array
    """(N,) spread of the landmark over calibration views and shapes, mm: the inverse of its weight."""
    regions: dict[str, Array]
    """Region name -> (V,) weight in [0, 1]: "face" (what the fit may use), "lips", "eyelids", "nose", "cheeks",
    "forehead", "chin", "brows", "beard", "ears", "neck", "scalp"."""
    licence: str
    provenance: dict[str, str]
    albedo: AlbedoBasis | None = None
    """Statistical reflectance; None: the chromophore prior of `skin_prior`."""
    native_expression: Array | None = None
    """(E, N) the model's own expression coefficients [sigma] at weight 1 of each expression, 0 for what joints move;
    None: it has no own."""
    source: NDArray[np.int32] | None = None
    """(V,) vertex of the model's own file that each vertex is; -1: added by subdivision. None: made here."""

    @property
    def vertex_count(self) -> int:
        return int(self.mean.shape[0])

    def vertices(self, identity: NDArray[np.floating], expression: NDArray[np.floating]) -> Array:
        """Vertex positions (V, 3) in mm, head frame, of identity (K,) [sigma] and expression (E,) [0, 1]."""
        shape = np.tensordot(np.asarray(identity, np.float32), self.identity, 1)
        shape += np.tensordot(np.asarray(expression, np.float32), self.expression, 1)
        return self.mean + shape

    def landmark_points(self, vertices: NDArray[np.floating]) -> NDArray[np.floating]:
        """Landmark positions (N, 3) on given vertices (V, 3)."""
        corners = vertices[self.triangles[self.landmark_triangle]]
        return np.einsum("nc,ncd->nd", self.landmark_barycentric, corners)
