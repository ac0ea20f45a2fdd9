"""The paper's claims.

Sources: READ are the abstract, the caption of Figure 2, a published review digest and the released
plot for WRN-28-4 on CIFAR-10 (digitised); RECALLED is what the paper is remembered to say.
"""

from __future__ import annotations

from experiments.lab.claims import SIGMAS, Claim

from . import judges
from .thresholds import (
    ABSOLUTE,
    AMPLIFIED,
    BEYOND_ORDINARY,
    BLOCK_RATIO,
    CKA_GAP,
    COMPONENT,
    DEEPER,
    PROVOKED,
    RANKS_AGREE,
    SIGNIFICANT,
    SMALL_TREND,
    STAGE13_RATIO,
    STILL_ALIKE,
    UNCHANGED,
)

CLAIMS = (
    Claim(
        "robust layers are less specialised: cross-layer similarity is amplified",
        "READ (abstract, Fig. 2a-c)",
        f"mean off-diagonal CKA robust - standard > {CKA_GAP}",
        "Q1", "Q1_differences.csv", judges.off_diagonal,
    ),
    Claim(
        "stage 1 stays similar to stage 3",
        "DIGITISED (released plot: .56 / .27)",
        f"stage 1-3 mean CKA, robust / standard >= {STAGE13_RATIO}",
        "Q1", "Q1_differences.csv", judges.stage13,
    ),
    Claim(
        "similarity is amplified even at long range",
        "READ (Fig. 2 caption)",
        f"layers half a network apart: robust - standard > {CKA_GAP}",
        "Q1", "Q1_differences.csv", judges.long_range,
    ),
    Claim(
        "the block structure of standard networks disappears",
        "READ (abstract, Fig. 2)",
        f"block index robust <= {BLOCK_RATIO} x standard, p over seeds <= {SIGNIFICANT}",
        "Q9", "Q9_tests.csv", judges.blocks,
    ),
    # The index above is blind to the published maps' own blocks: a stage's first norm and ReLU
    # show what the stage before made. Those below tell these maps apart (test_blocks.py).
    Claim(
        "block structure disappears, layers by the stage that made what they show",
        "READ (abstract, Fig. 2)",
        f"that block index robust <= {BLOCK_RATIO} x standard, p over seeds <= {SIGNIFICANT}",
        "Q9", "Q9_tests.csv", judges.blocks_of_makers,
    ),
    Claim(
        "block structure disappears from the residual stream",
        "READ (abstract, Fig. 2), DIGITISED (.135 / -.049)",
        f"block index of the stream robust <= {BLOCK_RATIO} x standard, "
        f"p over seeds <= {SIGNIFICANT}",
        "Q9", "Q9_tests.csv", judges.blocks_of_stream,
    ),
    Claim(
        "sudden borders in the residual stream of standard networks, none in robust ones",
        "READ (Fig. 2), found without stages",
        f"p of a border <= {SIGNIFICANT} in every standard network and in no robust one",
        "Q9", "Q9_borders.csv", judges.borders,
    ),
    Claim(
        "blocks of standard networks rest on a dominant first component",
        "READ (Nguyen et al., 2021 and 2022: wide or deep networks)",
        f"block index of the stream without it <= {COMPONENT} x as it is",
        "Q9", "Q9_components.csv", judges.component,
    ),
    Claim(
        "robust training amplifies similarity across layers, rather than keeping it",
        "READ (Fig. 2 caption: amplified)",
        f"mean off-diagonal CKA, robust trained - untrained > {AMPLIFIED} and {SIGMAS:g} se",
        "Q7", "Q7_structure.csv", judges.amplified,
    ),
    Claim(
        "similarity between a standard and a robust network is poor",
        "READ (Fig. 2d)",
        f"same-layer CKA below both seed-to-seed values by > {CKA_GAP}",
        "Q1", "Q1_same_layer.csv", judges.between_kinds,
    ),
    Claim(
        "absolute values of the released plot",
        "DIGITISED (WRN-28-4, CIFAR-10)",
        f"mean off-diagonal .507 and .698, within {ABSOLUTE}",
        "Q1", "Q1_structure.csv", judges.absolute,
    ),
    Claim(
        "early layers of robust networks hardly change between benign and perturbed inputs",
        "READ (review digest)",
        f"stage 1 CKA at the training radius >= {UNCHANGED}",
        "Q2", "Q2_over_seeds.csv", judges.hardly_change,
    ),
    Claim(
        "benign-adversarial CKA falls with depth much more in standard networks",
        "RECALLED med",
        f"fall stage 1 to 3, standard - robust > {CKA_GAP} and {SIGMAS:g} se",
        "Q2", "Q2_over_seeds.csv", judges.fall,
    ),
    Claim(
        "exact drops of benign-adversarial CKA",
        "RECALLED lo",
        "none stated",
        "Q2", "Q2_stages.csv", judges.exact_drops,
    ),
    Claim(
        "overfitting in robust training mostly hits deeper layers",
        "READ (abstract)",
        f"change of stage 3, best to last epoch, >= {DEEPER} x that of stage 1",
        "Q3", "Q3_change.csv", judges.deeper_overfit,
    ),
    Claim(
        "overfitting of 5 points, provoked, mostly hits deeper layers",
        "READ (abstract)",
        f"robust accuracy falls by {PROVOKED}; change of stage 3 >= {DEEPER} x that of stage 1",
        "Q3", "Q3_change.csv", judges.deeper_provoked,
    ),
    # Training changes deeper layers more in any case, also while robust accuracy rises.
    Claim(
        "overfitting hits deeper layers more than the end of ordinary robust training does",
        "READ (abstract), against a control",
        f"stage 3 / stage 1 of the change >= {BEYOND_ORDINARY} x without overfitting, and "
        f"{SIGMAS:g} se",
        "Q3", "Q3_change.csv", judges.deeper_than_ordinary,
    ),
    Claim(
        "networks trained against different threat models have similar representations",
        "READ (review digest)",
        f"same-layer CKA within {CKA_GAP} of seed to seed, and above that with standard",
        "Q6", "Q6_groups.csv", judges.threats,
    ),
    Claim(
        "threat models that look different (snow, jpeg, gabor, tr) still give high CKA with lp",
        "RECALLED med",
        f"mean same-layer CKA >= {STILL_ALIKE}",
        "Q6", "Q6_groups.csv", judges.transformations,
    ),
    Claim(
        "such pairs are more alike than robust and standard networks",
        "RECALLED med, against a control",
        f"mean same-layer CKA above that with the standard network by > {SMALL_TREND} and "
        f"{SIGMAS:g} se over images",
        "Q6", "Q6_groups.csv", judges.above_standard,
    ),
    Claim(
        "more width raises cross-layer similarity",
        "RECALLED med",
        f"widest - narrowest robust network > {SMALL_TREND}, {SIGMAS:g} se and "
        f"{SIGMAS:g} sd from seed to seed",
        "Q4", "Q4_trends.csv", judges.width,
    ),
    Claim(
        "a larger training radius raises cross-layer similarity",
        "RECALLED med",
        f"largest - smallest radius > {SMALL_TREND}, {SIGMAS:g} se and "
        f"{SIGMAS:g} sd from seed to seed",
        "Q5", "Q5_trend.csv", judges.radius,
    ),
    Claim(
        "early layers converge first in robust training",
        "RECALLED med",
        f"first kept epoch: stage 1 nearer its end than stage 3 by > {SMALL_TREND} and "
        f"{SIGMAS:g} se",
        "Q7", "Q7_stages.csv", judges.converge,
    ),
    # Untrained, the first stage is nearer its end already.
    Claim(
        "early layers converge first, of the way that each has to go",
        "RECALLED med, against untrained networks",
        f"first kept epoch: share of the way, stage 1 minus stage 3 > {SMALL_TREND} and "
        f"{SIGMAS:g} se",
        "Q7", "Q7_stages.csv", judges.converge_by_share,
    ),
    Claim(
        "CCA, SVCCA, PWCCA and Procrustes agree with CKA",
        "RECALLED med",
        f"rank correlation of each grid >= {RANKS_AGREE}",
        "Q8", "Q8_rank_correlations.csv", judges.measures,
    ),
    Claim(
        "published maps show each norm layer as the ReLU after it (in-place ReLU)",
        "READ (released code), DIGITISED",
        "rows equal with their hooks, different when cloned",
        "Q9", "Q9_in_place.csv", judges.in_place,
    ),
)  # fmt: skip
