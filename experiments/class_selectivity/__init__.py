"""Class selectivity, dimensionality and two kinds of robustness, after Leavitt & Morcos, 2020."""
