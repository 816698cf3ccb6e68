"""The formulas in plain PyTorch: oracle_*.py, which the tests trust; measured.py, which the benchmarks compare with."""
