"""Thresholds of the claims and their premises, fixed before any run (but see README.md)."""

# A difference of CKA that matters: the pass criterion suggested by the released plot (0.70 - 0.51).
CKA_GAP = 0.1
STAGE13_RATIO = 2.0  # the released plot has .56 / .27
SIGNIFICANT = 0.05  # reached by three against three seeds only if they separate
BLOCK_RATIO = 0.5  # "disappears": at most half of the block index is left
UNCHANGED = 0.9  # CKA of early layers, benign with adversarial, that "hardly change"
DEEPER = 1.5  # deeper layers change this many times more than early ones
SMALL_TREND = 0.02  # rise of mean CKA over a sweep, at least, besides two standard errors
STILL_ALIKE = 0.6  # "still high" CKA between lp and transformation threat models
RANKS_AGREE = 0.7  # Spearman correlation of two measures' grids
ABSOLUTE = 0.1  # tolerance around digitised values, for the same network and data
AMPLIFIED = 0.02  # rise of mean off-diagonal CKA by training, besides two standard errors
COMPONENT = 0.5  # blocks rest on a component without which at most half of the index is left
# Added after the first run of cpu-full had been seen, before that of cpu-full-tiny.
BEYOND_ORDINARY = 1.5  # the ratio of stages under overfitting, times that of ordinary training
# Premises.
ROBUSTNESS_GAIN = 0.1  # robust accuracy of a robust network above that of a standard one
OVERFITTED = 0.01  # loss of robust accuracy after the best epoch, besides two standard errors
PROVOKED = 0.05  # the same where overfitting was provoked
PUBLISHED_OFF_DIAGONAL = {"standard": 0.507, "robust": 0.698}
