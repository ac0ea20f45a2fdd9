"""`python -m repsim_fast`: the same as the command `repsim-fast`."""

from repsim_fast.cli import main

main()
