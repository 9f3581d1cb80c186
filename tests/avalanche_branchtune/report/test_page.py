"""The page as a file."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from avalanche_branchtune.errors import RecordError
from avalanche_branchtune.report import group_runs, write_report
from tests.run_records import FIRST, SECOND, full, joint, run

NASTY = "<script>alert(1)</script> & 50% a_b $x$ \\y \"q\" 'r' 微"
HEADINGS = [
    "Before you compare",
    "Summary",
    "Cost",
    "Accuracy over experiences",
    "Accuracy matrices",
    "Stability and plasticity by layer",
    "Features in the plane",
    "Branch norms by layer",
    "Accuracy during training",
    "Settings and protocol",
    "Versions and hardware",
]


class Page(HTMLParser):
    """Tags with their attributes, and the text in each kind of tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)
            self.text.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, "tags must be closed in order"

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.text[tag][-1] += data


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    runs = [
        full(),
        full(seed=1),
        run(NASTY, rows=SECOND, settings={NASTY: NASTY, "url": "https://example.org/data"}),
        run("half", rows=FIRST[:2]),
        joint(),
    ]
    page = write_report(runs, folder / "out", title=f"Title {NASTY}")
    assert page == folder / "out" / "report.html"
    return folder / "out"


@pytest.fixture
def tables_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of the time."""
    monkeypatch.setattr("avalanche_branchtune.report.page.all_pictures", lambda groups: {})


@pytest.fixture(scope="module")
def page(out: Path) -> Page:
    return Page((out / "report.html").read_text(encoding="utf-8"))


def test_structure(page: Page) -> None:
    assert page.open == []
    assert ("html", {"lang": "en"}) in page.tags
    assert page.text["h1"] == [f"Title {NASTY}"]
    assert page.text["h2"] == HEADINGS
    tags = [tag for tag, _ in page.tags]
    assert tags.count("table") == tags.count("caption") == tags.count("thead")
    assert {a.get("scope") for tag, a in page.tags if tag == "th"} == {"col", "row"}
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(set(ids)) == len(ids)
    links = [a["href"] for tag, a in page.tags if tag == "a"]
    assert links and all(link and link[0] == "#" and link[1:] in ids for link in links)


def test_numbers_are_there(page: Page) -> None:
    cells = page.text["td"]
    for number in ("50.0 ± 0.0", "60.0", "80.0", "−20.0 ± 0.0", "0.700 ± 0.000"):
        assert number in cells
    assert "half (partial: 2 of 3 experiences)" in page.text["th"]
    assert any("half, seed 0 finished 2 of 3 experiences" in said for said in page.text["li"])


def test_nothing_is_loaded(out: Path, page: Page) -> None:
    html = (out / "report.html").read_text(encoding="utf-8")
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form")
        for name in ("src", "srcset", "href", "data", "action", "style", "onload"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)
    (style,) = page.text["style"]
    assert "url(" not in style and "@import" not in style
    assert re.findall(r"https?://[^\s<\"]+", html) == ["https://example.org/data"], "only as text"


def test_names_are_escaped(out: Path, page: Page) -> None:
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "<script" not in html and "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert NASTY in page.text["th"]


def test_figures_have_text_and_are_whole(page: Page) -> None:
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == len(page.text["figcaption"]) == len(page.text["figure"])
    for image in images:
        assert image["alt"] and re.search(r"\d", image["alt"])
        kind, _, content = str(image["src"]).partition(",")
        assert kind == "data:image/svg+xml;base64"
        ElementTree.fromstring(base64.b64decode(content))
    described = " ".join(str(image["alt"]) for image in images)
    for number in ("50.0 ± 0.0", "After 2: 60.0, 50.0, 40.0.", "mean 0.700", "1.500", "last 60.0"):
        assert number in described


def test_files(out: Path) -> None:
    figures = sorted(path.stem for path in (out / "figures").glob("*.svg"))
    assert {"curves-knn", "matrix-knn-branch-tuning", "matrix-knn-joint", "layers"} <= set(figures)
    assert {"embedding-branch-tuning", "branch-norms-branch-tuning"} <= set(figures)
    assert "training-branch-tuning" in figures
    for figure in figures:
        for suffix in ("svg", "png", "pdf"):
            assert (out / "figures" / f"{figure}.{suffix}").stat().st_size > 4000
    markdown = (out / "tables.md").read_text(encoding="utf-8")
    latex = (out / "tables.tex").read_text(encoding="utf-8")
    assert "| Branch-tuning | 2 | 50.0 ± 0.0 |" in markdown and "<script" not in markdown
    assert r"Branch{-}tuning & 2 & 50.0 $\pm$ 0.0 &" in latex
    assert latex.count(r"\begin{table}") == markdown.count("\n| ---")
    head = latex[: latex.index(r"\begin{table}")]
    assert all(line.startswith("%") for line in head.splitlines() if line)


def test_what_was_not_measured_is_left_out(tmp_path: Path) -> None:
    page = Page(write_report([joint()], tmp_path).read_text(encoding="utf-8"))
    assert page.text["h1"] == ["joint"]
    assert page.text["h2"] == [HEADINGS[i] for i in (1, 2, 4, 9, 10)]


def test_refusals_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"settings\.data"):
        write_report([run(), run(seed=1, settings={"epochs": 5})], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("tables_alone")
def test_runs_folders_and_groups_make_one_page(tmp_path: Path) -> None:
    less: dict[str, Any] = {"stability": [], "plasticity": []}
    runs = [run(**less), run(seed=1, rows=SECOND, **less), joint()]
    folders = [one.save(tmp_path / "runs" / str(i)) for i, one in enumerate(runs)]
    groups = group_runs(runs)
    assert group_runs(groups) == groups
    given = [runs, [tmp_path / "runs"], [groups[0], str(folders[2])]]
    pages = [write_report(some, tmp_path / f"out{i}") for i, some in enumerate(given)]
    assert len({page.with_name("tables.md").read_text(encoding="utf-8") for page in pages}) == 1
    with pytest.raises(RecordError, match="seed 0 is there twice"):
        write_report([*groups, run(**less)], tmp_path / "out")


@pytest.mark.usefixtures("tables_alone")
def test_the_page_opens_with_what_how_often_and_by_which_command(tmp_path: Path) -> None:
    caveat = "Too short to say <anything>."
    shared = {"data": "digits", "stream": "3 experiences", "epochs": 2, "caveat": caveat}
    shared["command"] = "branchtune compare --strategies … --epochs 2"
    runs = [
        run(name, seed, settings={**shared, "specification": spec})
        for name, spec in (("fine-tuning", "fine_tuning"), ("Both", "branch_tuning+cassle"))
        for seed in (0, 4)
    ]
    html = write_report(runs, tmp_path).read_text(encoding="utf-8")
    page = Page(html)
    command = "branchtune compare --strategies branch_tuning+cassle,fine_tuning --epochs 2"
    assert page.text["dt"] == ["Compared", "On", "Runs", "Command"]
    assert [" ".join(text.split()) for text in page.text["dd"]] == [
        "Both, fine-tuning",
        "digits; 3 experiences; epochs 2",
        "n = 2 of each strategy, seeds 0, 4",
        command,
    ]
    assert page.text["li"][0] == caveat and html.index("<dl") < html.index("<table")
    assert caveat not in page.text["td"], "once"
    markdown = (tmp_path / "tables.md").read_text(encoding="utf-8")
    assert "Too short to say &lt;anything&gt;" in markdown
    assert "branch\\_tuning+cassle,fine\\_tuning --epochs 2" in markdown


def test_a_strategy_has_its_colour_beside_its_name(page: Page) -> None:
    marks = [a["class"] for tag, a in page.tags if tag == "span" and "look" in str(a.get("class"))]
    assert {f"look look{i}" for i in range(4)} == set(marks)
    (style,) = page.text["style"]
    colours = re.findall(r"\.look\d+ \{ background: (#\w+); \}", style)
    assert len(set(colours)) == len(colours) == 4


@pytest.mark.usefixtures("tables_alone")
def test_the_best_of_several_runs_is_bold(tmp_path: Path) -> None:
    runs = [run(name, s, rows=r) for name, r in (("a", FIRST), ("b", SECOND)) for s in (0, 1)]
    write_report([*runs, joint(), joint(1)], tmp_path)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    bold = re.findall(r'<td class="best"><span>([^<]*)</span>', html)
    # of `a` continual accuracy and forward transfer, after 0 and 1; of `b` the others
    assert bold == ["70.0", "15.0", "60.0", "5.0", "0.0", "43.3", "70.0", "60.0"]
    markdown = (tmp_path / "tables.md").read_text(encoding="utf-8")
    assert "| b | 2 | **60.0 ± 0.0** | 66.7 ± 0.0 | **5.0 ± 0.0** |" in markdown
    assert r"\textbf{60.0 $\pm$ 0.0}" in (tmp_path / "tables.tex").read_text(encoding="utf-8")


@pytest.mark.usefixtures("tables_alone")
def test_a_number_over_fewer_experiences_is_not_the_best(tmp_path: Path) -> None:
    runs = [run("whole", s, rows=FIRST) for s in (0, 1)]
    high = [[0.9] * len(row) for row in SECOND]
    runs += [run("cut", s, rows=high[:1]) for s in (0, 1)]
    write_report([*runs, joint(), joint(1)], tmp_path)
    tables = (tmp_path / "tables.md").read_text(encoding="utf-8").split("Summary", 1)[1]
    row = next(line for line in tables.splitlines() if line.startswith("| cut"))
    assert "90.0" in row and "**" not in row, row
    write_report([*runs[:3], joint()], tmp_path / "single")
    assert 'class="best"' not in (tmp_path / "single/report.html").read_text(encoding="utf-8")
