"""Photos, annotations and label maps. Data flows annotations -> dataset (rle -> label_map -> transforms) -> loader."""

from cloth_segmentation.errors import DataError


class BadSampleError(DataError):
    """One photo or its masks cannot be used; others may."""
