"""Online streams: experiences that are cut into small ones, each of which comes once."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.benchmarks import CLScenario, OnlineCLExperience

from avalanche_branchtune.options import at_least, at_least_one
from avalanche_branchtune.streams.building import stream_of, with_recipe

__all__ = ["online"]


def online(
    benchmark: CLScenario, size: int, *, boundaries: bool = True, seed: int = 0
) -> CLScenario:
    """Cut each training experience into parts of a few samples.

    As Avalanche's ``split_online_stream``, with a stream that knows its length and can be gone over
    again (``SelfSupervised(optimizer_per="stream")`` and checkpoints ask for that), and a last part
    that says so also where the parts divide their experience exactly.

    With ``boundaries`` the parts say where an experience begins and ends: plugins (branches,
    teachers, memories) take all of its parts for one experience.  Without, each part is an
    experience of its own to them.

    :param benchmark: with a ``train_stream``; its test stream stays.
    :param size: samples of a part; the last one of an experience has the rest.
    :param boundaries: whether the parts say to which experience they belong.
    :param seed: shuffles the samples of each experience.
    :return: the benchmark of the parts.
    :raises UnknownOptionError: for a size below 1.

    Example::

        >>> from avalanche_branchtune.streams import class_incremental, online
        >>> data = [(f"image {i}", i % 2) for i in range(10)]
        >>> parts = online(class_incremental(data, data, 2), 2).train_stream
        >>> [len(part.dataset) for part in parts]
        [2, 2, 1, 2, 2, 1]
        >>> [part.is_last_subexp for part in parts]
        [False, False, True, False, False, True]
    """
    at_least_one("online(size=…)", size)
    at_least(0, "online(seed=…)", seed)
    generator = torch.Generator().manual_seed(seed)
    parts: list[Any] = []
    for experience in benchmark.train_stream:
        order = torch.randperm(len(experience.dataset), generator=generator).tolist()
        cut = [order[i : i + size] for i in range(0, len(order), size)]
        for number, places in enumerate(cut):
            parts.append(
                OnlineCLExperience(
                    dataset=experience.dataset.subset(places),
                    origin_experience=experience,
                    is_first_subexp=number == 0,
                    is_last_subexp=number == len(cut) - 1,
                    sub_stream_length=len(cut),
                    access_task_boundaries=boundaries,
                )
            )
    made = CLScenario([stream_of("train", parts), benchmark.test_stream])
    how = {"size": size, "boundaries": boundaries, "seed": seed}
    return with_recipe(made, {**getattr(benchmark, "recipe", {}), "online": how})
