"""What is said where a data set is not."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
from collections.abc import Iterator
from http.client import HTTPException

from avalanche.benchmarks.datasets import default_dataset_location

from avalanche_branchtune.errors import BranchTuneError, MissingDirectoryError

__all__ = ["folder_of", "looking_for"]

_FAILS = (OSError, RuntimeError, HTTPException, LookupError, ValueError, pickle.UnpicklingError)


def folder_of(root: str | os.PathLike[str] | None, name: str) -> str:
    """Return the folder of a data set.

    :param root: the folder; None for Avalanche's, where its own benchmarks download to.
    :param name: by which Avalanche knows the data set.

    Example::

        >>> from avalanche_branchtune.streams.finding import folder_of
        >>> folder_of("data", "cifar100"), folder_of(None, "cifar100").endswith("/cifar100")
        ('data', True)
    """
    return os.fspath(default_dataset_location(name) if root is None else root)


@contextlib.contextmanager
def looking_for(name: str, root: str, place: str, advice: str, download: bool) -> Iterator[None]:
    """Read a data set by code that others wrote: whatever it raises is one clear error.

    :param name: of the data set.
    :param root: the folder that was given.
    :param place: what is expected there.
    :param advice: what to do.
    :param download: whether it was to be downloaded.
    :raises MissingDirectoryError: if it is neither there nor can be downloaded.

    Example::

        >>> from avalanche_branchtune.streams.finding import looking_for
        >>> with looking_for("MNIST", "data", "its folder MNIST", "Download it", False):
        ...     open("nowhere/MNIST")
        Traceback (most recent call last):
        avalanche_branchtune.errors.MissingDirectoryError: data: no MNIST, or a damaged one, in ...
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # Avalanche's explanations
            yield
    except BranchTuneError:
        raise
    except _FAILS as cause:
        tried = f"; it cannot be downloaded ({cause})" if download else ""
        raise MissingDirectoryError(
            f"{root}: no {name}, or a damaged one, in {place}{tried}. {advice}"
        ) from cause
