"""A virtual light stage: area lights on a polyhedron round a subject, and the transport of their light.

Knows nothing about faces; works with any Mitsuba scene. `rig`, `solve` and `environment` are NumPy only;
`emitters` and `transport` need a Mitsuba `*_ad_rgb` variant to be active.
"""

from lightstage.rig import RIGS, AreaLights, Rig, StageLights, geodesic, rig

__all__ = ["RIGS", "AreaLights", "Rig", "StageLights", "geodesic", "rig"]
