"""Photometric stereo: normals and albedo of a fixed face from many photos under known far lights (Woodham 1980).

Lambertian, so wrong on eyes and highlights. Shadows are left out as outliers; the strength of each photo's light is
estimated with the rest (strobes vary), up to one common factor.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raytrace_face.errors import InputError
from raytrace_face.measure import yaleb
from raytrace_face.types import Array

SHADOW = 0.6
"""A pixel darker than this share of what the fit gives it is taken to be in shadow: 1 would leave out noise, the
penumbra and half the lit pixels, 0.3 would keep interreflections."""
SATURATED = 0.99
"""Codes above it are clipped."""
LIMIT_DEG = 77.0
"""Photos lit from farther to the side or behind show mostly shadow."""
ROUNDS = 6
"""Of shading out shadows and re-estimating gains. It stops early on purpose: gains that drift with the direction are
nearly as good as other normals, and on real faces, which are not Lambertian, more rounds go on into that valley (6 to
50 rounds: 3.2 to 5.8 degrees from the independent truth of yaleB02, 2.5 to 3.0 for yaleB27). The price is 1.1 degrees
on an ideal head whose strobes vary by 25 %; there 50 rounds end at 0.08."""


def solve(images: NDArray[np.floating], directions: NDArray[np.floating]) -> tuple[Array, Array, NDArray[np.float64]]:
    """Normals (H, W, 3), albedo (H, W) and gains (N,) of photos (N, H, W) in linear light, 1 = clipped.

    Minimises sum_k w_k (I_k / g_k - rho n . l_k)^2 a pixel; w_k is 0 in shadow and where the photo is clipped. Gains
    have mean 1; a pixel seen by fewer than three lights has normal (0, 0, 1) and albedo 0.

    Args:
        directions: (N, 3) unit vectors to the lights.
    """
    count, height, width = images.shape
    I = images.reshape(count, -1).astype(np.float64)  # noqa: E741  the symbol of the literature
    L = np.asarray(directions, np.float64)
    gain = np.ones(count)
    usable = I < SATURATED
    weight = usable & (I > 0.02)
    b = np.zeros((I.shape[1], 3))
    for _ in range(ROUNDS):
        w = weight.astype(np.float64)
        left = np.einsum("kp,ki,kj->pij", w, L, L, optimize=True) + 1e-6 * np.eye(3)
        right = np.einsum("kp,ki->pi", w * I / gain[:, None], L, optimize=True)
        b = np.linalg.solve(left, right[..., None])[..., 0]
        predicted = np.maximum(L @ b.T, 0)
        weight = usable & (I / gain[:, None] > SHADOW * predicted) & (predicted > 0.05 * predicted.max(axis=0))
        fit = np.where(weight, predicted, 0)
        power = (fit * fit).sum(axis=1)
        gain = np.where(power > 0, (fit * I).sum(axis=1) / np.maximum(power, 1e-12), gain)  # a dark photo says nothing
        gain /= gain.mean()
    albedo = np.linalg.norm(b, axis=1)
    known = (weight.sum(axis=0) >= 3) & (albedo > 0)
    normals = np.where(known[:, None], b / np.maximum(albedo, 1e-12)[:, None], [0.0, 0.0, 1.0])
    shape = (height, width)
    return (
        normals.reshape(*shape, 3).astype(np.float32),
        np.where(known, albedo, 0).reshape(shape).astype(np.float32),
        gain,
    )


def of_subject(root: Path, subject: str) -> yaleb.Truth:
    """Truth of one Yale B subject from all photos of a CroppedYale folder whose light is known and not too oblique.

    Raises:
        InputError: fewer than eight such photos.
    """
    found = (re.fullmatch(r".*_P00(A[+-]\d+E[+-]\d+)", p.stem) for p in sorted((root / subject).glob("*.pgm")))
    names = [m[1] for m in found if m and (subject, m[1]) not in yaleb.BROKEN]
    every = {name: yaleb.light_direction(name) for name in names}
    used = [name for name, d in every.items() if d[2] > np.cos(np.radians(LIMIT_DEG))]
    if len(used) < 8:
        raise InputError(f"{str(root / subject)!r} has {len(used)} photos with known light: photometric stereo needs 8")
    stack = np.stack([yaleb.load_image(root, subject, name) for name in used]) / 255
    normals, albedo, gain = solve(stack, np.stack([every[name] for name in used]))
    strengths = dict(zip(used, gain.tolist(), strict=True))
    for name in set(every) - set(used):
        photo = yaleb.load_image(root, subject, name) / 255
        predicted = np.maximum(normals @ every[name], 0) * albedo
        faces = predicted > 0
        lit = (photo > SHADOW * np.median(photo[faces])) & faces & (photo < SATURATED) if faces.any() else faces
        power = float((predicted[lit] ** 2).sum())
        strengths[name] = float((predicted[lit] * photo[lit]).sum()) / power if power else 1.0
    return yaleb.Truth(subject, normals, albedo, strengths)
