"""Comparisons where other libraries expect them: a module for each, which needs its package.

``adapters.torchmetrics``, ``adapters.scikit_learn``, ``adapters.lightning`` and
``adapters.transformers``; ``adapters.monitor`` is for loops of one's own.
"""

from repsim_fast.adapters.monitor import Monitor

__all__ = ["Monitor"]
