"""Slow, obvious re-statements of the maths."""
