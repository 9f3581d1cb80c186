"""Settings that each method starts from; every one can be overridden.

They are no paper's runs: those are :mod:`solo_bridge.presets`, by
:meth:`solo_bridge.SoloMethod.from_preset`, with what is listed at the end here.

SimCLR, BYOL and Barlow Twins: the scripts of Liu et al., arXiv 2403.18266
(CIFAR-100, ResNet-18, batch 256); MoCo v2+ and the others, and the
augmentations: solo-learn's own configurations for CIFAR.

Solo-learn's code: vturrisi/solo-learn 9187ea3, scripts/pretrain/cifar/*.yaml and
scripts/pretrain/cifar/augmentations/*.yaml.
Differs: solo-learn's SimCLR has weight decay 1e-4 and blur 0.5, ours 1e-5 and no blur.
Differs: solo-learn's Barlow Twins has λ 0.0051, ours 0.005.
Differs: solo-learn's MAE has ViT-Small, ours ViT-Tiny.
Differs: solo-learn's DINO warms the teacher's temperature up for 0 epochs, ours for 50, the default
of release 1.0.2.
Differs: solo-learn's VIbCReg does not clip LARS, ours does.
Differs: solo-learn's DeepClusterV2 warms up from 0 for 11 epochs and ends at 6e-4, ours from 3e-5
for 10 at most and ends at 0.
Differs: solo-learn's W-MSE warms up from 0, ours from 3e-5.

Authors' code: SmallPigPeppa/ISSL 37827a5, bash_files/continual/cifar/simclr_reparam_1x3.sh,
byol_reparam_fixbn_1x3.sh and barlow_reparam_fixbn_1x3.sh (Liu et al.).
Differs: theirs gives the optimizer weight decay 0 whatever the scripts say
(cassle/methods/base.py, configure_optimizers), ours what the scripts say.
Differs: their MoCo v2+ has LARS also on bias and norms, a queue of 65536, embeddings of 128 and no
blur; ours SGD, 32768, 256 and blur 0.5, which are solo-learn's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from solo_bridge.augmentation import Augmentation


@dataclass(frozen=True)
class Defaults:
    """Where a method starts from.

    :param method_kwargs: solo-learn's own settings of the method.
    :param lr: learning rate for a batch of 256.
    :param weight_decay: weight decay.
    :param augmentations: pipelines of the views.
    :param optimizer: the optimizer it was published with.
    :param optimizer_settings: its further settings.
    :param tau: first and last decay of the momentum network.
    :param large_views: number of full-size views.
    :param backbone: backbone if none is named.
    :param needs: what the loss takes beside the views: ``"index"`` of each
        sample in the experience, or ``"labels"``.
    :param evaluates: whether the loss is defined outside training, on other data.
    :param first_epoch_is_nan: whether the loss of the first epoch is NaN by
        design (no targets yet; its gradients are zero).
    """

    method_kwargs: Mapping[str, Any]
    lr: float
    weight_decay: float
    augmentations: tuple[Augmentation, ...]
    optimizer: str = "lars"
    optimizer_settings: Mapping[str, Any] = field(default_factory=dict)
    tau: tuple[float, float] = (0.99, 1.0)
    large_views: int = 2
    backbone: str = "resnet18"
    needs: frozenset[str] = field(default_factory=frozenset)
    evaluates: bool = True
    first_epoch_is_nan: bool = False


_ASYMMETRIC = (Augmentation(), Augmentation(solarization_prob=0.2))
_STRONG = Augmentation(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, num_crops=2)
_STRONG_BLUR = replace(_STRONG, blur_prob=0.5)
_WEAK = Augmentation(saturation=0.4, blur_prob=0.5, num_crops=2)
_CLOSE = Augmentation(crop_min_scale=0.2, solarization_prob=0.1, num_crops=2)
_PLAIN = Augmentation(jitter_prob=0.0, grayscale_prob=0.0)


def _mlp(hidden: int, output: int, predictor: int | None = None, **more: Any) -> dict[str, Any]:
    sizes = {"proj_hidden_dim": hidden, "proj_output_dim": output}
    return {**sizes, **({} if predictor is None else {"pred_hidden_dim": predictor}), **more}


DEFAULTS: Mapping[str, Defaults] = MappingProxyType(
    {
        "all4one": Defaults(
            _mlp(2048, 256, 4096, temperature=0.2, queue_size=98304), 1.0, 1e-5, _ASYMMETRIC
        ),
        "barlow_twins": Defaults(
            _mlp(2048, 2048, lamb=0.005, scale_loss=0.1), 0.3, 1e-4, _ASYMMETRIC
        ),
        "byol": Defaults(_mlp(4096, 256, 4096), 1.0, 1e-5, _ASYMMETRIC),
        "deepclusterv2": Defaults(
            _mlp(2048, 128, num_prototypes=[3000] * 3, temperature=0.1, kmeans_iters=10),
            0.6,
            1e-6,
            (_STRONG_BLUR,),
            needs=frozenset({"index"}),
            evaluates=False,
            first_epoch_is_nan=True,
        ),
        "dino": Defaults(
            _mlp(
                2048,
                256,
                num_prototypes=4096,
                use_bn_in_head=False,
                norm_last_layer=True,
                clip_grad=0,
                freeze_last_layer=1,
                student_temperature=0.1,
                teacher_temperature=0.07,
                warmup_teacher_temperature=0.04,
                warmup_teacher_temperature_epochs=50,
            ),
            0.3,
            1e-6,
            _ASYMMETRIC,
            tau=(0.9995, 1.0),
        ),
        "mae": Defaults(
            {
                "decoder_embed_dim": 512,
                "decoder_depth": 8,
                "decoder_num_heads": 16,
                "mask_ratio": 0.75,
                "norm_pix_loss": True,
            },
            2e-4,
            0.05,
            (_PLAIN,),
            optimizer="adamw",
            optimizer_settings={"betas": (0.9, 0.95)},
            large_views=1,
            backbone="vit_tiny",
            evaluates=False,
        ),
        "mocov2plus": Defaults(
            _mlp(2048, 256, temperature=0.2, queue_size=32768),
            0.3,
            1e-4,
            (_WEAK,),
            optimizer="sgd",
            tau=(0.99, 0.999),
        ),
        "mocov3": Defaults(_mlp(4096, 256, 4096, temperature=0.2), 0.3, 1e-6, _ASYMMETRIC),
        "nnbyol": Defaults(_mlp(4096, 256, 4096, queue_size=65536), 1.0, 1e-5, _ASYMMETRIC),
        "nnclr": Defaults(
            _mlp(2048, 256, 4096, temperature=0.2, queue_size=65536), 0.4, 1e-5, _ASYMMETRIC
        ),
        "nnsiam": Defaults(
            _mlp(2048, 2048, 4096, queue_size=65536), 0.5, 1e-5, _ASYMMETRIC, optimizer="sgd"
        ),
        "ressl": Defaults(
            _mlp(4096, 256, temperature_q=0.1, temperature_k=0.04, queue_size=65536),
            0.05,
            1e-4,
            (Augmentation(blur_prob=0.5), _PLAIN),
            optimizer="sgd",
        ),
        "simclr": Defaults(_mlp(2048, 256, temperature=0.2), 0.4, 1e-5, (_STRONG,)),
        "simsiam": Defaults(_mlp(2048, 2048, 512), 0.5, 1e-5, (_WEAK,), optimizer="sgd"),
        "supcon": Defaults(
            _mlp(2048, 256, temperature=0.2),
            0.4,
            1e-5,
            (_STRONG_BLUR,),
            optimizer="sgd",
            needs=frozenset({"labels"}),
        ),
        "swav": Defaults(
            _mlp(
                2048,
                128,
                num_prototypes=3000,
                queue_size=3840,
                epoch_queue_starts=50,
                freeze_prototypes_epochs=2,
                temperature=0.1,
                sk_iters=3,
                sk_epsilon=0.05,
            ),
            0.6,
            1e-6,
            (_STRONG_BLUR,),
        ),
        "vibcreg": Defaults(
            _mlp(
                2048,
                2048,
                sim_loss_weight=25.0,
                var_loss_weight=25.0,
                cov_loss_weight=200.0,
                iternorm=True,
            ),
            0.3,
            1e-4,
            (_CLOSE,),
        ),
        "vicreg": Defaults(
            _mlp(2048, 2048, sim_loss_weight=25.0, var_loss_weight=25.0, cov_loss_weight=1.0),
            0.3,
            1e-4,
            (_CLOSE,),
        ),
        "wmse": Defaults(
            _mlp(1024, 64, whitening_size=128, whitening_iters=1, whitening_eps=0.0),
            2e-3,
            1e-6,
            (replace(_STRONG, crop_min_scale=0.2),),
            optimizer="adam",
        ),
    }
)
"""By solo-learn's name of the method."""
