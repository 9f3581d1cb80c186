"""``branchtune export``: the backbone of a checkpoint, for other programs."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from solo_bridge.commands import checkpoints

FORMATS = ("solo-learn", "torchvision", "timm", "safetensors", "onnx")


def arguments(parser: ArgumentParser) -> None:
    """Say what the command takes.

    :param parser: of the command.
    """
    parser.description = (
        "Writes the backbone alone, the branches of an expanded one merged, and reads it back: "
        "the file is there only if the outputs on random images are the same."
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help=checkpoints.CHECKPOINT)
    parser.add_argument("out", metavar="OUT", help="file; what is there is replaced")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        required=True,
        help="solo-learn: .ckpt, with args.json; torchvision, timm: .pt, .pth or .safetensors, "
        "named as theirs, without a classifier; safetensors: as here; onnx: needs [onnx]",
    )
    parser.add_argument(
        "--generation",
        choices=("main", "1.0.2"),
        default="main",
        help="of solo-learn, which is to read it (default: main)",
    )
    checkpoints.arguments(parser)


def run(options: Namespace) -> int:
    """Write the file.

    :param options: see :func:`arguments`.
    """
    network = checkpoints.read(options.checkpoint, options)
    from solo_bridge import job
    from solo_bridge.exporting import export, stem_of

    with job.unheard(errors=True):
        said = export(network, options.out, options.format, generation=options.generation)
    print(f"{options.out}: {network.name}, {said}")
    if options.format in ("torchvision", "timm") and stem_of(network):
        print(f"Its stem is for small images: before loading, {stem_of(network)}")
    return 0
