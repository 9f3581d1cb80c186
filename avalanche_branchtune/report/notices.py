"""What a reader must know before believing the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from avalanche_branchtune.records.comparable import ABSENT, flat
from avalanche_branchtune.report.formats import one_line
from avalanche_branchtune.report.groups import Group


def notices(groups: Sequence[Group]) -> list[str]:
    """Return the caveats of the records, and sentences about partial runs and what differs.

    :param groups: of the report.
    """
    caveats = (run.settings.get("caveat") for group in groups for run in group.runs)
    found = [one_line(str(text)) for text in dict.fromkeys(caveats) if text]
    for group in groups:
        for run, origin in group.partial:
            seed = "" if run.seed is None else f", seed {run.seed}"
            found.append(
                f"Partial run: {group.shown}{seed} finished {run.finished} of "
                f"{run.n_experiences} experiences ({one_line(origin)})."
            )
    unprobed = [group.shown for group in groups if not any(run.probes for run in group.runs)]
    if unprobed:
        found.append(
            f"No probe was recorded for {', '.join(unprobed)}: accuracies on this page are those "
            "of run_metrics([StreamProbe(…)]); what other metrics gave is in metrics.csv."
        )
    for group in groups:
        for run in group.runs:
            seed = "" if run.seed is None else f", seed {run.seed}"
            if run.skipped_steps:
                found.append(
                    f"{group.shown}{seed}: {run.skipped_steps} steps were left out, since a loss "
                    "or gradient was not finite."
                )
            if run.replaced_images:
                n, times = len(run.replaced_images), sum(run.replaced_images.values())
                found.append(
                    f"{group.shown}{seed}: {n} images could not be read; others of their "
                    f"minibatches took their places, {times} times in all."
                )
    for group in groups:
        parts = _differences([group])
        if parts:
            found.append(f"Averaged runs of {group.shown} differ in {parts}.")
    parts = _differences(groups)
    if parts and len(groups) > 1:
        found.append(
            f"The strategies did not all run in one environment ({parts}): times and memory do "
            "not compare."
        )
    lengths = {g.n_experiences: g.shown for g in groups if not g.at_once}
    if len(lengths) > 1:
        listed = ", ".join(f"{n} in {name}" for n, name in lengths.items())
        found.append(
            f"The streams have different numbers of experiences ({listed}): forgetting, transfer "
            "and continual accuracy do not compare."
        )
    return found


def _differences(groups: Sequence[Group]) -> str:
    lines = [flat(run.environment) for group in groups for run in group.runs]
    parts = []
    for name in dict.fromkeys(key for line in lines for key in line if key):
        values = dict.fromkeys(line.get(name, ABSENT) for line in lines)
        if len(values) > 1:
            parts.append(f"{one_line(name)}: {', '.join(map(one_line, values))}")
    return "; ".join(parts)
