"""Measures: light, images, depth and geometry against a truth. Functions of arrays; only `appearance.transfer` renders."""
