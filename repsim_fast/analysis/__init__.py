"""Numbers about grids, layers and units."""
