"""Run the experiment: ``python -m experiments.compact_robust --preset smoke``."""

import sys

from experiments.lab.command import main

from .experiment import EXPERIMENT

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
