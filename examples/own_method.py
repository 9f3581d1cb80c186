"""A self-supervised method of one's own, trained with Branch-tuning over the digits stream."""

from torch import nn

from avalanche_branchtune import BranchTuningPlugin
from avalanche_branchtune.evaluation import knn_probe
from avalanche_branchtune.streams import class_incremental, digits_on_photographs, joint
from solo_bridge import (
    Augmentation,
    EvalTransform,
    SelfSupervised,
    SelfSupervisedMethod,
    solo_views,
)
from solo_bridge.backbones import small_resnet


class Spread(SelfSupervisedMethod):
    def __init__(self, width=16):
        super().__init__()
        self.backbone = small_resnet(width)
        self.projector = nn.Linear(4 * width, 32)

    def forward(self, x):
        return self.backbone(x)

    def loss(self, views):  # two views agree, features spread: any loss of lightly fits here too
        a, b = (self.projector(self.backbone(v)) for v in views)
        return (a - b).square().mean() + (1 - a.std(dim=0)).relu().mean()


def main(epochs=3, samples=1000):
    train, test = digits_on_photographs(True, samples=samples), digits_on_photographs(False)
    stream = class_incremental(train, test, 5, eval_transform=EvalTransform(16))
    everything = joint(train, test, eval_transform=EvalTransform(16))
    bank, queries = everything.train_stream[0].dataset, everything.test_stream[0].dataset
    method = Spread()
    views = solo_views([Augmentation(crop_size=16, crop_min_scale=0.5, num_crops=2)])
    plugins = [BranchTuningPlugin()]
    strategy = SelfSupervised(
        method, views=views, optimizer="adam", lr=1e-2, train_epochs=epochs, plugins=plugins
    )
    for experience in stream.train_stream:
        strategy.train(experience)
        result = knn_probe(method, bank, queries)
        print(f"{result.accuracy:.1%}: {result.protocol}")


if __name__ == "__main__":
    main()
