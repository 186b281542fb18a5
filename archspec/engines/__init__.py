"""Training engines: plain Python that is copied, as it is, beside generated models."""
