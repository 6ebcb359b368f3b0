"""Errors that every room tells in one way."""

from __future__ import annotations


class SettingsError(ValueError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another one or the machine."""
