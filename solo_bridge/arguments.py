"""The command line of ``branchtune``."""

from __future__ import annotations

import argparse

from avalanche_branchtune import __version__

EPOCHS = {"demo": 16, "compare": 6}
"""Of each experience, unless told otherwise."""
EXPERIENCES = 5


def parser() -> argparse.ArgumentParser:
    """Return the command line: a command's name is in ``command``."""
    top = argparse.ArgumentParser(
        prog="branchtune",
        description="Continual self-supervised learning with Branch-tuning.",
        epilog="branchtune COMMAND --help says more about a command.",
    )
    top.add_argument("--version", action="version", version=f"branchtune {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    check = commands.add_parser(
        "check",
        help="find images that cannot be read, or are not what they seem, before a run",
        description="Decode every image below a folder as a run would, and look at its classes. "
        "Exit status: 0 if all is well, 1 if there are errors, 2 for no folder.",
    )
    compare = commands.add_parser(
        "compare", help="compare any strategies, each in a process of its own"
    )
    demo = commands.add_parser("demo", help="compare strategies on a stream that needs no download")
    commands.add_parser("doctor", help="print versions, what will work and what to do")
    report = commands.add_parser(
        "report",
        help="make a page, figures and tables from the records of runs",
        description="Compare runs on one page that needs no network, with its figures and tables "
        "as files. Runs of one name are averaged over their seeds.",
    )
    resume = commands.add_parser(
        "resume",
        help="go on with an interrupted comparison, or with one run of it",
        description="Goes on with what compare and demo began, with the arguments that they had: "
        "finished strategies are kept, the interrupted one goes on, the rest are trained. A script "
        "of your own is started again instead, with Checkpoints(..., resume=True).",
    )
    status = commands.add_parser(
        "status",
        help="list the runs below a folder: what runs, what died, what is done",
        description="Lists every run that has a sidecar.json or a comparison.json: its state, how "
        "far it is, when it last said so and was last saved, and where it runs.",
    )
    study = commands.add_parser(
        "study",
        help="run arms × streams × schedules × seeds, and say what the seeds support",
        description="Runs what a plan asks for and is not finished, several runs at a time, and "
        "writes <plan>.json and <plan>.md there: means, paired differences to fine-tuning on the "
        "same seeds, and orderings as far as the seeds support them. Started again it goes on.",
    )
    presets = commands.add_parser(
        "presets",
        help="list the papers' settings, or print all of one",
        description="The papers' settings by name, as compare --preset and "
        "SoloMethod.from_preset take them.",
    )
    views = commands.add_parser(
        "views",
        help="draw what a method's views of images look like",
        description="Writes a picture with a row for each image: the image, its views by Pillow, "
        "and its views made by the minibatch.",
    )
    study.add_argument(
        "plan", metavar="PLAN", help="YAML file, see solo_bridge.study.plan.read_plan"
    )
    study.add_argument(
        "--out", help="folder of the runs, which plans may share (default: runs/study)"
    )
    study.add_argument("--hours", type=float, metavar="N", help="begin no run after so many hours")
    study.add_argument(
        "--threads", type=int, default=1, metavar="N", help="of each run (default: 1)"
    )
    study.add_argument("--list", action="store_true", help="list the runs and do nothing else")
    study.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="FILE",
        help="as of compare",
    )
    presets.add_argument("name", nargs="?", metavar="NAME", help="of a preset (default: list them)")
    check.add_argument("folder", metavar="FOLDER", help="with images, or with train/ and test/")
    check.add_argument(
        "--size", type=int, metavar="PIXELS", help="side under which an image is noted"
    )
    check.add_argument("--workers", type=int, help="processes (default: one for each core)")
    check.add_argument("--json", metavar="FILE", help="where to write all that was found")
    for command in (demo, compare):
        name = command.prog.split()[-1]
        command.add_argument("--out", help=f"folder for the results (default: runs/{name}-<time>)")
        command.add_argument("--seed", type=int, default=0)
        command.add_argument(
            "--epochs", type=int, help=f"of each experience (default: {EPOCHS[name]})"
        )
        command.add_argument("--device", default="cpu")
        command.add_argument("--samples", type=int, default=4000, help="number of training images")
        command.add_argument(
            "--views",
            choices=("batched", "solo_learn"),
            help="how they are made: of a whole minibatch at once, or by solo-learn's own pipeline "
            "(default: as is faster, batched up to 64 pixels and on a GPU)",
        )
        command.add_argument(
            "--threads",
            type=int,
            default=1,
            metavar="N",
            help="of each strategy (default: 1); with more, sums are rounded otherwise",
        )
    for command in (compare, demo, resume, study):
        command.add_argument(
            "--jobs",
            type=int,
            metavar="N",
            help="how many strategies train at a time, on which no number depends (default: one "
            "for each core; 1 on a GPU, and under torchrun)",
        )
        command.add_argument(
            "--checkpoint-minutes",
            type=float,
            default=30.0,
            metavar="N",
            help="how often to save within an experience (default: 30)",
        )
        command.add_argument(
            "--keep-checkpoints",
            action="store_true",
            help="keep the checkpoints of finished runs, which are removed otherwise",
        )
    views.add_argument(
        "--method", help="name of a solo-learn method (default: simclr, for digits as in demo)"
    )
    views.add_argument("--data", metavar="FOLDER", help="of images (default: the digits of demo)")
    views.add_argument(
        "--size",
        type=int,
        metavar="N",
        help="side of a view in pixels (default: 16, of a folder 32)",
    )
    views.add_argument("--images", type=int, default=8, metavar="N", help="rows (default: 8)")
    views.add_argument("--seed", type=int, default=0)
    views.add_argument("--out", default="views.png", metavar="FILE", help="default: views.png")
    resume.add_argument("folder", metavar="FOLDER", help="of a run or of a comparison")
    status.add_argument("folder", metavar="FOLDER", help="of runs")
    status.add_argument("--json", action="store_true", help="print JSON; times are in seconds")
    compare.add_argument(
        "--strategies",
        help="names joined by commas, each of parts joined by +, such as "
        "fine_tuning,branch_tuning+cassle (default: all there are, and some together)",
    )
    compare.add_argument("--list", action="store_true", help="list the names and do nothing else")
    compare.add_argument("--method", default="simclr", help="name of a solo-learn method")
    compare.add_argument(
        "--preset",
        metavar="NAME",
        help="train as a paper did, on a ResNet-18: its method, schedule, stream and plugins, "
        "unless told otherwise here; needs --data (see branchtune presets)",
    )
    compare.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="FILE",
        help="Python file that registers strategies or plugins of your own by @register; it is "
        "run; may be given several times",
    )
    compare.add_argument(
        "--data",
        help="folder with train/<class> and test/<class> images, or cifar100:FOLDER, which has "
        "CIFAR-100 as torchvision keeps it",
    )
    compare.add_argument(
        "--size", type=int, help="side of the images in pixels (default: 16; 32 of --data)"
    )
    compare.add_argument("--experiences", type=int, help=f"of the stream (default: {EXPERIENCES})")
    compare.add_argument(
        "--workers", type=int, default=0, help="processes that load data for each strategy"
    )
    report.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="folder of a run (it holds run.json), or a folder below which there are such folders",
    )
    report.add_argument(
        "--out",
        default="report",
        metavar="DIR",
        help="folder for report.html, figures/, tables.md and tables.tex; older files of these "
        "names are replaced (default: report, in the current folder)",
    )
    report.add_argument("--title", metavar="T", help="title of the page (default: the names)")
    return top
