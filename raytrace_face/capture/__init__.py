"""From a picture file to what the fit needs: linear light, landmarks, expression weights, segmentation.

>>> photo = load_photo("portrait.jpg")          # doctest: +SKIP
>>> seen = capture(photo)                       # doctest: +SKIP
>>> pixels, valid = resample(photo.linear, seen.window)  # doctest: +SKIP
"""

from raytrace_face.capture.colour import linear_to_srgb, luminance, srgb_to_linear
from raytrace_face.capture.landmarks import Face, capture, detect_faces, segmented, sight
from raytrace_face.capture.photo import load_photo, photo_from_array
from raytrace_face.capture.segmentation import CLASSES, resample, segment

__all__ = [
    "CLASSES",
    "Face",
    "capture",
    "detect_faces",
    "linear_to_srgb",
    "load_photo",
    "luminance",
    "photo_from_array",
    "resample",
    "segment",
    "segmented",
    "sight",
    "srgb_to_linear",
]
