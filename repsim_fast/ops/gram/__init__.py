"""Products of features: centred Grams of the samples of one layer, cross products of two layers."""
