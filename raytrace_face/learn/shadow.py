"""Shadows that a face casts on itself, on the chart, in one product of matrices.

The nose of one face shades much the same texels as that of another. So the mean face is traced once, from every texel
in every direction, and a predicted light takes from that table what lies round it. It serves the network as a hint of
which texels are dark for want of light; pictures, and the losses on them, trace the predicted face itself.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lightstage.rig import geodesic
from raytrace_face.backend import ensure_started
from raytrace_face.face.store import load_embedded
from raytrace_face.learn.chart import normals
from raytrace_face.learn.light import Lights

DIRECTIONS = 3
"""Subdivisions of the icosahedron whose 642 corners are the directions of the table, 8 degrees apart."""
COARSER = 2
"""Texels of the chart along a side of one of the table: 4096 x 642 of them take 10 MB."""
WIDTH = 60.0
"""Concentration of the kernel that mixes directions: half as much at 8 degrees, about what lies between them."""


@cache
def open_sky(texture: int) -> Tensor:
    """(D, T / COARSER, T / COARSER) 1 where a texel of the mean face sees a direction of `towards`, else 0."""
    ensure_started()
    from raytrace_face.tracer.scene import HeadScene
    from raytrace_face.tracer.texture import sees, texel_map

    model, side = load_embedded(0), texture // COARSER
    points = texel_map(model, side).spread(model.mean)
    normal = normals(torch.from_numpy(points)[None])[0].numpy()
    seen = sees(HeadScene(model), points.reshape(-1, 3), normal.reshape(-1, 3), towards().numpy())
    return torch.from_numpy(np.ascontiguousarray(seen.T, np.float32)).view(-1, side, side)


@cache
def towards() -> Tensor:
    """(D, 3) unit vectors of the table."""
    return torch.from_numpy(geodesic(DIRECTIONS).vertices.astype(np.float32))


@torch.no_grad()
def reach(lights: Lights, table: Tensor, size: int) -> Tensor:
    """(B, L, T, T) share of each light that the mean face lets through to each texel, [0, 1].

    Args:
        table: of `open_sky`.
        size: T.
    """
    cosine = lights.directions() @ towards().to(table).T
    weight = torch.softmax(WIDTH * cosine, dim=2)
    coarse = (weight.flatten(0, 1) @ table.flatten(1)).view(*weight.shape[:2], *table.shape[1:])
    return functional.interpolate(coarse, (size, size), mode="bilinear", align_corners=False)
