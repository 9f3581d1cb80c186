"""Keys that nobody knows."""

from __future__ import annotations

import pytest

from avalanche_branchtune.errors import UnknownOptionError
from solo_bridge.config import settings_from_config
from tests.solo_bridge.config.examples import plain


def test_unknown_keys_are_all_named_with_their_path() -> None:
    config = plain(
        optimizer__learning_rate=1,
        optimizer__kwargs__clip=True,
        method_kwargs__proj_hiden_dim=3,
        lr=0.1,
        bakbone={"name": "resnet18"},
        zzz=1,
    )
    config["augmentations"][0]["rrc"]["crop_min_scal"] = 0.1
    config["augmentations"].append({"gray_scale": {"prob": 1}, "crop_size": 8, "num_crops": 1})
    with pytest.raises(UnknownOptionError) as error:
        settings_from_config(config)
    text = str(error.value)
    for expected in (
        "optimizer.learning_rate,",
        "optimizer.kwargs.clip (did you mean optimizer.kwargs.clip_lr?)",
        "method_kwargs.proj_hiden_dim (did you mean method_kwargs.proj_hidden_dim?)",
        " lr (did you mean optimizer.lr?)",
        "bakbone (did you mean backbone?)",
        " zzz,",
        "augmentations[0].rrc.crop_min_scal (did you mean augmentations[0].rrc.crop_min_scale?)",
        "augmentations[1].gray_scale (did you mean augmentations[1].grayscale?)",
    ):
        assert expected in text, expected
