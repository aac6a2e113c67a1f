"""The parts around training and inference: files, weights, downloads, processes, metrics, logs, pictures."""


class RunError(RuntimeError):
    """A run cannot start or go on; the message says what was expected, what was found and what to do."""
