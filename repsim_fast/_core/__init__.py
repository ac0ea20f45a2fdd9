"""Ground of all other rooms: models left as they were, randomness, files, checks, processes."""
