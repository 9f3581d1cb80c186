"""Names and titles of all that is registered here, to be listed without importing it.

They are given where the plugins and strategies stand; a test holds this table against them.
"""

TITLES = {
    "branch_tuning": "Branch-tuning",
    "cassle": "CaSSLe",
    "clr": "CLR",
    "der": "DER",
    "ewc": "EWC",
    "feature_distillation": "feature distillation",
    "fine_tuning": "fine-tuning",
    "fixed_norms": "fixed BN",
    "frozen": "frozen",
    "joint": "joint",
    "kaizen": "Kaizen",
    "kaizen_paper": "Kaizen, the paper's settings",
    "kappatune": "KappaTune",
    "l2": "L2 to previous weights",
    "lump": "LUMP",
    "lwf": "LwF",
    "mas": "MAS",
    "nap": "NaP",
    "periodic": "periodic fine-tuning",
    "pfr": "PFR",
    "replay": "replay",
    "replay_class_balanced": "replay, class-balanced",
    "replay_first_per_class": "replay, first 1 %",
    "replay_min_redundancy": "replay, MinRed",
    "si": "SI",
}

PROBES = {
    "knn": "weighted kNN on frozen features",
    "linear": "linear probe on frozen features",
    "online": "linear classifier that learns along with the network from all experiences' images, "
    "as in CaSSLe's tables; BatchNorm's statistics see them",
}
"""Names of probes, all of all classes of the stream."""
