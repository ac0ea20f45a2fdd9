"""Plain-torch versions of the operators, in the dtype of their input: float64 in, float64 out."""
