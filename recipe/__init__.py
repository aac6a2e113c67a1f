"""How the bundled weights are trained."""
