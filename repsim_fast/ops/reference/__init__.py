"""Plain-torch versions of the operators, in the dtype of their input: float64 in, float64 out.

Written for clarity. The tests' oracle; those of attack steps also serve devices without kernels.
"""
