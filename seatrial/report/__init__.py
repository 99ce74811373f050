"""A decision as table, plot and text that a person can check.

Pure functions of what is stored: the same rollout, plan, looks and entries give the same text and the same pixels.
"""

from seatrial.report.findings import findings_table
from seatrial.report.pages import page, question, stage_report
from seatrial.report.plots import data_uri, evidence_plot, image, promotion_plot, share_plot
from seatrial.report.quality import quality
from seatrial.report.terminal import HistoryRow, StatusRow, explain, history_rows, status_rows
from seatrial.report.waivers import waiver_lines

__all__ = [
    "HistoryRow",
    "StatusRow",
    "data_uri",
    "evidence_plot",
    "explain",
    "findings_table",
    "history_rows",
    "image",
    "page",
    "promotion_plot",
    "quality",
    "question",
    "share_plot",
    "stage_report",
    "status_rows",
    "waiver_lines",
]
