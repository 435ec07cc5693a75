"""What a step of training minimises, of its synthetic and its real photos, in one pass of the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raytrace_face.learn import objective
from raytrace_face.learn.columns import ColumnStore
from raytrace_face.learn.inputs import Beheld, behold
from raytrace_face.learn.lend import lend
from raytrace_face.learn.recipe import Recipe, Stage

SEEDS = 2**19
"""Seeds of `render_batch`."""

Forward = Callable[..., dict[str, Tensor]]
"""`FaceNetwork.forward`, wrapped or not."""


@dataclass(frozen=True)
class Turn:
    """Which step it is, and whose: all randomness of a step follows from it and the recipe's seed."""

    number: int
    """Steps of all stages before it."""
    rank: int = 0
    processes: int = 1


@dataclass(frozen=True)
class Judgement:
    """The loss of a step with what it is made of."""

    loss: Tensor
    values: dict[str, float]
    """Every term without its weight, and `light` on synthetic skin that looks ahead (`objective.facing`)."""
    latent: Tensor
    """(B, latent) codes of all photos."""


def judge(
    world: objective.World, recipe: Recipe, stage: Stage, model: Forward, device: torch.device, turn: Turn,
    made: dict[str, Any], found: dict[str, Any] | None, store: ColumnStore | None,
) -> Judgement:  # fmt: skip
    """Predict the photos of a step and judge the predictions.

    Args:
        made, found: synthetic and real photos.
        store: columns of real photos, where the encoder is fixed; else they are path traced.
    """
    seen = [behold(world.head, world.chart, batch, batch["kept"]) for batch in (made, found) if batch is not None]
    n, lent = len(made["image"]), None
    if found is not None and stage.decoders:
        factor = lend(seen[1].chart, n, np.random.default_rng([recipe.seed, turn.number, turn.rank]))
        albedo = objective.maps_at(made["albedo_map"], world.chart.size)
        made = {**made, "albedo_map": albedo * factor.permute(0, 2, 3, 1)}
        lent = torch.cat([factor, torch.ones_like(seen[1].chart[:, :3])])
    out = forward(model, device, seen, stage.decoders, lent)
    faces = objective.faces_of(world, {k: v[:n] for k, v in out.items()}, seen[0].start)
    terms = objective.supervised(world, faces, made, stage.decoders)
    loss = objective.weighted(terms, recipe.weights)
    values = {f"synthetic/{k}": float(v.detach()) for k, v in terms.items()}
    values["light"] = objective.facing(faces.predicted.lights)
    if found is not None:
        faces = objective.faces_of(world, {k: v[n:] for k, v in out.items()}, seen[1].start)
        terms = _of_real(world, recipe, stage, faces, found, store, turn)
        loss = loss + objective.weighted(terms, recipe.weights)
        values |= {f"real/{k}": float(v.detach()) for k, v in terms.items()}
    return Judgement(loss, values, out["latent"])


def _of_real(
    world: objective.World, recipe: Recipe, stage: Stage, faces: objective.Faces, found: dict[str, Any],
    store: ColumnStore | None, turn: Turn,
) -> objective.Terms:  # fmt: skip
    """The losses of real photos, through the tracer."""
    if store is not None:
        target, columns = store.of(world, faces, found, recipe.picture, recipe.samples)
        picture = objective.shaded(faces, target, columns)
    else:
        target = objective.look_at(world, faces, found, recipe.picture)
        seed = (turn.number * turn.processes + turn.rank) % SEEDS
        picture = objective.traced(world, faces, target, seed, recipe.samples, recipe.shadows)
    return objective.self_supervised(world, faces, found, target, picture, found["blendshapes"], stage.decoders)


def forward(
    model: Forward, device: torch.device, seen: list[Beheld], decoded: bool, lent: Tensor | None = None
) -> dict[str, Tensor]:
    """One pass for all these photos on the network's device; its outputs on the CPU."""
    crops, charts, starts, hints = zip(*(s.tensors() for s in seen), strict=True)
    crop = torch.cat(crops).to(device, memory_format=torch.channels_last)
    chart = torch.cat(charts).to(device)
    start = tuple(torch.cat(parts).to(device) for parts in zip(*starts, strict=True))
    hint = tuple(torch.cat(parts).to(device) for parts in zip(*hints, strict=True))
    lent = None if lent is None else lent.to(device)
    return {name: value.cpu() for name, value in model(crop, chart, start, hint, decoded, lent).items()}
