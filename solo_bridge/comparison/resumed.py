"""Comparisons that go on from nothing but their folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avalanche_branchtune.checkpoints.files import INDEX
from avalanche_branchtune.errors import RecordError
from solo_bridge.comparison.asked import ASKED, Asked, asked
from solo_bridge.comparison.configured import Configured
from solo_bridge.comparison.experiment import Experiment
from solo_bridge.comparison.settings import Comparison


@dataclass(frozen=True)
class Part:
    """Runs that were asked for together.

    :param out: folder of their folders.
    :param asked: what each was asked for, in the order in which they are trained.
    """

    out: Path
    asked: tuple[Asked, ...]

    @property
    def specifications(self) -> list[str]:
        """Of all of them."""
        return [one.specification for one in self.asked]

    def comparison(self) -> Experiment:
        """Return what they are compared on.

        :raises RecordError: if that cannot be made of what was written.
        """
        first = self.asked[0]
        if not first.exact:
            raise RecordError(
                f"{self.out}: its options hold objects, of which {ASKED} has only texts: call "
                f"compare(…, out={str(self.out)!r}) again with the same options, which goes on"
            )
        try:
            return made(first.settings)
        except TypeError as error:
            raise RecordError(f"{self.out}: {ASKED} is of another version: {error}") from error

    def finished(self) -> bool:
        """Tell whether all of them are."""
        comparison = self.comparison()
        return all(comparison.finished(spec, self.out) for spec in self.specifications)


def made(settings: Mapping[str, Any]) -> Experiment:
    """Return what runs were trained on, of settings as :class:`Asked` has them.

    :param settings: of a :class:`Comparison`, or of a configuration.
    """
    return Configured(**settings) if "named" in settings else Comparison(**settings)


def finished(out: Path) -> list[Path]:
    """Return the folders of the runs in a folder that are trained.

    :param out: of their folders.
    """
    runs = [path.parent for path in sorted(out.glob(f"*/{ASKED}"))]
    return [run for run in runs if (one := asked(run)) is not None and one.finished]


def unfinished(folder: Path) -> list[Part]:
    """Return what can go on at or below a folder; nothing if all of it is finished.

    :param folder: of a run, of a comparison, or of several.
    :raises RecordError: if there are no runs.
    """
    if not folder.is_dir():
        raise RecordError(f"{folder}: there is no such folder")
    runs = sorted(path.parent for path in folder.resolve().rglob(ASKED))
    if not runs:
        if any(folder.rglob(INDEX)):
            raise RecordError(
                f"{folder} is of a script of your own: start the script again with "
                "Checkpoints(…, resume=True)"
            )
        raise RecordError(f"{folder}: nothing to go on with: no {ASKED} there, nor below")
    together: dict[str, list[tuple[Asked, Path]]] = {}
    for run in runs:
        one = asked(run)
        if one is not None:
            alike = [one.settings, one.imports, one.directory, one.threads, one.separate]
            key = json.dumps([str(run.parent), *alike], sort_keys=True)
            together.setdefault(key, []).append((one, run.parent))
    parts = [
        Part(some[0][1], tuple(sorted((one for one, _ in some), key=lambda one: one.place)))
        for some in together.values()
    ]
    left = [part for part in parts if not part.finished()]
    return sorted(left, key=lambda part: "joint" not in part.specifications)  # others wait for it
