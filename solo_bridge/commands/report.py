"""``branchtune report``: a page, figures and tables of runs."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace


def arguments(parser: ArgumentParser) -> None:
    """Say what the command takes.

    :param parser: of the command.
    """
    parser.description = (
        "Compare runs on one page that needs no network, with its figures and tables "
        "as files. Runs of one name are averaged over their seeds."
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="folder of a run (it holds run.json), or a folder below which there are such folders",
    )
    parser.add_argument(
        "--out",
        default="report",
        metavar="DIR",
        help="folder for report.html, figures/, tables.md and tables.tex; older files of these "
        "names are replaced (default: report, in the current folder)",
    )
    parser.add_argument("--title", metavar="T", help="title of the page (default: the names)")


def run(options: Namespace) -> int:
    """Write the page.

    :param options: see :func:`arguments`.
    """
    from avalanche_branchtune.report import group_runs, write_report
    from avalanche_branchtune.report.notices import notices

    groups = group_runs(options.runs)
    page = write_report(groups, options.out, title=options.title)
    for notice in notices(groups):
        print(notice)
    print(page)
    return 0
