"""Photos, annotations and label maps. Data flows annotations -> dataset (rle -> label_map -> transforms) -> loader."""


class DataError(ValueError):
    """Photos or annotations are not what they should be; the message says what was expected and what to do."""


class BadSampleError(DataError):
    """One photo or its masks cannot be used; others may."""
