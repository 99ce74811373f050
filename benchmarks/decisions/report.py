"""The tables and plots of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np

from benchmarks.decisions.scoring import wilson
from benchmarks.decisions.suites import Truth
from benchmarks.decisions.targets import OURS

mpl.use("Agg")
import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.decisions.rules import Rule
    from benchmarks.decisions.scoring import Score
    from benchmarks.decisions.targets import Target

COLUMNS = (
    "rule",
    "rollouts",
    "wrong",
    "95 % interval",
    "rolled back",
    "promoted",
    "asked",
    "invalid",
    "exposed",
    "p95",
    "regret",
    "excess bad",
    "ticks to promote",
    "asks",
)


def cells_of(score: Score) -> list[str]:
    """Return one line of the table of a cell, in the order of `COLUMNS`."""
    hits, kind = score.wrong
    low, high = wilson(hits, score.replicates)
    return [
        score.rule,
        f"{score.replicates:,}",
        f"{kind} {hits / score.replicates:.1%}",
        f"{low:.1%} to {high:.1%}",
        *(_share(each, score) for each in (score.rolled_back, score.promoted, score.asked, score.invalid)),
        f"{score.exposed:,.0f}",
        f"{score.exposed_p95:,.0f}",
        "" if score.regret is None else f"{score.regret:.2f}",
        f"{score.excess_bad:,.0f}",
        "" if score.promoted_after is None else f"{score.promoted_after:,.0f}",
        f"{score.human_asks:.2f}",
    ]


def _share(count: int, score: Score) -> str:
    return f"{count / score.replicates:.1%}" if count else ""


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table that also reads well on a terminal.

    >>> print(table(["a", "b"], [["1", "22"]]))
    | a | b  |
    |---|----|
    | 1 | 22 |
    """
    widths = [max(len(line[at]) for line in [header, *lines]) for at in range(len(header))]

    def row(line: Sequence[str]) -> str:
        return "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([row(header), rule, *map(row, lines)])


def cell_tables(scores: Sequence[Score]) -> str:
    """Return one table for each cell of `scores`, in their order."""
    parts = []
    for title in dict.fromkeys(each.cell.title for each in scores):
        of_cell = [each for each in scores if each.cell.title == title]
        first = of_cell[0]
        limit = "" if first.limit is None else f", information limit {first.limit:,.0f} exposed"
        parts.append(f"### {title} ({first.cell.truth}{limit})\n")
        parts.append(table(COLUMNS, [cells_of(each) for each in of_cell]) + "\n")
    return "\n".join(parts)


def targets_table(found: Sequence[Target]) -> str:
    """Return the final table."""
    answer = {True: "yes", False: "**no**", None: "-"}
    return table(["target", "reached", "met?"], [[each.promise, each.reached, answer[each.is_met]] for each in found])


def _wrong(score: Score) -> int:
    return score.wrong[0]


def matrix(scores: Sequence[Score], truths: Sequence[Truth], counted: Callable[[Score], int] = _wrong) -> str:
    """Return how often each rule was wrong, or what else is `counted`, rules by cells, in percent."""
    chosen = [each for each in scores if each.cell.truth in truths]
    titles = list(dict.fromkeys(each.cell.title for each in chosen))
    found = {(each.rule, each.cell.title): 100 * counted(each) / each.replicates for each in chosen}
    rules = list(dict.fromkeys(each.rule for each in chosen))
    lines = [
        [rule, *(f"{found[rule, title]:.1f}" if (rule, title) in found else "" for title in titles)] for rule in rules
    ]
    return table(["%", *titles], lines)


def exposure_matrix(scores: Sequence[Score]) -> str:
    """Return mean exposure and regret of each rule, rules by harmful cells."""
    chosen = [each for each in scores if each.cell.truth is Truth.HARMFUL]
    titles = list(dict.fromkeys(each.cell.title for each in chosen))
    found = {(each.rule, each.cell.title): f"{each.exposed:,.0f} ({each.regret:.1f})" for each in chosen}
    rules = list(dict.fromkeys(each.rule for each in chosen))
    lines = [[rule, *(found.get((rule, title), "") for title in titles)] for rule in rules]
    return table(["mean exposed (regret)", *titles], lines)


