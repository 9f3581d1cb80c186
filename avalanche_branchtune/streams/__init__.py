"""Continual streams for self-supervised and supervised learning."""

from avalanche_branchtune.streams.alterations import ALTERATIONS, Altered, altered
from avalanche_branchtune.streams.cifar import cifar100
from avalanche_branchtune.streams.digits import ArrayImages, digits_on_photographs
from avalanche_branchtune.streams.fewer import few
from avalanche_branchtune.streams.folders import ImageFiles, image_folder, unlabelled_folder
from avalanche_branchtune.streams.labels import (
    PartlyLabelled,
    Unlabelled,
    hide_labels,
    without_labels,
)
from avalanche_branchtune.streams.scenarios import (
    altered_domains,
    class_incremental,
    data_incremental,
    domain_incremental,
    joint,
    split_domains,
)

__all__ = [
    "ALTERATIONS",
    "Altered",
    "ArrayImages",
    "ImageFiles",
    "PartlyLabelled",
    "Unlabelled",
    "altered",
    "altered_domains",
    "cifar100",
    "class_incremental",
    "data_incremental",
    "digits_on_photographs",
    "domain_incremental",
    "few",
    "hide_labels",
    "image_folder",
    "joint",
    "split_domains",
    "unlabelled_folder",
    "without_labels",
]
