"""Attacks: callables (model, x, y) -> x_adv that leave the model exactly as it was."""

from .pgd import PGD

__all__ = ["PGD"]
