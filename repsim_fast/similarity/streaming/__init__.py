"""Measures that are fed batch by batch: from Grams of batches, or from the samples of all."""
