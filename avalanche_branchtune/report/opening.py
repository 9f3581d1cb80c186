"""What a page opens with: what was compared, on what, how often and by which command."""

from __future__ import annotations

from collections.abc import Sequence

from avalanche_branchtune.records.comparable import flat
from avalanche_branchtune.report.formats import one_line
from avalanche_branchtune.report.groups import Group

SUBJECT = ("data", "stream", "method", "backbone", "image size", "epochs")
"""Settings that say on what strategies were compared."""
TERSE = ("image size", "epochs")
"""Those whose values need their names."""


def opening(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """Return what is to be known first, as headed lines; only what the records say.

    :param groups: of the page.
    """
    every = [flat(run.settings) for group in groups for run in group.runs]
    values = {name: {lines.get(name) for lines in every} for name in (*SUBJECT, "command")}
    shared = {
        name: one_line(str(known.pop()))
        for name, known in values.items()
        if len(known) == 1 and None not in known
    }
    subject = [
        f"{name} {shared[name]}" if name in TERSE else shared[name]
        for name in SUBJECT
        if name in shared
    ]
    found = [
        ("Compared", ", ".join(group.shown for group in groups)),
        ("On", "; ".join(subject)),
        ("Runs", _runs(groups)),
        ("Command", _command(groups, shared.get("command", ""))),
    ]
    return [(head, text) for head, text in found if text]


def _runs(groups: Sequence[Group]) -> str:
    counts = sorted({len(group.runs) for group in groups})
    n = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    seeds = sorted({run.seed for g in groups for run in g.runs if run.seed is not None})
    named = f", seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}" if seeds else ""
    single = "; single runs say nothing about chance" if counts[-1] == 1 else ""
    partial = sum(len(group.partial) for group in groups)
    return f"{n} of each strategy{named}{f'; {partial} partial' if partial else ''}{single}"


def _command(groups: Sequence[Group], command: str) -> str:
    """Return the command; an ellipsis in it stands for all specifications."""
    names = [str(group.runs[0].settings.get("specification", "")) for group in groups]
    return one_line(command.replace("…", ",".join(names)) if all(names) else command)
