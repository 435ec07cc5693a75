"""A model that somebody brings, made complete: frame, parts, regions, texture, expressions, landmarks."""

from raytrace_face.adopt.complete import adopt

__all__ = ["adopt"]
