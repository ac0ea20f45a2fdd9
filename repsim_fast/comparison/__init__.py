"""Whole models compared: the plan of forward passes, the engine that runs them, the result."""
