"""One set of facts about a network, in several renderings."""

from archspec.report.data import claim_facts, facts
from archspec.report.terminal import claims_table, table

__all__ = ["claim_facts", "claims_table", "facts", "table"]
