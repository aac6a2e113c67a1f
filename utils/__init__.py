"""The parts around training and inference: files, weights, downloads, processes, metrics, logs, pictures."""

import os

# From 1.29 on, ONNX Runtime tells its makers which networks run, unless this is said before it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"


class RunError(RuntimeError):
    """A run cannot start or go on; the message says what was expected, what was found and what to do."""
