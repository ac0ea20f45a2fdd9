"""What is proven of a model's predictions, rather than attacked."""

from .accuracy import VerifiedAccuracy, verified_accuracy
from .bounds import margin_bounds, output_bounds
from .graph import Traced, trace
from .smoothing import (
    ABSTAIN,
    Certificates,
    CertifiedAccuracy,
    certified_accuracy,
    certify,
    predict,
)

__all__ = [
    "ABSTAIN",
    "Certificates",
    "CertifiedAccuracy",
    "Traced",
    "VerifiedAccuracy",
    "certified_accuracy",
    "certify",
    "margin_bounds",
    "output_bounds",
    "predict",
    "trace",
    "verified_accuracy",
]
