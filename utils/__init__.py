"""The parts around training: files, weights, downloads, processes, metrics, logs, pictures."""
