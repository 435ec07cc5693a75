"""Laying an edit into the photograph: by the change between two renderings, in linear light."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from raytrace_face.capture.colour import linear_to_srgb, luminance
from raytrace_face.edit.trace import surface, window_camera
from raytrace_face.face.model import PARTS
from raytrace_face.result import Reconstruction
from raytrace_face.types import Array, Window

FEATHER_MM = 10.0
"""Over which an edit fades into neck, ears and hair: wide enough to hide a seam, narrow enough to stay on the head."""
OUTLINE_PX = 2.0
"""Over which it fades towards the head's outline, which the geometry knows to about a pixel."""
PATCH_MM = 6.0
"""Radius over which the skin around eyes, teeth and mouth lends them its change: their own materials and shapes are not
the photo's."""
MARGIN_MM = 2.0
"""How far an eyelid or a lip of the model may lie beside the photo's."""
BRIGHTEST = 1.8
"""How much brighter than the skin around what borrows its change may become: the white of an eye, fair skin. An eye
that was not in the shadow that was traced would else be lit twice."""
GRAZING = (0.15, 0.4)
"""Cosine between normal and view from which on a pixel begins to be, and is wholly, its own."""
DETAIL_RANGE = 0.7
"""Log ratio of photo to rendering up to which it is detail of this face, e^0.7 = 2; beyond, the model is wrong here."""
TEXTURE = 0.12
"""Log ratio up to which what is finer than the maps is texture (pores, stubble) that stays under any light; beyond, it
is the edge of a shadow that the model has elsewhere."""
FINE_MM = 0.5
"""Radius below which detail is finer than the maps (a texel is about 0.5 mm): coarser detail was the fit's to explain,
and what it left over does not hold under another light (docs/edits.md has what that costs)."""
DARK = 0.01
"""Added before dividing, relative to the mean of the old rendering."""
VISIBLE = 1 / 255
"""Change of an sRGB-encoded channel that counts as a change."""


def face_matte(result: Reconstruction, size: int) -> Array:
    """(S, S) in [0, 1] where an edit shows: 1 on the fitted face, 0 on what is not the head.

    Eyes, mouth and other holes in the fitted face belong to it.
    """
    camera = window_camera(result, size)
    head = ndimage.binary_fill_holes(surface(result, camera).part.reshape(size, size) != 255)
    mm_per_px = float(-result.face.T_camera_head[2, 3]) / camera.focal_px
    face = _fitted_face(result, size) & head
    if not face.any():
        return np.zeros((size, size), np.float32)
    outside = ndimage.distance_transform_edt(~face) * mm_per_px
    return (_smooth(1 - outside / FEATHER_MM) * outline_fade(head) * _in_photo(result, size)).astype(np.float32)


def _fitted_face(result: Reconstruction, size: int) -> NDArray[np.bool_]:
    fitted = resized(result.pictures.mask, size) > 0.02
    return np.asarray(ndimage.binary_fill_holes(ndimage.binary_closing(fitted, iterations=3)), bool)


def _in_photo(result: Reconstruction, size: int) -> NDArray[np.bool_]:
    """(S, S) where the window shows the photo and not what lies beyond its border."""
    x, y = result.window.resized(size).to_photo(np.stack([np.arange(size) + 0.5] * 2, 1)).T
    inside = (y[:, None] > 0) & (y[:, None] < result.camera.height) & (x > 0) & (x < result.camera.width)
    return np.asarray(inside, bool)


def outline_fade(head: NDArray[np.bool_]) -> Array:
    """(S, S) rising from 0 at the outline of the head to 1 within it; the window's border is an outline, too."""
    inside = ndimage.distance_transform_edt(np.pad(head, 1))[1:-1, 1:-1]
    return _smooth((inside - 0.5) / OUTLINE_PX).astype(np.float32)


