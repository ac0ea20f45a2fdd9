"""Pre-training, pruning and fine-tuning with one robust objective (Sehwag et al., 2019, 2020)."""
