"""Measures of similarity between representations (n_samples, n_features)."""

from repsim_fast.similarity.cka import cka
from repsim_fast.similarity.minibatch import CKAEstimate, MinibatchCKA

__all__ = ["CKAEstimate", "MinibatchCKA", "cka"]
