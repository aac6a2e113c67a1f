"""Photos of people in, label maps of their clothes out, and all that is made of them."""

import os

# From 1.29 on, ONNX Runtime tells its makers which networks run, unless this is said before it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
