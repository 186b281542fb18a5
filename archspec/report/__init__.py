"""One set of facts about a network, in several renderings."""

from archspec.report.facts import COLUMNS, DEFAULT, Facts, as_data, claim_facts
from archspec.report.terminal import claims_table, report, table

__all__ = ["COLUMNS", "DEFAULT", "Facts", "as_data", "claim_facts", "claims_table", "report", "table"]
