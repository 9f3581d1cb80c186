"""``branchtune list``: what there is, by name."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping

Names = Mapping[str, str]


def arguments(parser: ArgumentParser) -> None:
    """Say what the command takes.

    :param parser: of the command.
    """
    parser.description = "A line for each name; without a kind, a line for each kind."
    parser.add_argument("kind", nargs="?", choices=tuple(KINDS), help="what to list")


def run(options: Namespace) -> int:
    """Print the list.

    :param options: see :func:`arguments`.
    """
    if options.kind is None:
        print(columns({kind: what for kind, (what, _) in KINDS.items()}))
    else:
        print(columns(KINDS[options.kind][1]()))
    return 0


def columns(names: Names) -> str:
    """Return two columns.

    :param names: name → what it is.
    """
    width = max(map(len, names))
    return "\n".join(f"{name:<{width}}  {what}".rstrip() for name, what in names.items())


def _methods() -> Names:
    from solo_bridge.defaults import DEFAULTS

    return {
        name: f"{found.optimizer.upper()}, lr {found.lr:g} · batch/256, {found.backbone}"
        for name, found in sorted(DEFAULTS.items())
    }


def _backbones() -> Names:
    from solo_bridge import job

    with job.unheard(errors=True):
        import timm
        from torchvision import models

        from solo_bridge.compat import load

        own = load().backbone_names()
    theirs = [name for name in models.list_models(module=models) if name not in own]
    return {
        "small_resnet": "three basic blocks, for images of 8 to 32 pixels; small_resnet(WIDTH)",
        **dict.fromkeys(own, "solo-learn"),
        **dict.fromkeys(theirs, "torchvision"),
        "…": f"any of timm's {len(timm.list_models())} models: timm.list_models()",
    }


def _strategies() -> Names:
    from solo_bridge.titles import TITLES

    return dict(sorted(TITLES.items()))


def _streams() -> Names:
    from avalanche_branchtune.streams import STREAMS

    return {name: found.title for name, found in STREAMS.items()}


def _scenarios() -> Names:
    from solo_bridge.comparison.scenarios import SCENARIOS

    return SCENARIOS


def _probes() -> Names:
    from solo_bridge.titles import PROBES

    return PROBES


def _presets() -> Names:
    from solo_bridge.presets import PRESETS

    return {name: f"{found.title}, arXiv {found.arxiv}" for name, found in PRESETS.items()}


KINDS: Mapping[str, tuple[str, Callable[[], Names]]] = {
    "methods": ("of solo-learn, with the settings they start from", _methods),
    "backbones": ("networks by name; a module of your own is as good", _backbones),
    "strategies": ("of compare, run and study, joined by +", _strategies),
    "streams": ("data by name, of run and of streams.named_stream", _streams),
    "scenarios": ("of study: how its data become experiences", _scenarios),
    "probes": ("of run and study; probe has knn and linear", _probes),
    "presets": ("the papers' settings; branchtune presets NAME prints one", _presets),
}
"""Kind → what it is, and its names."""
