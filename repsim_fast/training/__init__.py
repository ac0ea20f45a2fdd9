"""Training of standard and robust networks."""

from repsim_fast._core.ramp import Ramp
from repsim_fast.analysis.selectivity import class_selectivity

from . import methods, recipes, schedules
from .callback import StopTraining
from .collapse import CollapseGuard
from .diagnostics import Diagnostics
from .evaluation import Accuracy, evaluate
from .history import Epoch, History
from .optimisation import Optimisation
from .overfitting import OverfittingDetector
from .regularisers import SelectivityRegulariser
from .settings import Evaluation, Saving
from .trainer import train

__all__ = [
    "Accuracy",
    "CollapseGuard",
    "Diagnostics",
    "Epoch",
    "Evaluation",
    "History",
    "Optimisation",
    "OverfittingDetector",
    "Ramp",
    "Saving",
    "SelectivityRegulariser",
    "StopTraining",
    "class_selectivity",
    "evaluate",
    "methods",
    "recipes",
    "schedules",
    "train",
]
