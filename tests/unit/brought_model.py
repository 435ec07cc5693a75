"""A face model as users bring them, made of the embedded one: coarser, another shape, and with much of it missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from raytrace_face.face.model import PARTS, AlbedoBasis, FaceModel
from raytrace_face.face.store import load_embedded


def brought(name: str = "mine", seed: int = 3) -> FaceModel:
    """Skin alone, open at the back and at the neck, 12 identity modes, few regions, an albedo basis of 3 modes."""
    whole = load_embedded(0)
    rng = np.random.default_rng(seed)
    skin = whole.triangle_part == PARTS.index("skin")
    centres = whole.mean[whole.triangles].mean(axis=1)
    kept = skin & (centres[:, 2] > -60) & (centres[:, 1] > -130)
    kept[whole.landmark_triangle] = True
    number = np.cumsum(kept) - 1
    tone = 0.3 + 0.2 * np.cos(whole.mean[:, 1:2] / 40) * np.array([1.0, 0.7, 0.5])
    waves = whole.mean[None, :, :1] / np.array([20.0, 30.0, 50.0])[:, None, None]
    basis = AlbedoBasis(
        diffuse=np.clip(tone, 0.05, 0.9).astype(np.float32),
        diffuse_modes=(0.03 * np.sin(waves) * [1.0, 0.8, 0.6]).astype(np.float32),
        specular=(0.2 + 0.1 * np.sin(whole.mean[:, :1] / 30) * np.ones(3)).astype(np.float32),
    )
    return replace(
        whole,
        name=name,
        mean=(whole.mean * np.array([1.03, 0.98, 1.0])).astype(np.float32),
        identity=whole.identity[:12].copy(),
        triangles=whole.triangles[kept],
        triangle_part=whole.triangle_part[kept],
        landmark_triangle=number[whole.landmark_triangle].astype(np.int32),
        regions={key: whole.regions[key] for key in ("face", "lips")},
        licence="test licence, not for trade",
        provenance={"mine.bin": "ab" * 32},
        albedo=basis,
        native_expression=rng.normal(size=(len(whole.expression_names), 5)).astype(np.float32),
        source=np.arange(whole.vertex_count, dtype=np.int32),
    )
