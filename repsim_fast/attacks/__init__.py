"""Attacks: callables (model, x, y) -> x_adv that leave the model exactly as it was."""

from .adapters import adapt
from .apgd import APGD, APGDTargeted
from .autoattack import AutoAttack
from .corruptions import Corruption
from .execution.options import Execution, ExecutionReport
from .fgsm import FGSM, MIFGSM, NFGSM, RSFGSM
from .pgd import PGD
from .transforms import GaborAttack, JPEGAttack, RotationTranslation, SnowAttack

__all__ = [
    "APGD",
    "FGSM",
    "MIFGSM",
    "NFGSM",
    "PGD",
    "RSFGSM",
    "APGDTargeted",
    "AutoAttack",
    "Corruption",
    "Execution",
    "ExecutionReport",
    "GaborAttack",
    "JPEGAttack",
    "RotationTranslation",
    "SnowAttack",
    "adapt",
]
