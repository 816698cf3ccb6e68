"""The formulas of csrc/math/ for Triton: a file for each header, under its name, with its functions.

The derivations stand in the headers. A formula here takes tensors of float32 or float64, of any shape. Kernels are
launched with contraction off (launch in _triton.py), so that a formula rounds as the native one does; where a fused
step is wanted, tl.fma says so.
"""
