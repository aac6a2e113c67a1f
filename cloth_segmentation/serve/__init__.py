"""Photos as they come: the library over HTTP."""
