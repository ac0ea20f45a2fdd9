"""Thresholds of the claims and their premises, fixed before any run."""

HALVED = 0.5  # selectivity at alpha low, as a share of that at 0: the digitised curve has 0.45
NO_LOSS = 0.01  # accuracy that may be lost meanwhile
COST = 0.01  # accuracy that is lost, or gained, at least, besides two standard errors
DIMENSIONS = 0.02  # difference of components for 95 % of variance, as a share of the units
VARIATION = 0.02  # difference of a coefficient of variation
MOVED = 0.01  # change of mean selectivity by robust training
APART = 0.1  # same-layer CKA of two alphas below that of two seeds
EXPLAINED = 0.5  # rank correlation over layers
ABSOLUTE = 0.1  # tolerance around digitised selectivity, for the same network and data
# Premises.
SPREAD = 0.1  # selectivity at alpha high above that at low
STILL_WORKS = 0.8  # accuracy at an alpha, as a share of that at 0, for its robustness to count
# Leavitt & Morcos, 2020, ResNet-18 on Tiny ImageNet, by alpha (digitised, +-0.01).
PUBLISHED = {"-2": 0.155, "-1": 0.22, "0": 0.346, "0.3": 0.53, "1": 0.78, "2": 0.88}
