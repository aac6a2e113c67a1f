"""The command line: flags, folders of photos, names of outputs, exit codes."""
