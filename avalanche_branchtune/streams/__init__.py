"""Continual streams for self-supervised and supervised learning."""

from avalanche_branchtune.streams.alterations import ALTERATIONS, Altered, altered
from avalanche_branchtune.streams.cifar import cifar10, cifar100, cifar100_superclasses
from avalanche_branchtune.streams.core50 import CORE50_SCENARIOS, core50
from avalanche_branchtune.streams.digits import ArrayImages, digits_on_photographs
from avalanche_branchtune.streams.domainnet import DOMAINNET, domainnet
from avalanche_branchtune.streams.fewer import few
from avalanche_branchtune.streams.folders import ImageFiles, image_folder, unlabelled_folder
from avalanche_branchtune.streams.hub import HubImages, hub_images
from avalanche_branchtune.streams.imagenet import class_list, imagenet, tiny_imagenet
from avalanche_branchtune.streams.labels import (
    PartlyLabelled,
    Unlabelled,
    hide_labels,
    without_labels,
)
from avalanche_branchtune.streams.named import (
    DIVISIONS,
    STREAMS,
    NamedStream,
    named_stream,
    remade,
)
from avalanche_branchtune.streams.online import online
from avalanche_branchtune.streams.recurring import (
    power_law_revisits,
    power_law_schedule,
    recurring,
    sparse_classes,
    sparse_schedule,
)
from avalanche_branchtune.streams.scenarios import (
    altered_domains,
    class_incremental,
    data_incremental,
    domain_incremental,
    joint,
    predefined,
    split_domains,
)
from avalanche_branchtune.streams.semantic import superclass_incremental, superclass_order

__all__ = [
    "ALTERATIONS",
    "CORE50_SCENARIOS",
    "DIVISIONS",
    "DOMAINNET",
    "STREAMS",
    "Altered",
    "ArrayImages",
    "HubImages",
    "ImageFiles",
    "NamedStream",
    "PartlyLabelled",
    "Unlabelled",
    "altered",
    "altered_domains",
    "cifar10",
    "cifar100",
    "cifar100_superclasses",
    "class_incremental",
    "class_list",
    "core50",
    "data_incremental",
    "digits_on_photographs",
    "domain_incremental",
    "domainnet",
    "few",
    "hide_labels",
    "hub_images",
    "image_folder",
    "imagenet",
    "joint",
    "named_stream",
    "online",
    "power_law_revisits",
    "power_law_schedule",
    "predefined",
    "recurring",
    "remade",
    "sparse_classes",
    "sparse_schedule",
    "split_domains",
    "superclass_incremental",
    "superclass_order",
    "tiny_imagenet",
    "unlabelled_folder",
    "without_labels",
]
