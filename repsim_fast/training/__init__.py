"""Training of standard and robust networks."""

from .evaluation import Accuracy, evaluate
from .history import Epoch, History
from .trainer import train

__all__ = ["Accuracy", "Epoch", "History", "evaluate", "train"]
