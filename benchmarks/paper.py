"""As a paper ran it: ``python -m benchmarks.paper --preset cassle/cifar100 --data DIR --out OUT``.

Trains each strategy in a process of its own and writes its record to a folder of ``--out``, with
the preset and what of it was done otherwise; ``branchtune report OUT`` makes a page of them.  With
all its epochs a preset takes days on one GPU: ``--epochs`` shows that it runs, and no more.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from avalanche_branchtune.records import Run
from solo_bridge.comparison import Comparison, compare, everything


def options_of(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", required=True, help="see branchtune presets")
    parser.add_argument("--method", default="simclr")
    parser.add_argument("--data", required=True, help="folder with train/<class> and test/<class>")
    parser.add_argument("--strategies", help="joined by commas (default: what the paper compares)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="of each experience (default: the preset's)")
    parser.add_argument("--batch", type=int, help="images in a minibatch (default: the preset's)")
    parser.add_argument("--size", type=int, help="of the images (default: the preset's)")
    parser.add_argument("--experiences", type=int, help="of the stream (default: the preset's)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", required=True, help="folder of the records")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> list[Run]:
    options = options_of(words)
    settings = ("method", "data", "seed", "epochs", "batch", "size", "experiences", "device")
    comparison = Comparison.as_published(
        options.preset,
        workers=options.workers,
        command=f"python -m benchmarks.paper --preset {options.preset} --method {options.method}",
        **{name: getattr(options, name) for name in settings},
    )
    asked = options.strategies
    specs = everything(options.preset) if asked is None else asked.split(",")
    return compare(specs, comparison, options.out, separate=True, done=say)


def say(run: Run) -> None:
    accuracies = {name: round(probe.overall[-1], 4) for name, probe in run.probes.items()}
    settings = run.settings
    print(f"{run.name}: {accuracies}; {settings['preset']}; overridden: {settings['overridden']}")


if __name__ == "__main__":
    main()
