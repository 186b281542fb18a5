"""One set of facts about a network, in several renderings."""

from archspec.report.data import facts
from archspec.report.terminal import table

__all__ = ["facts", "table"]
