"""Make notebooks and scripts of the lessons: ``make lessons``.

A lesson has one source, a page of MyST-NB beside this file; what is made of it lies in
examples/lessons, as ``.ipynb`` for Jupyter and as ``.py`` with its cells marked by ``# %%``.
"""

import json
import re
from pathlib import Path

HERE = Path(__file__).parent
OUT = HERE.parents[1] / "examples" / "lessons"
CELL = re.compile(r"^```\{code-cell\} python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def cells(page):
    """Return the cells of a page: (kind, text)."""
    front, body = page.removeprefix("---\n").split("\n---\n", 1)
    if "file_format: mystnb" not in front:
        raise ValueError("a lesson begins with the front matter of MyST-NB")
    parts = CELL.split(body)
    found = [("code" if i % 2 else "markdown", part.strip()) for i, part in enumerate(parts)]
    strange = [text for kind, text in found if kind == "markdown" and "```{" in text]
    if strange:
        raise ValueError(f"a notebook has text and cells of Python, nothing else: {strange}")
    return [(kind, text) for kind, text in found if text]


def notebook(page):
    """Return a page as a notebook, without outputs."""
    made = []
    for number, (kind, text) in enumerate(cells(page)):
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
        if kind == "code":
            cell.update(execution_count=None, outputs=[])
        made.append({**cell, "source": text.splitlines(keepends=True)})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    whole = {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def script(page):
    """Return a page as a script: the text as comments, each cell behind a mark."""
    made = []
    for kind, text in cells(page):
        if kind == "markdown":
            lines = [f"# {line}".rstrip() for line in text.splitlines()]
            made.append("\n".join(["# %% [markdown]", *lines]))
        else:
            made.append(f"# %%\n{text}")
    return "\n\n".join(made) + "\n"


def made():
    """Return all that is made: path → text."""
    found = {}
    for source in sorted(HERE.glob("[1-9]_*.md")):
        page = source.read_text(encoding="utf-8")
        found[OUT / f"{source.stem}.ipynb"] = notebook(page)
        found[OUT / f"{source.stem}.py"] = script(page)
    return found


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    for path, text in made().items():
        path.write_text(text, encoding="utf-8")
        print(path)
