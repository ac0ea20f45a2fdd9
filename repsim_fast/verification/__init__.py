"""What is proven of a model's predictions, rather than attacked."""

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
    "certified_accuracy",
    "certify",
    "predict",
]
