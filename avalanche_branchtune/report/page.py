"""A report of runs: one page that needs nothing else, its figures and its tables as files."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from avalanche_branchtune.report.figures import Picture, all_pictures, save
from avalanche_branchtune.report.figures.style import looks
from avalanche_branchtune.report.formats import Table, markdown, markdown_text, one_line
from avalanche_branchtune.report.groups import Group, Source, group_runs
from avalanche_branchtune.report.latex import latex
from avalanche_branchtune.report.notices import notices
from avalanche_branchtune.report.opening import opening
from avalanche_branchtune.report.tables import (
    MEANING,
    cost_table,
    environment_table,
    overall_table,
    probes_of,
    protocol_tables,
    row_name,
    runs_table,
    settings_tables,
    summary_table,
)
from avalanche_branchtune.writing import write_text

PAGE = "report.html"
HEADINGS = {
    "summary": "Summary",
    "cost": "Cost",
    "curves": "Accuracy over experiences",
    "matrices": "Accuracy matrices",
    "layers": "Stability and plasticity by layer",
    "embeddings": "Features in the plane",
    "branch_norms": "Branch norms by layer",
    "traces": "Accuracy during training",
    "settings": "Settings and protocol",
    "environment": "Versions and hardware",
}


@dataclass(frozen=True)
class Image:
    """A figure in the page.

    :param source: the SVG, as a data URL.
    :param width: its natural width in CSS pixels.
    :param height: the same.
    :param caption: below it.
    :param alt: in its place.
    :param look: class of its strategy's colour, or "".
    """

    source: str
    width: int
    height: int
    caption: str
    alt: str
    look: str


@dataclass(frozen=True)
class Section:
    """A part of the page.

    :param key: its anchor.
    :param heading: its heading.
    :param tables: come first.
    :param texts: come after them.
    :param images: come last.
    """

    key: str
    heading: str
    tables: list[Table] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)


def write_report(
    runs: Sequence[Source], out: str | os.PathLike[str], *, title: str | None = None
) -> Path:
    """Write a page, figures and tables that compare runs.

    :param runs: runs, folders of runs, folders that hold such folders, or
        groups; runs of one name are averaged over their seeds.
    :param out: folder, made if it does not exist, for ``report.html``,
        ``tables.md``, ``tables.tex`` and ``figures/`` (SVG, PNG and PDF); older
        files of these names are replaced.
    :param title: of the page; by default the names of the strategies.
    :return: the page.
    :raises RecordError: for a record that is missing or damaged, for runs of
        one name that differ in more than the seed, and for probes whose
        protocols differ.
    """
    groups = group_runs(runs)
    title = one_line(title or "") or _title(groups)
    drawings = all_pictures(groups)
    folder = Path(out)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    colours = {f"look{i}": style.colour for i, style in enumerate(looks(groups))}
    named = {group.name: key for group, key in zip(groups, colours, strict=True)}
    images = {
        kind: [_image(picture, folder / "figures", named) for picture in pictures]
        for kind, pictures in drawings.items()
    }
    tables = {
        "summary": [
            t(groups, p) for p in probes_of(groups) for t in (summary_table, overall_table)
        ],
        "settings": [*settings_tables(groups), *protocol_tables(groups)],
        "cost": [cost_table(groups), runs_table(groups)],
        "environment": [environment_table(groups)],
    }
    tables = {kind: [t for t in some if t.rows] for kind, some in tables.items()}
    sections = [
        Section(
            key.replace("_", "-"),
            heading,
            tables.get(key, []),
            [MEANING] if key == "summary" else [],
            images.get(key, []),
        )
        for key, heading in HEADINGS.items()
        if tables.get(key) or images.get(key)
    ]
    every = [table for some in tables.values() for table in some]
    said = notices(groups)
    facts = opening(groups)
    lines = [*(f"{head}: {text}" for head, text in facts), *said]
    _write(folder / "tables.md", _markdown(title, lines, every))
    _write(folder / "tables.tex", _latex(title, lines, every))
    content = {
        "title": title,
        "facts": facts,
        "notices": said,
        "sections": sections,
        "colours": colours,
        "looks": {row_name(group): named[group.name] for group in groups}
        | {group.shown: named[group.name] for group in groups},
    }
    _write(folder / PAGE, _template().render(content))
    return folder / PAGE


def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("avalanche_branchtune.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # where a cell may be broken into lines: before the deviation, and before (n = …)
    environment.filters["parts"] = lambda cell: re.split(r" (?=[±(])", cell)
    return environment.get_template("page.html")


def _image(picture: Picture, folder: Path, named: Mapping[str, str]) -> Image:
    svg = save(picture, folder)
    width, height = (96 * side for side in picture.figure.get_size_inches())
    source = "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")
    look = named.get(picture.strategy or "", "")
    return Image(source, round(width), round(height), picture.caption, picture.alt, look)


def _title(groups: Sequence[Group]) -> str:
    names = [group.shown for group in groups]
    if len(names) > 4:
        return f"{len(names)} strategies compared"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _markdown(title: str, said: Sequence[str], tables: Sequence[Table]) -> str:
    heading = markdown_text(title)
    notes = "\n".join(f"- {markdown_text(notice)}" for notice in said)
    parts = [f"# {heading}", notes, markdown_text(MEANING), *map(markdown, tables)]
    return "\n\n".join(part for part in parts if part)


def _latex(title: str, said: Sequence[str], tables: Sequence[Table]) -> str:
    lines = [
        title,
        *said,
        MEANING,
        "Needs \\usepackage{booktabs}; for names in other scripts XeLaTeX.",
    ]
    head = "\n".join(f"% {one_line(line)}" for line in lines)
    return "\n\n".join([head, *map(latex, tables)])


def _write(path: Path, text: str) -> None:
    write_text(path, re.sub(r"[ \t]+\n", "\n", text).rstrip() + "\n")
