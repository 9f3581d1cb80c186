"""The tables' numbers, worked out by hand, and their escaping."""

from __future__ import annotations

import re

import pytest

from avalanche_branchtune.records import ProbeRecord, Run
from avalanche_branchtune.report import group_runs, text_table
from avalanche_branchtune.report.figures.matrices import matrix
from avalanche_branchtune.report.formats import Table, markdown, number, plain
from avalanche_branchtune.report.latex import latex
from avalanche_branchtune.report.tables import (
    all_tables,
    cost_table,
    environment_table,
    overall_table,
    runs_table,
    settings_tables,
    summary_table,
)
from tests.run_records import ENVIRONMENT, FIRST, SECOND, joint, probe, run

NASTY = r"a_b & 50% $x^2$ \cmd {z} #1 <script>alert('1')</script> | [x] *y* ~ „ü“ −1 微"


def test_summary_by_hand() -> None:
    groups = group_runs([run(seed=0), run(seed=1, rows=SECOND, peak_memory_mib=102.0), joint()])
    table = summary_table(groups, "knn")
    assert dict(zip(table.head, table.rows[0], strict=True)) == {
        "strategy": "fine-tuning",
        "runs n": "2",
        "final accuracy": "55.0 ± 7.1",
        "continual accuracy": "68.3 ± 2.4",
        "forgetting": "15.0 ± 14.1",
        "forward transfer": "10.0 ± 7.1",
        "backward transfer": "−10.0 ± 14.1",
        "stability S": "0.700 ± 0.000",
        "plasticity P": "0.500 ± 0.000",
    }
    assert table.rows[1] == ["joint", "1", "80.0", *["–"] * 6]
    assert "percent" in table.caption
    table = cost_table(groups)
    assert dict(zip(table.head, table.rows[0], strict=True)) == {
        "strategy": "fine-tuning",
        "runs n": "2",
        "training, s": "60.0 ± 0.0",
        "evaluation, s": "6.0 ± 0.0",
        "peak memory, MiB": "101 ± 1",
    }
    assert table.rows[1] == ["joint", "1", "60.0", "1.0", "–"]


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (100 * 0.2825, 1, "28.3"),  # 28.249999999999996
        (100 * ((0.28 + 0.285) / 2), 1, "28.3"),  # 28.250000000000004
        (28.25, 1, "28.3"),
        (-28.25, 1, "−28.3"),
        (28.2499, 1, "28.2"),
        (0.5, 0, "1"),
        (2.5, 0, "3"),
        (-0.04, 1, "0.0"),
        (0.0005, 3, "0.001"),
        (11_173_962, 0, "11173962"),
        (1e-12, 1, "0.0"),
        (1e300, 0, f"{1e300:.0f}"),
    ],
)
def test_one_way_of_rounding(value: float, decimals: int, text: str) -> None:
    assert number(value, decimals) == text


def test_one_number_is_the_same_in_every_table() -> None:
    """0.2825 as a mean over experiences, and over samples."""
    rows: list[list[float | None]] = [[0.1, 0.465]]  # whose mean is 0.28250000000000003
    record = ProbeRecord({}, rows, [0.2825], random=None, random_overall=0.2825)
    groups = group_runs([Run("a", 1, probes={"kNN": record})])
    summary, overall = summary_table(groups, "kNN"), overall_table(groups, "kNN")
    assert summary.rows[0][2] == overall.rows[0][1] == overall.rows[0][2] == "28.3"
    picture = matrix(groups[0], "kNN")
    assert picture is not None
    assert [text.get_text() for text in picture.figure.axes[0].texts] == ["10.0", "46.5"]


def test_characters_that_cannot_be_printed_are_not_written() -> None:
    table = Table("a", "b\x00\x1b", ["c\x07", "d\n"], [["\ufffd\u202e", "1"]], ["\x85"])
    text = latex(table)
    assert not [c for c in text if not c.isprintable() and c != "\n"] and "\ufffd" not in text
    assert "b??" in text and "c?" in text


def test_overall_by_hand() -> None:
    groups = group_runs([run(seed=0), run(seed=1, rows=SECOND[:2]), joint()])
    table = overall_table(groups, "knn")
    assert table.head == ["strategy", "before training", "after 0", "after 1", "after 2"]
    assert table.rows == [
        [
            "fine-tuning (1 of 2 runs partial)",
            "20.0 ± 0.0",
            "38.3 ± 7.1",
            "65.0 ± 7.1",
            "50.0 (n = 1)",
        ],
        ["joint", "20.0", "–", "–", "80.0"],
    ]


def test_partial_runs_are_marked_in_every_table() -> None:
    groups = group_runs([run(seed=0), run("half", rows=FIRST[:2])])
    row = summary_table(groups, "knn").rows[0]
    assert row[:4] == ["half (partial: 2 of 3 experiences)", "1", "–", "80.0"]
    assert row[4:7] == ["–"] * 3
    assert runs_table(groups).rows[0][2] == "2 of 3 (partial)"


