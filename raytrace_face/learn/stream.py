"""The photos of a stage in their order: batches from any step on, and what belongs to an item by chance."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from raytrace_face.learn.dataset import EpochSampler, Item, Key
from raytrace_face.learn.inputs import begun
from raytrace_face.learn.start import LandmarkStart


class Batches(Sampler[list[Key]]):
    """The batches of one process from one step of a stage to another."""

    def __init__(
        self, count: int, size: int, seed: int, first_epoch: int, steps: range, rank: int = 0, world: int = 1,
        people: NDArray[np.int64] | None = None,
    ) -> None:  # fmt: skip
        """`count` photos, `size` of them in a batch of this process; epochs of the stage count from `first_epoch`.

        `people` (count,) are numbers of the persons, negative where not known: their photos come side by side.
        """
        self.people = people
        self.count, self.size, self.seed, self.first_epoch = count, size, seed, first_epoch
        self.steps, self.rank, self.world = steps, rank, world
        self.per_epoch = steps_per_epoch(count, size, world)
        self._share = lru_cache(maxsize=1)(self._order)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        share = EpochSampler(self.count, self.seed, epoch, 0, self.rank, self.world).numbers
        if self.people is not None:
            share = side_by_side(share, self.people[share])
        return np.resize(share, max(len(share), self.size))

    def __iter__(self) -> Iterator[list[Key]]:
        for step in self.steps:
            epoch, k = divmod(step, self.per_epoch)
            epoch += self.first_epoch
            yield [(epoch, int(n)) for n in self._share(epoch)[k * self.size : (k + 1) * self.size]]

    def __len__(self) -> int:
        return len(self.steps)


def side_by_side(order: NDArray[np.int64], people: NDArray[np.int64]) -> NDArray[np.int64]:
    """The order (N,) with all photos of a person where the first of them was; `people` (N,), negative: alone."""
    first: dict[int, int] = {}
    place = [first.setdefault(int(p), k) if p >= 0 else k for k, p in enumerate(people)]
    return order[np.argsort(place, kind="stable")]


def steps_per_epoch(count: int, size: int, world: int) -> int:
    """Full batches in an epoch; what is left over waits for the next, in another order."""
    return max(count // (size * world), 1)


class Drawn(Dataset[Item]):
    """Items with their `number`, their `start`, and with `kept`, whether the network is told their landmarks."""

    def __init__(self, data: Dataset[Item], start: LandmarkStart, seed: int, hints: float) -> None:
        self.data, self.start, self.seed, self.hints = data, start, seed, hints
        self.begun: dict[int, dict[str, Tensor]] = {}  # landmarks are those of every epoch, the fit takes 20 ms

    def __getitem__(self, key: Key) -> Item:
        told = float(np.random.default_rng([self.seed, *key, 1]).random()) < self.hints
        item = self.data[key]
        if key[1] not in self.begun:
            self.begun[key[1]] = begun(self.start, item)
        return {**item, "number": key[1], "kept": told, "start": self.begun[key[1]]}


def stream(data: Dataset[Item], batches: Batches, workers: int) -> Iterator[dict[str, Any]]:
    """Batches of a data set, loaded here or ahead in processes."""
    context = "spawn" if workers else None  # Mitsuba does not survive a fork
    return iter(DataLoader(data, batch_sampler=batches, num_workers=workers, multiprocessing_context=context))
