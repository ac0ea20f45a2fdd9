"""The claims: what was expected, before the run, and which judge decides."""

from __future__ import annotations

from experiments.lab.claims import SIGMAS, Claim

from . import judges
from . import thresholds as t

CLAIMS = (
    Claim(
        "the feature alone induces the collapse",
        "READ (abstract)",
        "at the radius of focus no network collapses without it, all of an amplitude do",
        "Q1", "Q1_scores.csv", judges.induced,
    ),
    Claim(
        "a strong feature suffices: robust again",
        "DIGITISED (Fig. 1)",
        f"largest amplitude: robust accuracy >= {t.SUFFICIENT}",
        "Q1", "Q1_scores.csv", judges.suffices,
    ),
    Claim(
        "onset at an amplitude of 1.3 to 1.5 radii",
        "DIGITISED (Fig. 1)",
        "the two amplitudes around it reach into that range, at every radius that has one",
        "Q1", "Q1_scores.csv", judges.onset,
    ),
    Claim(
        "end at an amplitude of 2.5 to 3 radii",
        "DIGITISED (Fig. 1)",
        "the two amplitudes around it reach into that range, at every radius that has one",
        "Q1", "Q1_scores.csv", judges.end,
    ),
    Claim(
        "clean accuracy jumps at the onset",
        "DIGITISED (Fig. 1: 86.9 to 97.0, 88.4 to 98.3)",
        f"rise > {t.JUMP} and {SIGMAS:g} se",
        "Q1", "Q1_clean.png", judges.jump,
    ),
    Claim(
        "robust accuracy rises before the onset",
        "DIGITISED (Fig. 1: 54.6 to 57.7, 41.8 to 47.1)",
        f"rise from no feature > {t.RISE} and {SIGMAS:g} se",
        "Q1", "Q1_robust.png", judges.rise,
    ),
    Claim(
        "at the smallest radius nothing collapses",
        "DIGITISED (Fig. 1, eps 2)",
        "no network of any amplitude",
        "Q1", "Q1_scores.csv", judges.small_radius,
    ),
    Claim(
        "PGD does not collapse where FGSM does",
        "RECALLED med", "no collapse where FGSM has one with every seed",
        "Q2", "Q2_scores.csv", judges.cure("pgd"),
    ),
    Claim(
        "N-FGSM and GradAlign keep from the collapse, up to some amplitude",
        "RECALLED med", "no collapse where FGSM has one with every seed",
        "Q2", "Q2_scores.csv", judges.cure("n-fgsm", "gradalign"),
    ),
    Claim(
        "before the collapse the network uses the images themselves",
        "RECALLED med",
        f"without the feature it keeps >= {t.USED} of its accuracy",
        "Q3", "Q3_along.csv", judges.uses_images_first,
    ),
    Claim(
        "after it, it follows the feature",
        "RECALLED med",
        f"images taken for the class of another class's feature: + {t.TURNED}",
        "Q3", "Q3_along.csv", judges.follows_feature,
    ),
    Claim(
        "gradients nearby lose their alignment",
        "READ (Andriushchenko & Flammarion, Fig. 4: .95 to .05)",
        f"cosine >= {t.ALIGNED} before, <= {t.MISALIGNED} after",
        "Q4", "Q4_along.csv", judges.misaligns,
    ),
    Claim(
        "perturbations of one step and of ten part",
        "READ (Andriushchenko & Flammarion, Fig. 4: .76 to .05)",
        f"cosine >= {t.SAME_WAY} before, <= {t.OTHER_WAY} after",
        "Q4", "Q4_along.csv", judges.perturbs_otherwise,
    ),
    Claim(
        "curvature explodes, and not under PGD",
        "RECALLED med",
        f"top eigenvalue after > {t.EXPLODED:g} times that before, and that of PGD",
        "Q4", "Q4_along.csv", judges.curvature,
    ),
    Claim(
        "features in the images' orthogonal complement induce no collapse",
        "RECALLED med", "no collapse where the same images in full have one with every seed",
        "Q5", "Q5_scores.csv", judges.without("feature", "feature, complement"),
    ),
    Claim(
        "low-pass images do not collapse, as published (rows only)",
        "RECALLED med", "no collapse where all frequencies have one with every seed",
        "Q5", "Q5_scores.csv", judges.without("no feature", "no feature, low pass of rows"),
    ),
    Claim(
        "low-pass images do not collapse, both axes",
        "asked here", "no collapse where all frequencies have one with every seed",
        "Q5", "Q5_scores.csv", judges.without("no feature", "no feature, low pass"),
    ),
    Claim(
        "representations change across the collapse more than in as many epochs without",
        "asked here",
        f"1 - CKA, mean over layers: beyond control > {t.CHANGED} and {SIGMAS:g} se",
        "Q6", "Q6_layers.csv", judges.changes,
    ),
    Claim(
        "the collapse changes the last block more than the first",
        "asked here",
        f"1 - CKA: difference > {t.DEEPER} and {SIGMAS:g} se",
        "Q6", "Q6_layers.csv", judges.deeper,
    ),
)  # fmt: skip
