"""Reports: one set of facts about a network, in several renderings."""

from archspec.report.facts import COLUMNS, Facts, as_data, claim_facts, cost_facts, default_columns
from archspec.report.terminal import budget_lines, claims_lines, network_lines, report_lines

__all__ = [
    "COLUMNS",
    "Facts",
    "as_data",
    "budget_lines",
    "claim_facts",
    "claims_lines",
    "cost_facts",
    "default_columns",
    "network_lines",
    "report_lines",
]
