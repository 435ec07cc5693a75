"""Benchmarks as data: a folder with `benchmark.toml` and files, scored item by item for any method."""
