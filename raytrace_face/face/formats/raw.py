"""What a model's own files say, in our units, before anything is added to it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from raytrace_face.face.model import AlbedoBasis
from raytrace_face.types import Array


@dataclass(frozen=True)
class RawModel:
    """A model as its file gives it: V vertices in mm, y up, z out of the face, x to the face's own left.

    The origin is the file's own; `adopt` finds the head frame, and makes what is None or empty here.
    """

    format: str
    """"ICT-FaceKit", "BFM 2009", "BFM 2017", "BFM 2019", "FLAME", "GNM Head"."""
    version: str
    """As far as the file tells; "" otherwise."""
    mean: Array
    """(V, 3) mm: neutral expression, mouth closed."""
    identity: Array
    """(K, V, 3) mm per standard deviation, by falling variance."""
    triangles: NDArray[np.int32]
    """(F, 3) counter-clockwise seen from outside; shells that must not be rendered (lashes, tear film) are left out."""
    licence: str
    """Name of the licence and what it forbids, in one line."""
    citation: str
    """What to cite."""
    provenance: dict[str, str]
    """File name -> sha256."""
    expression: Array
    """(E, V, 3) mm at weight 1, of the units that have an ARKit name; E may be 0."""
    expression_names: tuple[str, ...]
    """(E,) ARKit names in camelCase."""
    expression_modes: Array
    """(N, V, 3) mm per standard deviation: the model's own statistical expression space; N may be 0."""
    triangle_part: NDArray[np.uint8] | None = None
    """(F,) index into `PARTS`; None: the file does not say."""
    uv: Array | None = None
    """(T, 2) texture coordinates in [0, 1], origin bottom-left; None: the file has none."""
    uv_triangles: NDArray[np.int32] | None = None
    """(F, 3) index into `uv`, corner by corner beside `triangles`."""
    albedo: AlbedoBasis | None = None
    """Statistical reflectance on the V vertices."""
    own_vertices: int | None = None
    """The first so many vertices are the file's own, the rest were added by subdivision; None: all are the file's."""
    limits: tuple[str, ...] = field(default=())
    """What a user must know: "no back of the head", "12 of 100 identity modes are there"."""
