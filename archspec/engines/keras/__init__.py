"""The training engine of train.py for Keras: data, devices, checkpoints, logs."""