def test_a_small_negative_number_is_zero() -> None:
    rows = [[0.5, 0.2], [0.4999, 0.6]]
    only = run(probes={"knn": probe(rows, random=None)})
    only.n_experiences = 2
    assert summary_table(group_runs([only]), "knn").rows[0][6] == "0.0"


def test_probes_are_never_mixed() -> None:
    both = {"knn": probe(FIRST), "linear": probe(SECOND)}
    groups = group_runs([run(probes=both), joint()])
    assert summary_table(groups, "knn").rows[0][2] == "50.0"
    assert summary_table(groups, "linear").rows[0][2] == "60.0"
    assert len(summary_table(groups, "linear").rows) == 1, "joint was not probed so"


def test_settings_are_sorted_into_shared_and_different() -> None:
    groups = group_runs([run(), run("other", settings={"data": "digits", "epochs": 9})])
    shared, different = settings_tables(groups)
    assert ["data", "digits"] in shared.rows
    assert ["epochs", "9", "2"] in different.rows
    assert ["optimizer.lr", "–", "0.1"] in different.rows


def test_environments_that_differ_get_a_column_each() -> None:
    groups = group_runs([run(), run(seed=1, environment={**ENVIRONMENT, "python": "3.12"})])
    table = environment_table(groups)
    assert table.head == ["part", "fine-tuning, seed 0", "fine-tuning, seed 1"]
    assert ["python", "3.11", "3.12"] in table.rows
    assert ["gpu", "none", "none"] in table.rows
    assert environment_table(group_runs([run()])).head == ["part", "all runs"]


def test_markdown_keeps_its_cells() -> None:
    table = Table("t", NASTY, ["strategy", "n"], [[NASTY, "1"], ["b", "2"]], [NASTY])
    lines = markdown(table).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in rows] == [3] * 4
    assert "<script>" not in markdown(table)
    assert r"a\_b &amp; 50% \$x^2\$ \\cmd \{z\} \#1 &lt;script&gt;" in markdown(table)
    assert rows[1] == "| --- | ---: |"


def test_latex_is_escaped_and_balanced() -> None:
    names = [NASTY, "[an option]", "*", "a--b", "±", "“q”"]
    groups = group_runs([run(name, settings={"s_": name}) for name in names])
    for table in all_tables(groups):
        text = latex(table)
        bare = re.sub(r"\\[\\{}&%$#_]", "", text)
        assert bare.count("{") == bare.count("}")
        assert bare.count("$") % 2 == 0 and "%" not in bare and "#" not in bare
        assert text.count(r"\begin{") == text.count(r"\end{")
        width = 0
        for line in text.splitlines():
            if line.endswith((r"\\", r"\tabularnewline")):
                assert len(re.sub(r"\\&", "", line).split("&")) == width, line
                assert line[0] not in "[*", "would be read as an option of the line before"
            elif line.startswith(r"\begin{tabular}"):
                width = len(re.findall(r"[lr]|p\{[^}]*\}", line.removeprefix(r"\begin{tabular}")))
    text = latex(summary_table(groups, "knn"))
    assert r"a\_b \& 50\% \$x\textasciicircum{}2\$ \textbackslash{}cmd \{z\} \#1" in text
    assert "a{-}{-}b" in text and r"\raggedright {[}an option{]} &" in text
    assert r"\toprule" in text and r"\label{tab:summary-knn}" in text


def test_plain_text_is_aligned() -> None:
    table = Table(
        "t", "caption", ["strategy", "final accuracy"], [["微调", "1.0"], ["b", "22.0"]], []
    )
    assert plain(table).splitlines() == [
        "caption",
        "",
        "             final",
        "strategy  accuracy",
        "------------------",
        "微调           1.0",
        "b             22.0",
    ]


def test_wide_plain_text_is_broken_into_parts() -> None:
    table = Table("t", "caption", ["strategy", "a", "b"], [["one", "1.00", "2.00"]], [])
    parts = plain(table, most=15).splitlines()
    assert parts[2:5] == ["strategy     a", "--------------", "one       1.00"]
    assert parts[6:] == ["strategy     b", "--------------", "one       2.00"]


def test_text_for_a_terminal() -> None:
    text = text_table(group_runs([run(seed=0), run(seed=1, rows=SECOND), joint()]))
    assert "Summary, probe knn" in text
    assert max(len(line) for line in text.splitlines()) <= 100
    assert re.search(r"^fine-tuning +2 +55\.0 ± 7\.1 +68\.3 ± 2\.4 ", text, re.MULTILINE)
    assert re.search(r"^joint +20\.0 +– +– +80\.0$", text, re.MULTILINE)
