"""Analysis of a network: plain functions of its graph."""

from archspec.analysis.counts import (
    DTYPES,
    Totals,
    activation_bytes,
    backward_counts,
    counts,
    neurons,
    op_counts,
    optimizer_counts,
    params,
    totals,
)

__all__ = [
    "DTYPES",
    "Totals",
    "activation_bytes",
    "backward_counts",
    "counts",
    "neurons",
    "op_counts",
    "optimizer_counts",
    "params",
    "totals",
]
