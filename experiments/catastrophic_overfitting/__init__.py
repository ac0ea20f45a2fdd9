"""Catastrophic overfitting induced by features that are not robust."""