def borrowed(result: Reconstruction, size: int) -> Array:
    """(S, S) in [0, 1] how far a pixel takes its change from the skin around it instead of from its own rendering.

    1 on eyes, teeth and mouth, whose materials, shapes and exact places are not the photo's, and where the border of
    the face is seen at a grazing angle: there the renderings show an outline and a rim of highlights that the photo has
    elsewhere.
    """
    camera = window_camera(result, size)
    g = surface(result, camera)
    other = ((g.part != 255) & (g.part != PARTS.index("skin"))).reshape(size, size)
    mm_per_px = float(-result.face.T_camera_head[2, 3]) / camera.focal_px
    near = ndimage.distance_transform_edt(~other) * mm_per_px if other.any() else np.full(other.shape, np.inf)
    facing = (g.normal * g.view).sum(axis=1).reshape(size, size)
    low, high = GRAZING
    turned = np.where((g.part != 255).reshape(size, size), _smooth((high - facing) / (high - low)), 1)
    depth = ndimage.distance_transform_edt(_fitted_face(result, size)) * mm_per_px
    turned *= _smooth(2 - depth / FEATHER_MM)  # the wings of the nose are seen well enough
    return np.maximum(_smooth((2 * MARGIN_MM - near) / MARGIN_MM), turned).astype(np.float32)


def blend(
    photo: Array,
    old: Array,
    new: Array,
    matte: Array,
    borrow: Array,
    px_per_mm: float,
    replaced: Array | None = None,
    replacement: Array | None = None,
) -> Array:
    """The photo with the change from one rendering to another, (H, W, 3).

    With q = new / old, its median g over the head (another exposure or tint), r = min(q / g, g / q)^2 and trust t = r
    times the mean of r over the face, skin becomes

        new x detail + g t^2 (photo - old x detail),    log detail = t (fine + coarse) + (1 - t) texture,

    fine and coarse being the parts of log(photo / old), bounded, below and above `FINE_MM`, and texture the fine part
    without what exceeds `TEXTURE`. Equal renderings (t = g = 1) leave the photo as it is, in every bit. Another
    direction of the light shows the new rendering, with the texture that is too fine for the maps and without what the
    model gets wrong under the old light. Trust is of the whole face, too: where the model missed a shadow of the
    photo, both of its renderings are bright, and only the rest of the face tells that the light has changed.
    Where a pixel borrows, photo x q, with q of the skin around, and no brighter than that skin allows (`BRIGHTEST`).

    Args:
        photo, old, new: (H, W, 3) linear.
        matte: (H, W).
        borrow: (H, W) in [0, 1] where the skin around lends its change (`borrowed`).
        px_per_mm: pixels a millimetre at the head.
        replaced: (H, W) in [0, 1] where `replacement` (H, W, 3) is shown instead; None: nowhere.
    """

    def blurred(values: Array, radius_mm: float) -> Array:
        sigma = radius_mm * px_per_mm
        return np.asarray(ndimage.gaussian_filter(values, (sigma, sigma, 0)), np.float32)

    drawn = ((old.sum(axis=2) > 0) & (new.sum(axis=2) > 0))[..., None].astype(np.float32)
    floor = DARK * float(old[old > 0].mean()) if (old > 0).any() else 1.0
    delta = np.log((photo + floor) / (old + floor)).astype(np.float32)
    delta = drawn * delta / (1 + (delta / DETAIL_RANGE) ** 4)
    coarse = blurred(delta, FINE_MM) / np.maximum(blurred(drawn, FINE_MM), 1e-3)
    q = (new + floor) / (old + floor)
    g = np.median(q[drawn[..., 0] > 0], axis=0) if drawn.any() else np.ones(3, np.float32)
    trust = np.minimum(q / g, g / q) ** 2
    face = (drawn[..., 0] > 0) & (matte > 0.5)
    trust = trust * (float(trust[face].mean()) if face.any() else 1.0)
    fine = delta - coarse
    detail = np.exp(delta + (trust - 1) * (coarse + fine - fine / (1 + (fine / TEXTURE) ** 2)))
    skin = g * photo + (new - g * old) * detail - g * (photo - old * detail) * (1 - trust**2)

    lends = drawn * (1 - borrow[..., None])
    around = blurred(lends * new, PATCH_MM)
    other = photo * (around + 1e-6) / (blurred(lends * old, PATCH_MM) + 1e-6)
    limit = BRIGHTEST * luminance(around / np.maximum(blurred(lends, PATCH_MM), 1e-3))
    limit = np.maximum(limit, luminance(g * photo))
    other = other * np.minimum(limit / np.maximum(luminance(other), 1e-9), 1)[..., None]
    changed = np.maximum(skin + borrow[..., None] * (other - skin), 0)
    if replaced is not None and replacement is not None:
        changed = changed + replaced[..., None] * (replacement - changed)
    w = matte[..., None]
    return np.where(w > 0, photo + w * (changed - photo), photo).astype(np.float32)


