"""The three ways the engine can refuse. Each message states what was expected, what was found, and what to do."""

from __future__ import annotations

__all__ = ["BackendError", "BundleError", "InputError", "RisError"]


class RisError(Exception):
    """Base class of every error that risengine raises on purpose."""


class BundleError(RisError, ValueError):
    """A bundle is missing, damaged, of another format version, or built for another device."""


class BackendError(RisError, RuntimeError):
    """An execution provider, device, library or language model is missing or failed."""


class InputError(RisError, ValueError):
    """An image, mask, text, path or setting supplied by the caller cannot be used."""
