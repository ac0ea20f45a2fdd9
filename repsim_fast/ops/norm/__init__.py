"""Norms of the channels of maps."""
