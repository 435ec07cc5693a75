"""Training data for torch: sittings photographed anew in every epoch, real photos from shards, and their order.

An item is a function of (seed, epoch, number) alone, and the order of an epoch of (seed, epoch), so that the state of
a run is two integers: the epoch, and how many items this process has consumed of it. Arrays are float32; lengths in
the picture are in sides of the crop from its top-left corner, so that no value depends on the resolution.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset, Sampler

from raytrace_face.errors import InputError
from raytrace_face.learn.synthesis import files
from raytrace_face.learn.synthesis.camera import shoot
from raytrace_face.learn.synthesis.lighting import MAX_LIGHTS, ambient_sh, photograph, random_lighting
from raytrace_face.learn.synthesis.make import about
from raytrace_face.types import Array

Key = tuple[int, int]
"""(epoch, number) of an item."""
Item = dict[str, Any]


class EpochSampler(Sampler[Key]):
    """The order of one epoch for one of several processes; the same number of items for each.

    Together the processes see every item, and none twice, unless `count` is no multiple of `world`: then a few from
    the beginning of the order are seen again at its end.
    """

    def __init__(self, count: int, seed: int, epoch: int, position: int = 0, rank: int = 0, world: int = 1) -> None:
        """`position` items of this process's share are done already; it is process `rank` of `world`."""
        order = np.random.default_rng([seed, epoch]).permutation(count)
        share = np.resize(order, -(-count // world) * world)[rank::world]
        self.epoch, self.numbers = epoch, share[position:]

    def __iter__(self) -> Iterator[Key]:
        return ((self.epoch, int(n)) for n in self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(frozen=True)
class Skipped:
    """What was left out of a data set, and why."""

    entries: tuple[tuple[str, str], ...]
    """File and reason."""

    def __str__(self) -> str:
        return f"{len(self.entries)} skipped: " + "; ".join(f"{name} ({why})" for name, why in self.entries[:5])


class SyntheticPhotos(Dataset[Item]):
    """Photos of sittings, under new light and through a new camera in every epoch.

    An item holds what a real photo does (`RealPhotos`), and as truth

    - `identity` (K,), `expression` (E,), `T_camera_head` (4, 4), `focal` (), `true_landmarks` (N, 2) of the model;
    - `light_direction` (3, 3) and `light_irradiance` (3, 3) (irradiance / pi, in the photo's linear units) of up to
      three lights in the head frame, the strongest first, zero where there are fewer; `light_radius_deg` (3,);
    - `ambient_sh` (9, 3), head frame; `albedo` (M,) coefficients of `face.skin_prior`;
    - `albedo_map` (T, T, 3), `specular_map` and `roughness_map` (T, T), row 0 at v = 1.
    """

    def __init__(self, folder: Path, seed: int = 0, size: int | None = None, limit: int | None = None) -> None:
        """Open a folder of `make_synthetic`.

        Args:
            seed: of light and camera.
            size: pixels a side; default as traced.
            limit: the first so many sittings only.

        Raises:
            InputError: no such folder, or no sitting in it can be read.
        """
        self.about = about(folder)
        self.seed, self.size = seed, size
        self.paths: list[Path] = []
        bad = []
        for path in sorted(folder.glob("*/*.safetensors"))[:limit]:
            try:
                files.check(path)
            except InputError as error:
                bad.append((path.name, str(error)))
            else:
                self.paths.append(path)
        self.skipped = Skipped(tuple(bad))
        if not self.paths:
            raise InputError(f"{str(folder)!r} holds no sitting that can be read ({self.skipped}): make some")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: Key) -> Item:
        epoch, number = key
        rng = np.random.default_rng([self.seed, epoch, number])
        negative = files.load(self.paths[number])
        t = negative.truth
        towards_camera = t.light_directions @ t.T_camera_head[:3, :3].T
        light = random_lighting(towards_camera, t.light_radius_deg, rng)
        shot = shoot(photograph(negative, light), negative.coverage, negative.mask, rng)
        gain = luminance_gain(shot.gain) if shot.monochrome else shot.gain
        side = negative.albedo.shape[0]
        count = len(light.chosen)
        lamps = {"light_direction": np.zeros((MAX_LIGHTS, 3)), "light_irradiance": np.zeros((MAX_LIGHTS, 3))}
        radius = np.zeros(MAX_LIGHTS)
        lamps["light_direction"][:count] = t.light_directions[light.chosen]
        lamps["light_irradiance"][:count] = light.irradiance * gain
        radius[:count] = t.light_radius_deg[light.chosen]
        seen = bool(np.isfinite(t.detected_px).all())
        return tensors({
            **_pictures(shot.codes, negative.mask, self.size),
            "landmarks": t.detected_px / side if seen else np.zeros_like(t.detected_px),
            "blendshapes": t.blendshapes if seen else np.zeros_like(t.blendshapes),
            "detected": seen,
            "principal": np.array(t.principal_px) / side,
            "monochrome": shot.monochrome,
            "identity": t.identity,
            "expression": t.expression,
            "T_camera_head": t.T_camera_head,
            "focal": np.array(t.focal_px / side),
            "true_landmarks": t.landmarks_px / side,
            **lamps,
            "light_radius_deg": radius,
            "ambient_sh": ambient_sh(t.sky_axes, light.sky * gain),
            "albedo": t.albedo_coefficients,
            "albedo_map": t.albedo_map,
            "specular_map": t.specular_map,
            "roughness_map": t.roughness_map,
        })  # fmt: skip


def luminance_gain(gain: NDArray[np.floating]) -> NDArray[np.floating]:
    """(3,) the same exposure without a cast: in a monochrome photo none is seen."""
    return np.full(3, float(np.mean(gain)))


class RealPhotos(Dataset[Item]):
    """Photos from the shards of `learn.pack`.

    An item is

    - `image` (3, S, S) sRGB codes in [0, 1] and `mask` (S, S), how surely skin of the face is seen;
    - `landmarks` (478, 2) and `blendshapes` (E,) of the landmark network, and `detected` (): whether there are any;
    - `principal` (2,) principal point of the camera, the middle of the photo; `monochrome` ();
    - `person` (): number of the person, -1 where the layout names none.
    """

    def __init__(self, folder: Path, expression_names: tuple[str, ...], size: int | None = None) -> None:
        """Open shards; every sample is decoded once (0.5 ms), so that damage shows here and not in mid-training.

        Args:
            expression_names: order of the blendshapes.
            size: pixels a side; default as packed.

        Raises:
            InputError: no shard, or no sample that can be read.
        """
        shards = sorted(folder.glob("*.tar"))
        if not shards:
            raise InputError(f"{str(folder)!r} holds no shards: make some with `train data pack`")
        self.names, self.size = expression_names, size
        self.samples: list[tuple[Path, dict[str, tuple[int, int]]]] = []
        people: list[str | None] = []
        bad = []
        for shard in shards:
            try:
                found = _members(shard)
                named = [(shard, members, _person(shard, members)) for members in found]
            except (tarfile.TarError, OSError, ValueError, KeyError) as error:
                bad.append((shard.name, f"{type(error).__name__}: {str(error)[:60]}"))
                continue
            self.samples += [(path, members) for path, members, _ in named]
            people += [person for _, _, person in named]
        self.skipped = Skipped(tuple(bad))
        if not self.samples:
            raise InputError(f"{str(folder)!r} holds no sample that can be read ({self.skipped}): pack it again")
        known = sorted({p for p in people if p is not None})
        self.people = np.array([-1 if p is None else known.index(p) for p in people])
        """(N,) number of the person of each photo."""

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key) -> Item:
        _, number = key
        parts = _read(*self.samples[number])
        about = json.loads(parts["json"])
        left, top, side = about["window"]
        principal = (np.array([about["width"], about["height"]]) / 2 - (left, top)) / side
        mask = np.asarray(Image.open(io.BytesIO(parts["mask.png"])), np.float32) / np.float32(255)
        return tensors({
            **_pictures(np.asarray(Image.open(io.BytesIO(parts["jpg"])).convert("RGB")), mask, self.size),
            "landmarks": np.array(about["landmarks"]),
            "blendshapes": np.array([about["blendshapes"].get(name, 0.0) for name in self.names]),
            "detected": True,
            "principal": principal,
            "monochrome": bool(about["monochrome"]),
            "person": int(self.people[number]),
        })  # fmt: skip


def _members(shard: Path) -> list[dict[str, tuple[int, int]]]:
    """Offset and length of the members of every sample of a shard, by suffix."""
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    with tarfile.open(shard, "r:") as tar:
        for info in tar:
            stem, _, suffix = info.name.partition(".")
            samples.setdefault(stem, {})[suffix] = (info.offset_data, info.size)
    if not samples:
        raise ValueError("no samples")
    for stem, members in samples.items():
        lacking = {"jpg", "mask.png", "json"} - set(members)
        if lacking:
            raise ValueError(f"{stem} has no {sorted(lacking)[0]}")
    return [samples[stem] for stem in sorted(samples)]


def _read(shard: Path, members: dict[str, tuple[int, int]]) -> dict[str, bytes]:
    with shard.open("rb") as file:
        out = {}
        for suffix, (offset, length) in members.items():
            file.seek(offset)
            out[suffix] = file.read(length)
    return out


def _person(shard: Path, members: dict[str, tuple[int, int]]) -> str | None:
    """The person of a sample, all of whose members are decoded to see whether they can be."""
    parts = _read(shard, members)
    for suffix in ("jpg", "mask.png"):
        Image.open(io.BytesIO(parts[suffix])).load()
    about = json.loads(parts["json"])
    if np.shape(about["landmarks"]) != (478, 2) or len(about["window"]) != 3:
        raise ValueError("landmarks or window are of another shape")
    return about["person"]


def _pictures(codes: NDArray[np.uint8], mask: Array, size: int | None) -> dict[str, Array]:
    """`image` (3, S, S) and `mask` (S, S), reduced to `size` if given: codes are averaged, as in crops."""
    if size is not None and size != len(codes):
        codes = np.asarray(Image.fromarray(codes).resize((size, size), Image.Resampling.BILINEAR))
        mask = np.asarray(Image.fromarray(np.ascontiguousarray(mask)).resize((size, size), Image.Resampling.BILINEAR))
    return {"image": codes.transpose(2, 0, 1).astype(np.float32) / np.float32(255), "mask": mask}


def tensors(values: dict[str, Any]) -> Item:
    """Arrays as float32 tensors, truth values and numbers as they are."""
    return {
        k: torch.from_numpy(np.array(v, np.float32)) if isinstance(v, np.ndarray) else torch.tensor(v)
        for k, v in values.items()
    }
