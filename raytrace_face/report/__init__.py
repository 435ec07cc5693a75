"""`report.html`: a reconstruction as one offline page, with the face in 3D and the light stage live."""

from raytrace_face.report.page import write

__all__ = ["write"]
