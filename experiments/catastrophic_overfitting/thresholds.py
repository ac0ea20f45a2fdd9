"""Thresholds of the claims and their premises, fixed before any run."""

# Collapsed: less than LEFT of clean accuracy is left against many steps (healthy networks keep .5,
# published) while one step seems to leave SEEMS of it. A network too weak for its radius resists
# neither and has not collapsed.
LEFT, SEEMS = 0.2, 0.5
SUFFICIENT = 0.8  # robust accuracy where the feature suffices; published near 1
ONSET = (1.3, 1.5)  # beta / eps, digitised
END = (2.5, 3.0)
JUMP = 0.05  # rise of clean accuracy at onset; published .10
RISE = 0.02  # of robust accuracy up to the last amplitude before; published .03 to .05
USED = 0.5  # share of its clean accuracy that a network keeps without the feature
TURNED = 0.2  # rise, across the collapse, of the share that follows another class's feature
ALIGNED, MISALIGNED = 0.5, 0.2  # gradient cosine before and after; published .95 and .05
SAME_WAY, OTHER_WAY = 0.4, 0.2  # of perturbations; published .76 and .05
EXPLODED = 5.0  # curvature after / before
CHANGED = 0.1  # 1 - CKA across the collapse beyond that of the same epochs without
DEEPER = 0.1  # the same of the last block beyond that of the first
