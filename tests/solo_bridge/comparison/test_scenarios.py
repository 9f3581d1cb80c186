"""The streams that a comparison is made on."""

from __future__ import annotations

from collections import Counter

import pytest

from avalanche_branchtune.errors import UnknownOptionError
from solo_bridge.comparison.scenarios import ALTERATIONS, StreamSettings


def counts(settings: StreamSettings) -> list[Counter[int]]:
    return [Counter(e.dataset.targets) for e in settings.stream().train_stream]


def test_later_classes_may_have_few_images_and_the_first_ones_keep_all() -> None:
    all_of_them = StreamSettings(size=8, samples=400, scenario="unequal", experiences=4)
    whole = counts(all_of_them)
    thinned = StreamSettings(**{**vars(all_of_them), "later_per_class": 3})
    found = counts(thinned)
    assert [len(classes) for classes in found] == [5, 2, 2, 1]
    assert found[0] == whole[0] and whole[1] > found[1]
    assert all(n == 3 for classes in found[1:] for n in classes.values())
    assert [set(classes) for classes in found] == [set(classes) for classes in whole]
    assert counts(thinned) == found
    assert "3 training images of each class after the first" in thinned.stream_facts()["stream"]
    assert "after the first" not in all_of_them.stream_facts()["stream"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"scenario": "class"}, "did you mean classes"),
        ({"scenario": "unequal", "experiences": 1}, "at least 2"),
        ({"scenario": "domains", "experiences": 7}, f"'domains' has {len(ALTERATIONS)}"),
        ({"scenario": "domains", "later_per_class": 3}, "have the same classes"),
        ({"later_per_class": 0}, "later_per_class.*at least 1"),
        ({"per_class": 3}, "of a folder of images"),
    ],
)
def test_what_cannot_be_is_refused_before_data_are_read(
    settings: dict[str, object], said: str
) -> None:
    with pytest.raises(UnknownOptionError, match=said):
        StreamSettings(**settings).check_stream()  # type: ignore[arg-type]


def test_more_later_images_than_there_are_are_refused() -> None:
    with pytest.raises(UnknownOptionError, match="expected at most"):
        StreamSettings(size=8, samples=100, later_per_class=50).stream()
