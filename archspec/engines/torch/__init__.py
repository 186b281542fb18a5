"""The training engine of train.py for PyTorch: data, devices, checkpoints, logs."""
