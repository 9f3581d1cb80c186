"""``comparison.json``: what a run was asked for, so that it goes on as it was begun."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from avalanche_branchtune.errors import RecordError
from avalanche_branchtune.writing import write_text

ASKED = "comparison.json"
FAILED = "failed.txt"
"""Why a run of a study failed, which goes on with the others."""
FREE = ("command", "seed", "workers")
"""Settings that may change when a run goes on, and differ between runs that are compared."""
FORMAT = "avalanche-branchtune comparison 1"


@dataclass(frozen=True)
class Asked:
    """What one run of a comparison was asked for.

    :param specification: of the strategy.
    :param place: among the strategies, in the order in which they are begun.
    :param settings: of the :class:`~solo_bridge.comparison.Comparison`, as JSON has them.
    :param exact: whether JSON has all of them: objects in ``options`` are there as texts.
    :param imports: files that register names.
    :param directory: where it was begun: paths are relative to it.
    :param threads: of torch, by which sums are rounded.
    :param separate: whether each strategy has a process of its own.
    :param finished: whether it is trained, and measured but for its plasticity.
    :param code: file of ``imports`` → what tells its code from another, see :func:`code_of`; runs
        of older versions have none.
    """

    specification: str
    place: int
    settings: dict[str, Any]
    exact: bool
    imports: tuple[str, ...]
    directory: str
    threads: int
    separate: bool
    finished: bool = False
    code: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        settings: Mapping[str, Any],
        specification: str,
        place: int = 0,
        imports: Iterable[str] = (),
        separate: bool = False,
        threads: int = 1,
    ) -> Asked:
        """Return what is asked for here and now.

        :param settings: see the class; as they are given.
        :param specification: see the class.
        :param place: see the class.
        :param imports: see the class.
        :param separate: see the class.
        :param threads: see the class.
        """
        plain = json.loads(json.dumps(dict(settings), default=_text))
        return cls(
            specification,
            place,
            plain,
            plain == dict(settings),
            tuple(imports),
            os.getcwd(),
            threads,
            separate,
            code=code_of(specification, imports),
        )

    def filled(self, defaults: Mapping[str, Any]) -> Asked:
        """Return it with settings that there were not yet when it was written.

        :param defaults: setting → what it was then, without a name.
        """
        return replace(self, settings={**defaults, **self.settings})

    def save(self, folder: Path) -> None:
        """Write it to the folder of its run.

        :param folder: made if it does not exist.
        """
        folder.mkdir(parents=True, exist_ok=True)
        content = {"format": FORMAT, **asdict(self)}
        write_text(folder / ASKED, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def check_same_run(self, other: Asked, folder: Path) -> None:
        """Refuse to go on with a run that was asked for otherwise, or of another strategy.

        :param other: what is asked for now.
        :param folder: of this one.
        :raises RecordError: naming what differs.
        """
        if other.specification != self.specification:
            raise RecordError(
                f"{folder} is of another strategy, {self.specification!r} instead of "
                f"{other.specification!r}: choose another folder (--out, out=), or another name"
            )
        self.check_same(other, folder)
        self.check_code(other, folder)

    def check_code(self, other: Asked, folder: Path) -> None:
        """Refuse to go on with a run whose plugin was changed since.

        :param other: what is asked for now.
        :param folder: of this one.
        :raises RecordError: naming the file.
        """
        changed = [f for f, code in self.code.items() if other.code.get(f, code) != code]
        if changed:
            raise RecordError(
                f"{changed[0]} has changed since {folder} was begun: choose another folder "
                "(--out, out=) for what it trains now, or remove that one"
            )

    def check_same(self, other: Asked, folder: Path, only: Iterable[str] | None = None) -> None:
        """Refuse to go on with what was asked for otherwise.

        :param other: what is asked for now; its seed may be another one.
        :param folder: of this one.
        :param only: settings that have to be the same; by default all.
        :raises RecordError: naming the settings that differ.
        """
        names = [*self.settings, *(n for n in other.settings if n not in self.settings)]
        differing = [
            f"{name} {other.settings.get(name)!r} instead of {self.settings.get(name)!r}"
            for name in (names if only is None else only)
            if name not in FREE
            and _told_apart(name, self.settings.get(name))
            != _told_apart(name, other.settings.get(name))
        ]
        if differing:
            raise RecordError(
                f"{folder} is of another comparison: this one has {', '.join(differing)}. Choose "
                "another folder (--out, out=), or the settings that it was begun with"
            )


def asked(folder: Path) -> Asked | None:
    """Return what a run was asked for, None for a folder that does not say.

    :param folder: of the run.
    :raises RecordError: for a file that is damaged, or of another version.
    """
    path = folder / ASKED
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content.setdefault("code", {})  # there was none
        if content.pop("format") != FORMAT or set(content) != {f.name for f in fields(Asked)}:
            raise ValueError(f"expected the fields of {FORMAT!r}")
        for name, kind in (("specification", str), ("place", int), ("settings", dict)):
            if not isinstance(content[name], kind):
                raise ValueError(f"field {name!r} is {content[name]!r}")
        return Asked(**{**content, "imports": tuple(content["imports"])})
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RecordError(f"{path} is damaged, or another version's: {error}") from error


def code_of(specification: str, imports: Iterable[str]) -> dict[str, str]:
    """Return what tells the code of one's own files from another: comments do not count.

    :param specification: of the strategy; what only registers names that are not in it is left out,
        unless the rest uses it.
    :param imports: the files.
    """
    names = {part.strip() for part in specification.split("+")}
    return {str(file): _digest(Path(file), names) for file in imports}


def _digest(file: Path, names: set[str]) -> str:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    kept = [node for node in tree.body if not (named := _named(node)) or named & names]
    before = 0
    while before < len(kept):
        before = len(kept)
        used = {one.id for node in kept for one in ast.walk(node) if isinstance(one, ast.Name)}
        kept = [node for node in tree.body if node in kept or getattr(node, "name", "") in used]
    tree.body = kept
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:16]


def _named(node: ast.stmt) -> set[str]:
    """Return the names that a statement of a file registers."""
    parts: list[Any] = [node] if isinstance(node, ast.Expr) else getattr(node, "decorator_list", [])
    calls = [one for part in parts for one in ast.walk(part) if isinstance(one, ast.Call)]
    return {
        str(call.args[0].value)
        for call in calls
        if getattr(call.func, "id", getattr(call.func, "attr", "")) == "register"
        and call.args
        and isinstance(call.args[0], ast.Constant)
    }


def _told_apart(name: str, value: Any) -> Any:
    """Return what of a setting must be the same: of weights their content, wherever they lie."""
    return value["sha256"] if name == "weights" and value else value


def _text(value: Any) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
