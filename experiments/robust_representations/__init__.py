"""What robust training does to representations, after Cianfarani et al., 2022."""
