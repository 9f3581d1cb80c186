"""The state of a strategy between two calls: everything that the next call depends on."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from avalanche.evaluation.metrics.timing import ElapsedTime
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from avalanche_branchtune import ranks
from avalanche_branchtune.checkpoints.data import found_again, within
from avalanche_branchtune.checkpoints.decoder import Decoder
from avalanche_branchtune.checkpoints.encoder import Encoder
from avalanche_branchtune.checkpoints.names import name_of
from avalanche_branchtune.errors import CheckpointError

logger = logging.getLogger(__name__)

CALLS = frozenset({"train", "eval", "_train_exp"})
"""Attributes of a strategy that is watched."""

OF_STEP = frozenset(
    {"adapted_dataset", "dataloader", "experience", "loss", "mb_output", "mbatch", "minibatch"}
    | {"_eval_streams", "_last_good", "compiled", "current_eval_stream", "processes"}
    | {"_replaced_here"}
)
"""Attributes of a strategy that every experience and step sets anew, or makes again; and how many
processes it is, which may be others when the run goes on."""

_OF_PASS = frozenset(
    {"_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"}
)

_HOOKS = (
    _OF_PASS
    | {"_forward_hooks_with_kwargs", "_forward_hooks_always_called"}
    | {"_forward_pre_hooks_with_kwargs", "_state_dict_hooks", "_state_dict_pre_hooks"}
    | {"_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"}
)

_OF_MODULE = frozenset({"_parameters", "_buffers", "_modules"}) | _HOOKS


def snapshot(
    strategy: Any,
    data: Mapping[str, Any],
    known: Iterable[Any] = (),
    leave_out: Any = None,
    *,
    pickles: bool = False,
) -> dict[str, Any]:
    """Return the state of a strategy as plain data, to be written before it changes.

    :param strategy: between two calls of ``train`` and ``eval``, or between two steps.
    :param data: that it was trained on, see :class:`.data.NamedData`.
    :param known: what could be reached from the strategy when it was made.
    :param leave_out: the plugin that asks.
    :param pickles: whether to pickle what cannot be plain data.
    :raises CheckpointError: naming what cannot be written.
    """
    known = list(known)
    fixed = [value for value in known if found_again(value)]
    spent = [p for group in strategy.optimizer.param_groups for p in group["params"]]
    live = {**_live(strategy, leave_out), **data}
    encoder = Encoder(live, known, fixed, spent, pickles=pickles)
    modules = {
        path: {
            "class": name_of(type(module)),
            "weights": {
                n: encoder.encode(w, f"model.{path}.{n}") for n, w in _weights(module).items()
            },
            "vars": {
                k: encoder.encode(v, f"model.{path}.{k}")
                for k, v in vars(module).items()
                if k not in _OF_MODULE
            },
            "hooks": _hooks(module),
        }
        for path, module in strategy.model.named_modules()
    }
    live |= _named_weights(strategy.model)
    encoder = Encoder(live, known, fixed, spent, pickles=pickles)
    return {
        "modules": modules,
        "plugins": [
            {"class": name_of(type(p)), "state": encoder.fill(p, type(p).__name__)}
            for p in strategy.plugins
            if p is not leave_out
        ],
        "strategy": {
            k: encoder.encode(v, f"strategy.{k}")
            for k, v in vars(strategy).items()
            if k not in CALLS | OF_STEP
        },
        "optimizer": {
            k: encoder.encode(v, f"optimizer.{k}")
            for k, v in vars(strategy.optimizer).items()
            if not callable(v) and "hook" not in k  # a scheduler's step, a plugin's hooks
        },
        "random": random_states(),
        "clock": time.perf_counter(),
    }


def restore(
    strategy: Any,
    state: Mapping[str, Any],
    data: Mapping[str, Any],
    leave_out: Any = None,
    *,
    more: bool = False,
    pickles: bool = False,
) -> None:
    """Give a strategy a state; it was made as the one that the state is of.

    Plugins, loggers and metrics with a method ``restored`` are told of it: whether ``more`` will
    follow, and by how many seconds their clocks (``time.perf_counter``) were ``away``.

    :param strategy: between two calls, or between two steps if the state is.
    :param state: see :func:`snapshot`.
    :param data: that it was trained on, as it is found here.
    :param leave_out: the plugin that asks.
    :param more: whether a later state will follow, of a step within the next call.
    :param pickles: whether to read pickles, which can run anything.
    :raises CheckpointError: for a strategy that is made otherwise.
    """
    plugins = _in_order(strategy, state["plugins"], leave_out)
    paths = dict(strategy.model.named_modules())
    lacking = sorted(set(paths) - set(state["modules"]))
    if lacking:
        raise CheckpointError(f"the checkpoint is of a model without {', '.join(lacking[:5])}")
    for path in [p for p in state["modules"] if p not in paths]:  # SwAV's, made in training
        parent, _, name = path.rpartition(".")
        made = Decoder({}, strategy.device).made(state["modules"][path]["class"], f"model.{path}")
        if not isinstance(made, nn.Module):
            raise CheckpointError(f"model.{path}: a {name_of(type(made))} is no module")
        strategy.model.get_submodule(parent)._modules[name] = made
        paths[path] = made
    decoder = Decoder({**_live(strategy, leave_out), **data}, strategy.device, pickles=pickles)
    for path, module in paths.items():
        _restore_module(module, state["modules"][path], path, decoder)
    weights = _named_weights(strategy.model)
    live = {**_live(strategy, leave_out), **data, **weights}
    decoder = Decoder(live, strategy.device, pickles=pickles)
    for plugin, saved in zip(plugins, state["plugins"], strict=True):
        decoder.fill(saved["state"], plugin, type(plugin).__name__)
    optimizer = strategy.optimizer
    parts = {
        name: decoder.decode(node, f"optimizer.{name}", getattr(optimizer, name, None))
        for name, node in state["optimizer"].items()
    }
    inner = parts.get("optim")
    if isinstance(inner, Optimizer) and not hasattr(optimizer, "optim"):
        # Written with a wrapper around it (solo-learn 1.0.2's LARS), which is one of its own now.
        optimizer.__setstate__({"state": inner.state, "param_groups": inner.param_groups})
    else:
        vars(optimizer).update(parts)
    calls = {k: v for k, v in vars(strategy).items() if k in CALLS | OF_STEP}
    decoder.fill(state["strategy"], strategy, "strategy")
    vars(strategy).update(calls)
    away = time.perf_counter() - state["clock"]
    judging = (*strategy.evaluator.loggers, *strategy.evaluator.metrics) if ranks.leads() else ()
    for part in (*plugins, *judging):  # of a job's processes the first one alone writes
        if hasattr(part, "restored"):
            part.restored(more=more, away=away)
    for part in within(list(strategy.evaluator.metrics)):
        if isinstance(part, ElapsedTime) and part._init_time is not None:
            part._init_time, part._prev_time = part._init_time + away, part._prev_time + away
    restore_random_states(state["random"])


def _in_order(strategy: Any, saved: Any, leave_out: Any) -> list[Any]:
    """Bring plugins into the order that training brought them into, and return them."""
    left = [p for p in strategy.plugins if p is not leave_out]
    here, there = [name_of(type(p)) for p in left], [p["class"] for p in saved]
    if sorted(here) != sorted(there):
        raise CheckpointError(
            f"the checkpoint is of a strategy with the plugins {', '.join(there)}; here are "
            f"{', '.join(here)}: make it as it was made"
        )
    if here == there:
        return left
    found = [left.pop(next(i for i, p in enumerate(left) if name_of(type(p)) == n)) for n in there]
    strategy.plugins = [*found, *(p for p in strategy.plugins if p is leave_out)]
    return found


def shapes(model: nn.Module) -> dict[str, list[int]]:
    """Return the shapes of a model's weights and buffers.

    :param model: as it was made.
    """
    named = _named_weights(model).items()
    return {name: list(weight.shape) for name, weight in named if not is_lazy(weight)}


def _restore_module(module: nn.Module, saved: Any, path: str, decoder: Decoder) -> None:
    if name_of(type(module)) != saved["class"]:
        raise CheckpointError(f"model.{path} is a {name_of(type(module))}, not a {saved['class']}")
    if _hooks(module) < saved.get("hooks", 0):
        logger.warning(
            "model.%s has %d hooks here, in the run it had %s: a hook cannot be saved; whoever "
            "registers it does so again when training begins, or it is lost",
            path,
            _hooks(module),
            saved["hooks"],
        )
    for name, node in saved["weights"].items():
        value = decoder.decode(node, f"model.{path}.{name}", _weights(module).get(name))
        if not isinstance(value, Tensor | None):
            raise CheckpointError(f"model.{path}.{name}: a {name_of(type(value))} is no tensor")
        none = value is None and name in module._parameters
        is_parameter = none or isinstance(value, nn.Parameter)
        kind: Any = module._parameters if is_parameter else module._buffers
        kind[name] = value
    for name in [n for n in _weights(module) if n not in saved["weights"]]:
        module._parameters.pop(name, None)
        module._buffers.pop(name, None)
    kept = {k: v for k, v in vars(module).items() if k in _OF_MODULE}
    new = {
        k: decoder.decode(n, f"model.{path}.{k}", vars(module).get(k))
        for k, n in saved["vars"].items()
    }
    vars(module).clear()
    vars(module).update({**kept, **new})


def _live(strategy: Any, leave_out: Any) -> dict[str, Any]:
    found = {"strategy": strategy, "optimizer": strategy.optimizer, "plugins": strategy.plugins}
    if getattr(strategy, "views", None) is not None:
        found["views"] = strategy.views
    plugins = [p for p in strategy.plugins if p is not leave_out]
    found |= {f"plugin {i}": p for i, p in enumerate(plugins)}
    if leave_out is not None:
        found["the plugin that asks"] = leave_out
    return found | {f"module {path}": m for path, m in strategy.model.named_modules()}


def _named_weights(model: nn.Module) -> dict[str, Any]:
    return {
        f"weight {path}.{name}": weight
        for path, module in model.named_modules()
        for name, weight in _weights(module).items()
        if weight is not None
    }


def _weights(module: nn.Module) -> dict[str, Any]:
    return {**module._parameters, **module._buffers}


def _hooks(module: nn.Module) -> int:
    """Return how many functions a module calls in passing forward and backward."""
    return sum(len(getattr(module, name)) for name in _OF_PASS)


def random_states() -> dict[str, Any]:
    """Return the states of Python's, NumPy's and torch's generators as plain data."""
    version, numbers, gauss = random.getstate()
    array: Any = np.random.get_state(legacy=True)
    name, keys, position, has_gauss, cached = array
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": _cuda_states(),
    }


def _cuda_states() -> list[torch.Tensor]:
    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_rng_state()] if ranks.joined() else torch.cuda.get_rng_state_all()


def restore_random_states(saved: Any) -> None:
    """Put random states back, see :func:`random_states`."""
    try:
        version, numbers, gauss = saved["python"]
        random.setstate((version, tuple(numbers), gauss))
        name, keys, position, has_gauss, cached = saved["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
        torch.set_rng_state(saved["torch"])
        if torch.cuda.is_available() and saved["cuda"]:
            if ranks.joined():  # each rank's device goes on as the first one's
                torch.cuda.set_rng_state(saved["cuda"][0])
            else:
                torch.cuda.set_rng_state_all(saved["cuda"][: torch.cuda.device_count()])
    except Exception as error:  # whatever a damaged or hostile file can cause
        raise CheckpointError(f"the random states cannot be put back: {error!r}") from error
