"""The encoder: one pass of a network from photo to face, trained on traced photos and through the tracer."""
