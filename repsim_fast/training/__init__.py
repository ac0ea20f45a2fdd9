"""Training of standard and robust networks."""

from . import methods, recipes, schedules
from .evaluation import Accuracy, evaluate
from .history import Epoch, History
from .overfitting import OverfittingDetector
from .selectivity import SelectivityRegulariser, class_selectivity
from .trainer import train

__all__ = [
    "Accuracy",
    "Epoch",
    "History",
    "OverfittingDetector",
    "SelectivityRegulariser",
    "class_selectivity",
    "evaluate",
    "methods",
    "recipes",
    "schedules",
    "train",
]
