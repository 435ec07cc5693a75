"""A model that somebody brings, made complete: frame, correspondence, parts, regions, texture, expressions, landmarks."""

from raytrace_face.adopt.adopt import adopt

__all__ = ["adopt"]
