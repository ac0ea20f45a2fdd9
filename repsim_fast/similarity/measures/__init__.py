"""The measures, one theme a file; each registers itself when its module is imported."""
