"""Models on disk: artifacts, checkpoints of a training, PyTorch files."""
