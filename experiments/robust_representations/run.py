"""Run the experiment: ``python experiments/robust_representations/run.py --preset smoke``."""

import sys
from importlib import import_module
from pathlib import Path

FOLDER = Path(__file__).resolve().parent

if __name__ == "__main__":
    # The folder's name begins with a number, so its modules are found by text, as a package.
    sys.path.insert(0, str(FOLDER.parents[1]))
    sys.exit(import_module(f"{FOLDER.parent.name}.{FOLDER.name}.command").main())
