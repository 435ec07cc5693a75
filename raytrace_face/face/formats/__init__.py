"""Readers of published face models: each makes a `RawModel` of one file or folder, or refuses it by name."""
