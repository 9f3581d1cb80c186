"""Branch-tuning against fine-tuning on ROOT/train/<class>/*.jpg and ROOT/test/<class>/*.jpg."""

import argparse
import time
from pathlib import Path

import torch

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.evaluation import knn_probe
from avalanche_branchtune.report import peak_memory_mib
from avalanche_branchtune.streams import class_incremental, image_folder, joint
from solo_bridge import EvalTransform, SelfSupervised, SoloMethod
from solo_bridge.backbones import small_resnet

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("root", type=Path)
parser.add_argument("--experiences", type=int, default=5)
parser.add_argument("--epochs", type=int, default=10, help="of each experience")
parser.add_argument("--size", type=int, default=32, help="side of the views in pixels")
parser.add_argument(
    "--backbone", help="one of solo-learn's, e.g. resnet18; default: a small ResNet"
)
parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
parser.add_argument("--workers", type=int, default=1)

if __name__ == "__main__":
    o = parser.parse_args()
    train, test = image_folder(o.root / "train"), image_folder(o.root / "test")
    views = {"eval_transform": EvalTransform(o.size)}
    stream, everything = (
        class_incremental(train, test, o.experiences, **views),
        joint(train, test, **views),
    )
    bank, queries = everything.train_stream[0].dataset, everything.test_stream[0].dataset
    settings = {"optimizer": "sgd", "lr": 0.12, "weight_decay": 5e-4, "device": o.device}
    for name, plugins in (("fine-tuning", []), ("Branch-tuning", [BranchTuningPlugin()])):
        torch.manual_seed(0)
        method = SoloMethod("simclr", o.backbone or small_resnet(), image_size=o.size)
        strategy = SelfSupervised(method, train_epochs=o.epochs, plugins=plugins, **settings)
        for i, experience in enumerate(stream.train_stream):
            begin = time.perf_counter()
            strategy.train(experience, num_workers=o.workers)
            pace = (time.perf_counter() - begin) / o.epochs
            result = knn_probe(method, bank, queries, num_workers=o.workers)
            print(
                f"{name}, after experience {i}: {result.accuracy:.1%}, {pace:.1f} s/epoch,", end=" "
            )
            print(f"peak memory {peak_memory_mib():.0f} MiB; {result.protocol}", flush=True)
