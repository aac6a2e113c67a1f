"""Photos by the million: the command for many machines, on Ray Data. It needs the extra ``ray``."""
