"""How fast the program is, on the machine at hand: `python -m benchmarks.speed`. No part of the package."""