def composite(
    result: Reconstruction,
    old: Array,
    new: Array,
    photo: Array | None = None,
    matte: Array | None = None,
    replaced: Array | None = None,
    replacement: Array | None = None,
) -> Array:
    """Lay the change between two renderings of the window (S, S, 3) into the photo.

    Args:
        photo: (H, W, 3) the whole photo; None: what the result keeps of it, on the window, as large as the renderings.
        matte: (S, S) where it shows; default `face_matte`.
        replaced: (S, S) in [0, 1] where `replacement` (S, S, 3) is shown instead; default nowhere.

    Returns:
        (H, W, 3) or (S, S, 3), equal to the photo in every bit where the matte is zero.
    """
    size = old.shape[0]
    px_per_mm = window_camera(result, size).focal_px / float(-result.face.T_camera_head[2, 3])
    where = face_matte(result, size) if matte is None else matte
    borrow = borrowed(result, size)
    if photo is None:
        return blend(resized(result.pictures.photo, size), old, new, where, borrow, px_per_mm, replaced, replacement)
    window = result.window.resized(size)
    top, left, height, width = _covered(window, photo.shape[:2])
    if not (height and width):
        return photo
    box = np.s_[top : top + height, left : left + width]

    def onto(values: NDArray[np.floating]) -> Array:
        return _sampled(values, window, top, left, height, width)

    at_photo = px_per_mm * window.side_px / size
    shown, instead = (None if x is None else onto(x) for x in (replaced, replacement))
    edited = blend(photo[box], onto(old), onto(new), onto(where), onto(borrow), at_photo, shown, instead)
    out = photo.copy()
    out[box] = edited
    return out


def resized(image: NDArray[np.floating], size: int) -> Array:
    """A square picture (S, S) or (S, S, C) at another size, bilinear; itself when the size is its own."""
    if image.shape[0] == size:
        return np.asarray(image, np.float32)
    return _sampled(image, Window(0, 0, size, image.shape[0]), 0, 0, size, size)


def changed_share(photo: Array, edited: Array, matte: Array) -> float:
    """Share of the face's pixels (matte > 0.5) of which a channel changed by more than one 8-bit sRGB code."""
    face = matte > 0.5
    if not face.any():
        return 0.0
    before, after = (linear_to_srgb(np.clip(x[face], 0, 1)) for x in (photo, edited))
    return float((np.abs(after - before).max(axis=1) > VISIBLE).mean())


def luminance_ratio(above: Array, below: Array) -> Array:
    """(S, S) luminance of one rendering over another's; 1 where both are dark."""
    floor = 1e-3 * float(luminance(below).mean()) + 1e-9
    return (luminance(above) + floor) / (luminance(below) + floor)


def _covered(window: Window, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Top, left, height and width of the photo's pixels whose centres lie in the window."""
    low = [max(int(np.ceil(edge - 0.5)), 0) for edge in (window.top_px, window.left_px)]
    high = [
        min(int(np.ceil(edge + window.side_px - 0.5)), n)
        for edge, n in zip((window.top_px, window.left_px), shape, strict=True)
    ]
    return low[0], low[1], max(high[0] - low[0], 0), max(high[1] - low[1], 0)


def _sampled(values: NDArray[np.floating], window: Window, top: int, left: int, height: int, width: int) -> Array:
    """A picture on the window, bilinearly at a block of the photo's pixels."""
    scale = window.size / window.side_px
    rows = (top + np.arange(height) + 0.5 - window.top_px) * scale - 0.5
    columns = (left + np.arange(width) + 0.5 - window.left_px) * scale - 0.5
    at = np.meshgrid(rows, columns, indexing="ij")
    planes = np.asarray(values, np.float32).reshape(*values.shape[:2], -1)
    out = [ndimage.map_coordinates(planes[..., c], at, order=1, mode="nearest") for c in range(planes.shape[2])]
    return np.stack(out, -1).reshape(height, width, *values.shape[2:])


def _smooth(x: NDArray[np.floating]) -> NDArray[np.floating]:
    """Smoothstep of [0, 1]."""
    t = np.clip(x, 0, 1)
    return t * t * (3 - 2 * t)
