"""``branchtune probe``: how well a checkpoint's features tell classes apart."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from solo_bridge.commands import checkpoints

SCOPES = ("all", "seen", "experience")


def arguments(parser: ArgumentParser) -> None:
    """Say what the command takes.

    :param parser: of the command.
    """
    parser.description = (
        "Fits probes on the frozen features of the training images and judges them on the test "
        "images. Without --data, the folder of a run is judged on the run's own stream."
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help=checkpoints.CHECKPOINT)
    parser.add_argument("--data", help=checkpoints.DATA)
    parser.add_argument(
        "--probe",
        default="knn",
        metavar="NAMES",
        help="knn, linear, or both joined by a comma (default: knn)",
    )
    parser.add_argument(
        "--scope",
        choices=SCOPES,
        default="all",
        help="which classes one classifier tells apart: all (default), those of the experiences "
        "seen so far, or each experience's own",
    )
    parser.add_argument(
        "--experiences", type=int, metavar="N", help="into which the classes are divided"
    )
    parser.add_argument(
        "--trained",
        type=int,
        metavar="N",
        help="experiences that were seen, for --scope seen (default: all of them)",
    )
    parser.add_argument("--seed", type=int, help="of the classes' order, and of chosen labels")
    parser.add_argument(
        "--label-share",
        type=float,
        default=1.0,
        metavar="X",
        help="of each class's training labels that are used, above 0 and at most 1 (default: 1)",
    )
    parser.add_argument("--k", type=int, default=20, metavar="N", help="neighbours (default: 20)")
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that load images"
    )
    checkpoints.arguments(parser)
    parser.add_argument("--json", metavar="FILE", help="where to write all that was found")


def run(options: Namespace) -> int:
    """Judge the backbone.

    :param options: see :func:`arguments`.
    """
    names = _checked(options)
    network = checkpoints.read(options.checkpoint, options)
    from avalanche_branchtune.evaluation import FeatureCache, KNNProbe, LinearProbe, StreamProbe
    from avalanche_branchtune.evaluation.probe import sentence
    from avalanche_branchtune.options import between

    settings = _stream(options, network.size)
    settings.check_stream()
    stream = settings.stream(view=network.view)
    length = len(stream.train_stream)
    asked = length if options.trained is None else options.trained
    trained = int(between(1, length, "--trained", asked))
    made = {"knn": KNNProbe(options.k), "linear": LinearProbe(seed=settings.seed)}
    how: dict[str, Any] = {"batch_size": 256, "num_workers": options.workers}
    how |= {"label_share": options.label_share, "seed": settings.seed, "cache": FeatureCache()}
    facts = {**settings.stream_facts(), **network.view.facts()}
    lines = [f"{network.path}: {network.name}, {network.size} pixels, on {facts['data']}"]
    found: dict[str, Any] = {}
    for name in names:
        streams = stream.train_stream, stream.test_stream
        probe = StreamProbe(made[name], *streams, scope=options.scope, **how)
        result = probe.measure(network.backbone, trained)
        assert result.overall is not None
        found[probe.name] = {
            "accuracy": result.overall,
            "accuracies": result.accuracies,
            "protocol": result.settings,
        }
        each = ", ".join("–" if a is None else f"{100 * a:.2f}" for a in result.accuracies)
        several = f" (of each experience: {each})" if length > 1 else ""
        lines.append(f"{probe.name}: {100 * result.overall:.2f} %{several}")
        lines.append(f"  {sentence(result.settings)}")
    print("\n".join(lines))
    if options.json is not None:
        checkpoints.write_json(
            options.json,
            {
                "checkpoint": str(network.path),
                "backbone": network.name,
                **facts,
                "seed": settings.seed,
                "experiences trained": trained,
                "probes": found,
            },
        )
    return 0


def _checked(options: Namespace) -> list[str]:
    """Return the names of the probes; refuse what cannot be before anything is read."""
    from avalanche_branchtune.errors import UnknownOptionError
    from avalanche_branchtune.options import at_least, at_least_one, fraction, one_of

    names = list(dict.fromkeys(options.probe.replace(" ", "").split(",")))
    for name in names:
        one_of("--probe", name, ("knn", "linear"))
    at_least_one("--k", options.k)
    at_least(0, "--workers", options.workers)
    fraction("--label-share", options.label_share)
    if options.experiences is not None:
        at_least_one("--experiences", options.experiences)
    if options.trained is not None and options.scope != "seen":
        raise UnknownOptionError(f"--trained: of --scope seen; got --scope {options.scope}")
    return names


def _stream(options: Namespace, size: int) -> Any:
    """Return what the network is judged on: as it is said, else the run's own stream."""
    import os
    from dataclasses import replace
    from pathlib import Path

    from avalanche_branchtune.errors import RecordError, UnknownOptionError
    from solo_bridge.comparison.asked import ASKED, asked
    from solo_bridge.comparison.configured import Configured
    from solo_bridge.comparison.resumed import made
    from solo_bridge.comparison.scenarios import StreamSettings

    asked_for = {"data": options.data, "experiences": options.experiences, "seed": options.seed}
    given: dict[str, Any] = {k: v for k, v in asked_for.items() if v is not None}
    run = asked(Path(options.checkpoint)) if options.data is None else None
    if run is not None:
        try:
            own = made(run.settings)
        except TypeError as error:
            where = Path(options.checkpoint) / ASKED
            raise RecordError(f"{where} is of another version: {error}: say --data") from error
        if isinstance(own, Configured) and options.experiences is not None:
            raise UnknownOptionError("--experiences: of --data; the run's own stream says how many")
        if getattr(own, "class_seed", None) is not None and "seed" in given:
            given["class_seed"] = options.seed
        if isinstance(own, Configured) and "seed" in own.stream_options and "seed" in given:
            given["stream_options"] = {**own.stream_options, "seed": options.seed}
        if options.json is not None:
            options.json = os.path.abspath(options.json)
        if os.path.isdir(run.directory):
            os.chdir(run.directory)  # the stream's paths are relative to it
        return replace(own, size=size, **given)
    if options.data is None:
        raise UnknownOptionError(f"--data: expected a {checkpoints.DATA}; nothing was given")
    return StreamSettings(**{"experiences": 1, **given}, size=size)
