"""How an attack's forward and backward passes are run fast: folding, memory format, graphs."""
