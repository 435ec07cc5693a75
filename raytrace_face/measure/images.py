"""Errors of images. All of them take linear images; "gain-free" ones first scale the prediction to the truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

Image = NDArray[np.floating]
Mask = NDArray[np.bool_]


def best_gain(predicted: Image, truth: Image, mask: Mask) -> float:
    """The factor g that minimises sum (g predicted - truth)^2 inside `mask`; 1 for a prediction that is all black."""
    p, t = predicted[mask].astype(np.float64), truth[mask].astype(np.float64)
    power = float((p * p).sum())
    return float((p * t).sum()) / power if power > 0 else 1.0


def psnr_db(predicted: Image, truth: Image, mask: Mask, peak: float = 1.0) -> float:
    """Peak signal-to-noise ratio in dB inside `mask`; infinite for equal images."""
    error = float(((predicted[mask].astype(np.float64) - truth[mask]) ** 2).mean())
    return float("inf") if error == 0 else 10 * float(np.log10(peak**2 / error))


def ssim(predicted: Image, truth: Image, mask: Mask | None = None, peak: float = 1.0) -> float:
    """Structural similarity (Wang et al. 2004, 7 x 7 uniform window as in scikit-image), averaged inside `mask`.

    Images (H, W) or (H, W, C). Windows near the border of the mask see the pixels outside of it, too.
    """
    axis = -1 if truth.ndim == 3 else None
    _, similarity = structural_similarity(
        predicted.astype(np.float64), truth.astype(np.float64), data_range=peak, channel_axis=axis, full=True
    )
    return float(similarity.mean() if mask is None else similarity[mask].mean())


def relative_rmse(predicted: Image, truth: Image, mask: Mask) -> float:
    """Root-mean-square error after the best gain, relative to the mean of the truth, inside `mask`."""
    p, t = best_gain(predicted, truth, mask) * predicted[mask], truth[mask]
    return float(np.sqrt(((p - t) ** 2).mean()) / t.mean())


def relative_std(stack: Image, mask: Mask) -> float:
    """How much images (N, H, W) of one thing differ: mean standard deviation over mean, inside `mask`."""
    inside = stack[:, mask]
    return float(inside.std(axis=0).mean() / inside.mean())


def iou(predicted: Mask, truth: Mask) -> float:
    """Intersection over union of two masks; 1 when both are empty."""
    union = int((predicted | truth).sum())
    return float((predicted & truth).sum() / union) if union else 1.0