def settings(rules: Sequence[Rule]) -> str:
    """Return one line for each rule."""
    return "\n".join(f"- **{rule.name}**: {rule.settings}." for rule in rules)


def plot_false_rollbacks(scores: Sequence[Score], path: Path) -> None:
    """Draw the A/A rates of every rule on every harmless cell, as a table of colours."""
    chosen = [each for each in scores if each.cell.truth is Truth.HARMLESS]
    titles = list(dict.fromkeys(each.cell.title for each in chosen))
    rules = list(dict.fromkeys(each.rule for each in chosen))
    rates = np.full((len(rules), len(titles)), np.nan)
    for each in chosen:
        rates[rules.index(each.rule), titles.index(each.cell.title)] = 100 * each.wrong[0] / each.replicates
    figure, axes = plt.subplots(figsize=(2.6 + 0.62 * len(titles), 2.6 + 0.32 * len(rules)), layout="constrained")
    # Colour begins above the 5 % that a rule is meant to keep.
    colours = mpl.colormaps["OrRd"].with_extremes(under="#e4efe7", bad="white")
    axes.imshow(np.maximum(rates, 0.1), cmap=colours, norm=mpl.colors.LogNorm(5.0001, 100.0), aspect="auto")
    for (row, column), rate in np.ndenumerate(rates):
        if not np.isnan(rate):
            axes.text(
                column,
                row,
                f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if rate > 50 else "black",
            )
    axes.set_xticks(range(len(titles)), titles, rotation=50, ha="right", fontsize=8)
    axes.set_yticks(range(len(rules)), rules, fontsize=8)
    for label in axes.get_yticklabels():
        label.set_fontweight("bold" if label.get_text().startswith(OURS) else "normal")
    axes.set_title("Harmless challengers rolled back, %", fontsize=10, loc="left")
    figure.savefig(path, dpi=150)
    plt.close(figure)


#: Rules that are drawn; the others are in the tables.
DRAWN = {
    OURS: ("#c0392b", "o"),
    "mSPRT, pooled": ("#7f8c8d", "v"),
    "GrowthBook sequential, pooled": ("#8e44ad", "s"),
    "Safe Rollout rule": ("#2980b9", "D"),
    "GST Pocock, stratified": ("#27ae60", "^"),
    "asymptotic CS, overlap": ("#d68910", "P"),
    "Kayenta rule": ("#34495e", "X"),
}


def plot_exposure(scores: Sequence[Score], path: Path) -> None:
    """Draw mean exposure against the ratio, stationary, one guardrail, with the information limit."""
    chosen = [each for each in scores if each.cell.suite == "S2" and each.cell.stream.guardrails == 1]
    chosen = [each for each in chosen if not each.cell.stream.swing]
    figure, axes = plt.subplots(figsize=(7.2, 4.8), layout="constrained")
    ratios = sorted({each.cell.stream.ratio[0] for each in chosen})
    limits = {each.cell.stream.ratio[0]: each.limit or 0.0 for each in chosen}
    axes.plot(ratios, [limits[ratio] for ratio in ratios], "k--", lw=1.2, label="information limit")
    for rule, (colour, marker) in DRAWN.items():
        points = sorted((each.cell.stream.ratio[0], each.exposed) for each in chosen if each.rule == rule)
        if points:
            width = 2.2 if rule == OURS else 1.0
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, ms=5, lw=width, label=rule)
    axes.set(xscale="log", yscale="log", xlabel="challenger's bad rate as a multiple of the champion's, r")
    axes.set_ylabel("mean requests that the challenger answered before rollback")
    axes.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
    axes.minorticks_off()
    axes.grid(which="major", alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
    axes.set_title("Exposure until harm is found (champion's rate 2 %, ramp 1-5-10-25-50 %)", fontsize=10, loc="left")
    figure.savefig(path, dpi=150)
    plt.close(figure)
