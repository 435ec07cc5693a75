"""ST-LPIPS: how different two pictures look, by the features of a network.

LPIPS is R. Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018. What is
computed here is its shift-tolerant form, A. Ghildyal and F. Liu, "Shift-Tolerant Perceptual Similarity Metric", ECCV
2022 (AlexNet variant): its weights come whole in the package `stlpips_pytorch` (the extra `perceptual`), whereas those
of LPIPS have to be downloaded at run time. **The two are different numbers**: ST-LPIPS never stands in a column of
LPIPS.

Only the weight file of that package is read, by torch's loader for plain tensors; its code is not run.
"""

from __future__ import annotations

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from raytrace_face.capture.colour import linear_to_srgb
from raytrace_face.errors import InputError

if TYPE_CHECKING:
    import torch

Image = NDArray[np.floating]
Mask = NDArray[np.bool_]

NAME = "ST-LPIPS (AlexNet)"
"""What a column is called."""
PACKAGE, FILE = "stlpips_pytorch", "weights/vST0.0/alex_shift_tolerant.pth"
SHA256 = "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee"
"""Of the weight file of version 0.0.2: other weights are another metric."""
MIN_SIDE, MAX_PIXELS = 32, 4_000_000
"""Below, the last features are a few pixels of padding; above, they take more than 4 GB."""
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Mean and spread of ImageNet's colours in [-1, 1], which the network was trained with (LPIPS, version 0.1)."""


def available() -> bool:
    """Whether the weights are installed."""
    return importlib.util.find_spec(PACKAGE) is not None


def st_lpips(predicted: Image, truth: Image, mask: Mask | None = None) -> float:
    """ST-LPIPS (AlexNet) between two linear Rec. 709 images (H, W, 3), averaged inside `mask`; 0 for equal images.

    The network sees sRGB. Pixels outside of the mask are mid grey in both, so that only the inside counts.

    Raises:
        InputError: the weights are not installed, or the images are too small, too large or of different sizes.
    """
    if predicted.shape != truth.shape or truth.ndim != 3 or truth.shape[2] != 3:
        raise InputError(f"images have shapes {predicted.shape} and {truth.shape}: both must be (H, W, 3), of one size")
    height, width = truth.shape[:2]
    if min(height, width) < MIN_SIDE or height * width > MAX_PIXELS:
        raise InputError(
            f"images of {width} x {height} pixels cannot be compared by {NAME}: give at least {MIN_SIDE} pixels a side "
            f"and at most {MAX_PIXELS / 1e6:.0f} megapixels"
        )
    inside = np.ones((height, width), bool) if mask is None else mask
    return float(_distance_map(_encoded(predicted, inside), _encoded(truth, inside))[inside].mean())


def _encoded(image: Image, inside: Mask) -> NDArray[np.float32]:
    """(3, H, W) sRGB in [-1, 1], 0 outside."""
    values = 2 * linear_to_srgb(np.clip(image, 0, 1)) - 1
    return np.moveaxis(np.where(inside[..., None], values, 0), -1, 0).astype(np.float32)


def _distance_map(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W) distance of encoded pictures (3, H, W): weighted squared differences of unit features, all five layers."""
    import torch
    from torch.nn import functional

    w = _weights()
    total = torch.zeros(a.shape[1:])
    with torch.inference_mode():
        layers = zip(*(_features(torch.from_numpy(picture)[None], w) for picture in (a, b)), strict=True)
        for number, (fa, fb) in enumerate(layers):
            gap = (functional.normalize(fa, eps=1e-10) - functional.normalize(fb, eps=1e-10)) ** 2
            layer = functional.conv2d(gap, w[f"lin{number}.model.1.weight"])
            total += functional.interpolate(layer, size=a.shape[1:], mode="bilinear", align_corners=False)[0, 0]
    return total.numpy()


def _features(picture: torch.Tensor, w: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Outputs of the five convolutions of a shift-tolerant AlexNet (section 4 of the paper).

    The first one has stride 1, and all shrinking is done by blurring and taking every other pixel, reflected borders.
    """
    import torch
    from torch.nn.functional import conv2d, max_pool2d, pad, relu

    def conv(x: torch.Tensor, name: str, padding: int) -> torch.Tensor:
        return conv2d(x, w[f"net.{name}.weight"], w[f"net.{name}.bias"], padding=padding)

    def halve(x: torch.Tensor) -> torch.Tensor:
        tent = torch.tensor([1.0, 2.0, 1.0]) / 4
        kernel = torch.outer(tent, tent).expand(x.shape[1], 1, 3, 3)
        return conv2d(pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=x.shape[1])

    shift, scale = (torch.tensor(v)[:, None, None] for v in (_SHIFT, _SCALE))
    first = relu(halve(conv((picture - shift) / scale, "slice1.0", 2)))
    second = relu(conv(halve(max_pool2d(first, 3, 1)), "slice2.5", 2))
    third = relu(conv(halve(max_pool2d(second, 3, 1)), "slice3.9", 1))
    fourth = relu(conv(third, "slice4.11", 1))
    return [first, second, third, fourth, relu(conv(fourth, "slice5.13", 1))]


@lru_cache(maxsize=1)
def _weights() -> dict[str, torch.Tensor]:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"{NAME} needs the package {PACKAGE}: pip install 'raytrace-face[perceptual]'")
    path = Path(spec.submodule_search_locations[0]) / FILE
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        digest = ""
    if digest != SHA256:
        raise InputError(f"{str(path)!r} is missing or not that of version 0.0.2: pip install {PACKAGE}==0.0.2")
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)
