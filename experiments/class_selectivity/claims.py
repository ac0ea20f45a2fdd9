"""The paper's claims, and two of our own.

Sources: READ are abstracts, the authors' site and its picture of accuracy against selectivity
(digitised); RECALLED is what the papers are remembered to say; OURS is no claim of theirs.
"""

from __future__ import annotations

from experiments.lab.claims import SIGMAS, Claim

from . import judges
from .thresholds import (
    ABSOLUTE,
    APART,
    COST,
    DIMENSIONS,
    EXPLAINED,
    HALVED,
    MOVED,
    NO_LOSS,
    VARIATION,
)

_NOISE = f"and {SIGMAS:g} se over seeds"

CLAIMS = (
    Claim(
        "selectivity can be reduced twofold without loss of accuracy",
        "READ (abstract: 2.5 times, ResNet-20 on CIFAR-10), DIGITISED (alpha -2: .155 / .346)",
        f"alpha low / 0 <= {HALVED}, accuracy lost <= {NO_LOSS}",
        "Q1", "Q1_accuracy.csv", judges.halved,
    ),
    Claim(
        "increased selectivity costs accuracy",
        "READ (abstract), DIGITISED (alpha 2: -4.5 points)",
        f"accuracy at alpha high below that at 0 by > {COST} {_NOISE}",
        "Q1", "Q1_accuracy.csv", judges.costs,
    ),
    Claim(
        "reduced selectivity raises accuracy on Tiny ImageNet",
        "READ (abstract: more than 2 points), DIGITISED (alpha -2: +1.5)",
        f"accuracy at alpha low above that at 0 by > {COST} {_NOISE}",
        "Q1", "Q1_accuracy.csv", judges.gains,
    ),
    Claim(
        "absolute values of the published curve",
        "DIGITISED (ResNet-18, Tiny ImageNet)",
        f"mean selectivity at each alpha within {ABSOLUTE}",
        "Q1", "Q1_accuracy.csv", judges.absolute,
    ),
    Claim(
        "low selectivity: robust to corruptions",
        "READ (abstract, site)",
        f"mean corrupted accuracy at alpha low above that at high by > {COST} {_NOISE}",
        "Q2", "Q2_corruptions.csv", judges.corrupted,
    ),
    Claim(
        "low selectivity: robust to corruptions, also over clean accuracy",
        "RECALLED hi",
        f"corrupted over clean accuracy, low above high by > {COST} {_NOISE}",
        "Q2", "Q2_corruptions.csv", judges.relative,
    ),
    Claim(
        "high selectivity: robust to PGD",
        "READ (abstract, site: direction), RECALLED hi (attack)",
        f"mean accuracy over radii at alpha high above that at low by > {COST} {_NOISE}",
        "Q3", "Q3_attacks.csv", judges.pgd,
    ),
    Claim(
        "high selectivity: robust to FGSM",
        "READ (abstract, site: direction), RECALLED hi (attack)",
        f"mean accuracy over radii at alpha high above that at low by > {COST} {_NOISE}",
        "Q3", "Q3_attacks.csv", judges.fgsm,
    ),
    Claim(
        "low selectivity: larger input-output Jacobians",
        "RECALLED hi",
        f"mean log norm at alpha low above that at high by more than 0 {_NOISE}",
        "Q3", "Q3_attacks.csv", judges.jacobian,
    ),
    Claim(
        "dimensionality of early layers is inversely related to selectivity",
        "READ (abstract), RECALLED med (components for 95 %)",
        f"share of units, early third of ReLUs, low above high by > {DIMENSIONS} {_NOISE}",
        "Q4", "Q4_dimensions.csv", judges.dimensions,
    ),
    Claim(
        "dimensionality of the adversarial change grows as selectivity falls",
        "READ (abstract of 2007.04440)",
        f"share of units, early third of ReLUs, low above high by > {DIMENSIONS} {_NOISE}",
        "Q4", "Q4_dimensions.csv", judges.change_of_dimensions,
    ),
    Claim(
        "adversarial samples change early layers in more dimensions than corrupted ones",
        "READ (abstract)",
        f"adversarial minus corrupted at alpha 0 above 0 {_NOISE}",
        "Q4", "Q4_dimensions.csv", judges.adversarial_dimensions,
    ),
    Claim(
        "high selectivity: gradients of units vary more across samples",
        "READ (abstract), reduction not found: ours",
        f"mean coefficient of variation, high above low by > {VARIATION} {_NOISE}",
        "Q5", "Q5_gradients.csv", judges.across_samples,
    ),
    Claim(
        "high selectivity: gradients vary more across units",
        "READ (abstract), reduction not found: ours",
        f"mean coefficient of variation, high above low by > {VARIATION} {_NOISE}",
        "Q5", "Q5_gradients.csv", judges.across_units,
    ),
    Claim(
        "training against attacks increases selectivity",
        "READ (site), RECALLED hi (PGD)",
        f"mean selectivity minus that of standard networks > {MOVED} {_NOISE}",
        "Q6", "Q6_methods.csv", judges.against_attacks,
    ),
    Claim(
        "training against corruptions reduces selectivity",
        "READ (site), RECALLED hi (AugMix)",
        f"mean selectivity below that of standard networks by > {MOVED} {_NOISE}",
        "Q6", "Q6_methods.csv", judges.against_corruptions,
    ),
    Claim(
        "networks of low and of high selectivity represent images differently",
        "OURS",
        f"same-layer CKA below that of two seeds by > {APART} and {SIGMAS:g} se",
        "Q7", "Q7_groups.csv", judges.apart,
    ),
    Claim(
        "selectivity explains in which layers robust networks differ from standard ones",
        "OURS",
        f"rank correlation over layers of its change and 1 - CKA > {EXPLAINED} {_NOISE}",
        "Q7", "Q7_layers.csv", judges.explained,
    ),
)  # fmt: skip
