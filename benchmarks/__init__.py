"""Speed and memory, measured: one script a table, described in docs/benchmarks.md."""
