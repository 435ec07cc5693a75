"""Edits of a reconstruction: pure functions, Reconstruction in, Reconstruction or picture out (docs/edits.md).

Pictures are linear Rec. 709. Every change is traced; the photograph keeps what the edit does not touch.
"""
