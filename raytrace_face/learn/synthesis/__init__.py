"""Labelled photos from our own tracer: random people under one light at a time, photographed anew in every epoch."""
