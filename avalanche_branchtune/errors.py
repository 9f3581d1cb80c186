"""Typed errors: each names the thing and the value, and says what to do.

Every error derives from :class:`BranchTuneError` and from the built-in
exception a user would already be catching (``ValueError``, ``OSError`` …).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BranchTuneError(Exception):
    """Base class of every error this project raises on purpose."""


class UnknownOptionError(BranchTuneError, ValueError):
    """An option was given a value that is not one of the known ones."""


class NameTakenError(BranchTuneError, ValueError):
    """A name was to stand for two things."""


class ExpansionError(BranchTuneError, RuntimeError):
    """The model is not in the state that the operation needs."""


class NothingToBranchError(BranchTuneError, ValueError):
    """No layer in scope can receive a branch."""


class UnbranchableLayerError(BranchTuneError, TypeError):
    """A layer that was asked for cannot receive a branch."""


class OptimizerMismatchError(BranchTuneError, ValueError):
    """The optimizer does not hold the parameters of the model."""


class IncompatiblePluginError(BranchTuneError, TypeError):
    """Two plugins cannot do their work together."""


class EmptyExperienceError(BranchTuneError, ValueError):
    """An experience has no samples to train on."""


class BatchSizeError(BranchTuneError, ValueError):
    """A minibatch is too small for the layers or the loss it meets."""


class ViewsError(BranchTuneError, ValueError):
    """The views of a minibatch do not fit the self-supervised method."""


class LabelError(BranchTuneError, ValueError):
    """A label lies outside the classes that were declared."""


class NonFiniteLossError(BranchTuneError, FloatingPointError):
    """The loss became NaN or infinite; the model keeps its last good weights."""


class ProbeError(BranchTuneError, ValueError):
    """A probe was given data that it cannot be computed on."""


class UnreadableImageError(BranchTuneError, OSError):
    """An image file could not be decoded."""


class MissingDirectoryError(BranchTuneError, FileNotFoundError):
    """A directory that should hold data does not exist or holds none."""


class CheckpointError(BranchTuneError, ValueError):
    """A checkpoint cannot be read, written, or does not fit the model."""


class ConfigError(BranchTuneError, ValueError):
    """A configuration cannot be read, or lacks what is needed."""


class RecordError(BranchTuneError, ValueError):
    """The record of a run is missing, damaged, or does not go with the others."""


class FolderInUseError(BranchTuneError, RuntimeError):
    """Another process, or another strategy of this one, writes to the folder."""


class OtherProcessError(BranchTuneError, RuntimeError):
    """Another process of the job has failed, ended, or works on something else."""


class UnsupportedSoloLearnError(BranchTuneError, ImportError):
    """The solo-learn that was found, or its absence, cannot be worked with."""


def expected_one_of(argument: str, value: object, known: list[str]) -> UnknownOptionError:
    """Build the error for an unknown option value.

    :param argument: what was set, as the user wrote it, for example
        ``BranchTuningPlugin(branch=…)``.
    :param value: the value that was given.
    :param known: the values that are known.
    :return: the error, to be raised by the caller.
    """
    meant = did_you_mean(value, known)
    return UnknownOptionError(
        f"{argument}: expected one of {', '.join(known)}; got {value!r}{meant}"
    )


def did_you_mean(value: object, known: Iterable[str]) -> str:
    """Return the end of a message: the known name that is most like what was given, or nothing.

    :param value: what was given.
    :param known: the names that are known.
    """
    named = {name.lower(): name for name in known} if isinstance(value, str) else {}
    near = difflib.get_close_matches(str(value).strip().lower(), named, 1)
    return f"; did you mean {named[near[0]]}?" if near else ""
