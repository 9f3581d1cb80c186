"""A mark of plugins that learn from labels."""

from __future__ import annotations


class LearnsLabels:
    """Base class that says: this plugin learns the label of each image in the minibatch.

    Plugins that change images without their labels refuse to stand beside it.
    """
