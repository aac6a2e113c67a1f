"""The errors that the library raises."""


class Error(Exception):
    """Base class of all errors of this library. The message says what was expected, what was found and what to do.

    Files that cannot be opened raise the system's ``OSError``, too little memory raises ``MemoryError``, and arguments
    that no call could take raise ``ValueError`` or ``TypeError``.
    """


class DataError(Error, ValueError):
    """A photo, or what belongs to photos, is not what it should be."""


class RunError(Error, RuntimeError):
    """Weights cannot be used, or a run cannot start or go on."""


class DeviceError(RunError):
    """A device or its engine is not available, or an environment variable that has a say in them is wrong."""
