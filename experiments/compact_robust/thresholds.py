"""Thresholds of the claims and their premises, fixed before any run."""

# Share of the unpruned network's accuracy that is kept at 10x compression (Sehwag et al., 2019).
KEPT = {"benign": 0.93, "era": 0.925, "vra": 0.85}
KEPT_LEARNED = 0.95  # of era by learned scores: 95.4 and 96.5 % (Sehwag et al., 2020)
COST = 0.01  # difference of accuracy, at least, besides two standard errors
# Learned scores minus magnitude, era of WRN-28-4 on CIFAR-10, by sparsity (Sehwag et al., 2020).
GAPS = {"0.9": 0.014, "0.95": 0.050, "0.99": 0.100}
ABSOLUTE = 0.03  # tolerance around them, for the same network and data
APART = 0.02  # difference of same-layer CKA, or of an index in [0, 1]
OTHER_LAYERS = 0.5  # rank correlation over layers, below which networks lose different ones
USED = 0.01  # share of the adversarial change that pruned weights carry, above that of images
# Premises.
MEASURABLE = 0.2  # accuracy of an unpruned network, above which a share of it counts as kept
ROBUST = 0.05  # era that training against attacks must have gained
LAYERS = 5  # that a rank correlation over layers takes
