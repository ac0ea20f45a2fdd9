"""Attacks that transform images instead of adding a small perturbation.

The threat models of Kang et al., "Testing robustness against unforeseen adversaries" (2019), with
the settings used by Cianfarani et al. (2022) as defaults.
"""

from .gabor import GaborAttack
from .jpeg import JPEGAttack
from .snow import SnowAttack
from .spatial import RotationTranslation

__all__ = ["GaborAttack", "JPEGAttack", "RotationTranslation", "SnowAttack"]
