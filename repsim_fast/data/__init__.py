"""Images in memory: data sets of the papers, read from their published file formats.

Also arrays of a file by the names of a model's arguments, such as tokens.
"""

from .arrays import load_arrays
from .augmentation import augment
from .image_data import ImageData
from .labelled import mixed
from .loading import load

__all__ = ["ImageData", "augment", "load", "load_arrays", "mixed"]
