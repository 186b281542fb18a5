"""The training engine of train.py: data, devices, checkpoints, logs."""
