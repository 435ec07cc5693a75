"""Measures: light, images and geometry against a truth. Pure functions on arrays; no renderer."""
