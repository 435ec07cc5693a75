"""Does a reconstruction still look like the person? Similarities of face embeddings, as distributions.

A number alone says nothing: it has to lie within what photos of one person have in common, and away from what photos
of different people have. No embedding network comes with this package; any function from image to vector will do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from raytrace_face.errors import InputError

F = NDArray[np.float64]
Image = NDArray[np.floating]
Embedding = Callable[[Image], NDArray[np.floating]]
"""Image -> vector of any length; the colour space of the image is what its maker says."""


@dataclass(frozen=True)
class Similarities:
    """Cosines in [-1, 1] of pairs of images, each pair once."""

    own: F
    """Each photo and its own reconstruction."""
    real_same: F
    """Photos of one person."""
    real_different: F
    """Photos of different people."""
    mixed_same: F
    """A photo and the reconstruction of another photo of the same person."""
    mixed_different: F
    """A photo of one person and a reconstruction of another."""
    reconstructed_same: F
    """Reconstructions from different photos of one person."""
    reconstructed_different: F
    """Reconstructions of different people."""

    def summary(self) -> dict[str, float]:
        """Mean, standard deviation and number of every distribution, and how well each kind tells people apart.

        `auc_<kind>` is the probability that a pair of the same person is more alike than a pair of different people.
        NaN where there are no pairs.
        """
        found: dict[str, float] = {}
        for name in self.__dataclass_fields__:
            values = getattr(self, name)
            found[f"{name}_mean"] = float(values.mean()) if values.size else float("nan")
            found[f"{name}_std"] = float(values.std()) if values.size else float("nan")
            found[f"{name}_pairs"] = int(values.size)
        for kind in ("real", "mixed", "reconstructed"):
            found[f"auc_{kind}"] = auc(getattr(self, f"{kind}_same"), getattr(self, f"{kind}_different"))
        return found


def auc(same: NDArray[np.floating], different: NDArray[np.floating]) -> float:
    """Area under the ROC curve by the statistic of Mann and Whitney: P(same > different) + P(equal) / 2.

    >>> auc(np.array([0.9, 0.5]), np.array([0.5, 0.1]))
    0.875
    """
    if not (len(same) and len(different)):
        return float("nan")
    return float(mannwhitneyu(same, different).statistic / (len(same) * len(different)))


def similarities(
    embed: Embedding, photos: Sequence[Image], reconstructions: Sequence[Image], people: Sequence[str]
) -> Similarities:
    """Embed photos and their reconstructions, and compare all pairs.

    Args:
        embed: image -> vector; called once an image.
        photos: one image an item.
        reconstructions: of the same items, in the same order.
        people: who is in each item.

    Raises:
        InputError: the lists differ in length, or an embedding is zero or not finite.
    """
    if not len(photos) == len(reconstructions) == len(people) or not len(photos):
        raise InputError(
            f"{len(photos)} photos, {len(reconstructions)} reconstructions and {len(people)} names: "
            "give one of each for every item"
        )
    real, made = _unit(embed, photos, "photo"), _unit(embed, reconstructions, "reconstruction")
    names = np.asarray(people)
    same = names[:, None] == names
    upper = np.triu(np.ones(same.shape, bool), 1)
    other = ~np.eye(len(names), dtype=bool)
    rr, rm, mm = real @ real.T, real @ made.T, made @ made.T
    return Similarities(
        own=np.diagonal(rm).copy(),
        real_same=rr[same & upper],
        real_different=rr[~same & upper],
        mixed_same=rm[same & other],
        mixed_different=rm[~same],
        reconstructed_same=mm[same & upper],
        reconstructed_different=mm[~same & upper],
    )


def _unit(embed: Embedding, images: Sequence[Image], what: str) -> F:
    """(N, D) unit embeddings."""
    vectors = np.stack([np.asarray(embed(image), np.float64).ravel() for image in images])
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(length[:, 0]) & (length[:, 0] > 0)))
    if bad.size:
        raise InputError(f"the embedding of {what} {bad[0]} is zero or not finite: check the embedding function")
    return vectors / length
