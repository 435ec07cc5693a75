"""The encoder: from one photo to a face in one pass of a network, taught through the tracer (docs/encoder.md)."""
