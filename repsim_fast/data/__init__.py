"""Images in memory: data sets of the papers, read from their published file formats."""

from .augmentation import augment
from .image_data import ImageData
from .labelled import mixed
from .loading import load

__all__ = ["ImageData", "augment", "load", "mixed"]
