"""Reports: one set of facts about a network, in several renderings."""

from archspec.report.facts import COLUMNS, Facts, as_data, claim_facts, default_columns
from archspec.report.terminal import claims_lines, network_lines, report_lines

__all__ = [
    "COLUMNS",
    "Facts",
    "as_data",
    "claim_facts",
    "claims_lines",
    "default_columns",
    "network_lines",
    "report_lines",
]
