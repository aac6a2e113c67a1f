"""What can go wrong, in words for the one who can mend it."""


class RunError(RuntimeError):
    """A run cannot start or go on; the message says what was expected, what was found and what to do."""


class DataError(ValueError):
    """Photos or annotations are not what they should be; the message says what was expected and what to do."""
