"""Analysis of a network: plain functions of its graph."""

from archspec.analysis.counts import (
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
from archspec.language.ops.base import DTYPES

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
