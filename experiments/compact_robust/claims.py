"""The papers' claims, and some of our own.

Sources: READ are abstracts and the authors' published table (of 2020); RECALLED is what the papers
are remembered to say; OURS is no claim of theirs.
"""

from __future__ import annotations

from experiments.lab.claims import SIGMAS, Claim

from . import judges
from .thresholds import (
    ABSOLUTE,
    APART,
    COST,
    GAPS,
    KEPT,
    KEPT_LEARNED,
    OTHER_LAYERS,
    USED,
)

_NOISE = f"and {SIGMAS:g} se over networks"
_GAPS = ", ".join(f"{gap:g} at {sparsity}" for sparsity, gap in GAPS.items())

CLAIMS = (
    Claim(
        "tenfold compression keeps benign accuracy",
        "READ (abstract, 2019: 93 % on average)",
        f"pruned / unpruned, magnitude, mean over networks >= {KEPT['benign']}",
        "Q1", "Q1_kept.csv", judges.benign_kept,
    ),
    Claim(
        "tenfold compression keeps empirically robust accuracy",
        "READ (abstract, 2019: 92.5 % on average)",
        f"pruned / unpruned, magnitude, mean over networks >= {KEPT['era']}",
        "Q1", "Q1_kept.csv", judges.era_kept,
    ),
    Claim(
        "tenfold compression keeps verifiably robust accuracy",
        "READ (abstract, 2019: 85 % on average)",
        f"pruned / unpruned, magnitude, mean over networks >= {KEPT['vra']}",
        "Q1", "Q1_kept.csv", judges.vra_kept,
    ),
    Claim(
        "learned scores keep more of it",
        "READ (table, 2020: 95.4 and 96.5 % of era)",
        f"pruned / unpruned era, learned scores, mean over networks >= {KEPT_LEARNED}",
        "Q1", "Q1_kept.csv", judges.era_kept_by_scores,
    ),
    Claim(
        "pre-training must have the robust objective",
        "READ (abstract, 2019)",
        f"era, robust throughout above standard pre-training by > {COST} {_NOISE}",
        "Q2", "Q2_objectives.csv", judges.objective_before,
    ),
    Claim(
        "fine-tuning must have the robust objective",
        "READ (abstract, 2019)",
        f"era, robust throughout above standard fine-tuning by > {COST} {_NOISE}",
        "Q2", "Q2_objectives.csv", judges.objective_after,
    ),
    Claim(
        "learned scores are better than magnitude at the highest sparsity",
        "READ (abstract and table, 2020)",
        f"era, learned minus magnitude, > {COST} {_NOISE}",
        "Q3", "Q3_gaps.csv", judges.scores_win,
    ),
    Claim(
        "the gap grows with sparsity",
        f"READ (table, 2020: {_GAPS})",
        f"gap in era at the highest sparsity minus that at the focus > {COST} {_NOISE}",
        "Q3", "Q3_gaps.csv", judges.gap_grows,
    ),
    Claim(
        "absolute values of the gap",
        "READ (table, 2020, WRN-28-4 on CIFAR-10)",
        f"{_GAPS}, each within {ABSOLUTE}",
        "Q3", "Q3_gaps.csv", judges.published_gaps,
    ),
    Claim(
        "pruning filters costs far more robustness than pruning weights",
        "RECALLED med",
        f"era, weights minus filters of the same share, > {COST} {_NOISE}",
        "Q4", "Q4_filters.csv", judges.filters_cost,
    ),
    Claim(
        "pruning round by round is better than at once",
        "RECALLED med",
        f"era at the highest sparsity, as many epochs, difference > {COST} {_NOISE}",
        "Q5", "Q5_rounds.csv", judges.rounds_win,
    ),
    Claim(
        "pruning changes representations more than further training does",
        "OURS",
        f"same-layer CKA with the robust network, trained further minus pruned, > {APART} {_NOISE}",
        "Q6", "Q6_similarity.csv", judges.beyond_training,
    ),
    Claim(
        "pruning changes robust networks more than standard ones",
        "OURS",
        f"same-layer CKA of unpruned and pruned, standard minus robust, > {APART} {_NOISE}",
        "Q6", "Q6_similarity.csv", judges.robust_changes_more,
    ),
    Claim(
        "robust networks lose other layers than standard ones",
        "OURS",
        f"rank correlation over layers of 1 - CKA below {OTHER_LAYERS} by {SIGMAS:g} se",
        "Q6", "Q6_layers.csv", judges.other_layers,
    ),
    Claim(
        "pruned networks are more class-selective",
        "OURS",
        f"mean selectivity, pruned minus trained further, > {APART} {_NOISE}",
        "Q6", "Q6_units.csv", judges.selective,
    ),
    Claim(
        "pruned networks have fewer dimensions",
        "OURS",
        f"components for 95 %, share of units, pruned below trained further by > {APART} {_NOISE}",
        "Q6", "Q6_units.csv", judges.low_dimensional,
    ),
    Claim(
        "attacks on standard networks go through weights that pruning takes away",
        "OURS",
        f"share of the change they carry, attack minus images, > {USED} {_NOISE}",
        "Q6", "Q6_carried.csv", judges.used_in_standard,
    ),
    Claim(
        "attacks on robust networks go through weights that pruning takes away",
        "OURS",
        f"share of the change they carry, attack minus images, > {USED} {_NOISE}",
        "Q6", "Q6_carried.csv", judges.used_in_robust,
    ),
)  # fmt: skip
