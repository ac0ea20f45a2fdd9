"""What all measures stand on: the measure contract, prepared representations, views, pairs."""
