"""Branch-tuning against fine-tuning on ROOT/train/<class>/*.jpg and ROOT/test/<class>/*.jpg."""

import argparse
from pathlib import Path

import torch
from avalanche.training.plugins import EvaluationPlugin

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.evaluation import KNNProbe, StreamProbe
from avalanche_branchtune.metrics import AnalysisMetric, RunRecorder, run_metrics
from avalanche_branchtune.report import write_report
from avalanche_branchtune.streams import class_incremental, image_folder
from solo_bridge import EvalTransform, SelfSupervised, SoloMethod
from solo_bridge.backbones import small_resnet

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("root", type=Path)
parser.add_argument("--experiences", type=int, default=5)
parser.add_argument("--epochs", type=int, default=10, help="of each experience")
parser.add_argument("--size", type=int, default=32, help="side of the views in pixels")
parser.add_argument("--backbone", help="one of solo-learn's, e.g. resnet18; default: small_resnet")
parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
parser.add_argument("--workers", type=int, default=0, help="processes that load data")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", type=Path, default=Path("runs/image_folder"))

if __name__ == "__main__":
    o = parser.parse_args()
    cache = o.out / "pixels"  # decoded images: each file is read once
    train = image_folder(o.root / "train", cache=cache)
    test = image_folder(o.root / "test", cache=cache)
    view = EvalTransform(o.size)
    stream = class_incremental(train, test, o.experiences, eval_transform=view, seed=o.seed)
    probe = StreamProbe(KNNProbe(), stream.train_stream, stream.test_stream, num_workers=o.workers)
    batched = o.size <= 64 or o.device != "cpu"  # faster there
    settings = {
        "optimizer": "sgd",
        "lr": 0.12,
        "weight_decay": 5e-4,
        "device": o.device,
        "views": "batched" if batched else "solo_learn",
    }
    facts = {"data": str(o.root), "backbone": o.backbone or "small_resnet", **settings}
    for name, plugins in (("fine-tuning", []), ("Branch-tuning", [BranchTuningPlugin()])):
        torch.manual_seed(o.seed)
        recorder = RunRecorder(o.out / f"{name}-{o.seed}", name, seed=o.seed, settings=facts)
        metrics = run_metrics([probe], AnalysisMetric(stream.test_stream))
        strategy = SelfSupervised(
            SoloMethod("simclr", o.backbone or small_resnet(), image_size=o.size),
            train_epochs=o.epochs,
            plugins=plugins,
            evaluator=EvaluationPlugin(*metrics, loggers=[recorder]),
            **settings,
        )
        for i, experience in enumerate(stream.train_stream):
            strategy.train(experience, num_workers=o.workers)
            strategy.eval(stream.test_stream, loss=False)
            found = recorder.run.probes["kNN"].overall[-1]
            pace = recorder.run.seconds[-1] / o.epochs
            print(f"{name}, after experience {i}: {found:.1%}, {pace:.1f} s/epoch", flush=True)
    print(write_report([o.out], o.out))
