"""Weights of a small network that was never trained: it says the mean face in its start's pose."""

from __future__ import annotations

from pathlib import Path

import torch

from raytrace_face.learn import checkpoint, weights
from raytrace_face.learn.network import FaceNetwork
from raytrace_face.learn.recipe import Network, Recipe

SMALL = Recipe(network=Network(crop=64, width=16, latent=32, texture=32, decoder_width=16))
LIMITS = {"strange": 1.5, "unlike_landmarks": 0.05}


def write(path: Path, seed: int = 0) -> Path:
    """Export them."""
    torch.manual_seed(seed)
    kept = path.with_name("checkpoint.safetensors")
    about = {"recipe": SMALL.to_dict(), "real_photos": 0, "sittings": 8, "sittings_seed": 0}
    checkpoint.save(kept, FaceNetwork(SMALL.network), None, checkpoint.State(stage=1, total=1, figures=LIMITS), about)
    weights.export(kept, path, force=True)
    return path
