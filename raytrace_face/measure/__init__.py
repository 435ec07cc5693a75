"""Measures: light, images, depth and geometry against a truth. Only `appearance.transfer` renders."""
