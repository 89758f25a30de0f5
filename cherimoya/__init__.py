"""Cherimoya: DNA to base-resolution profiles and counts."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["CheriBlock", "Cherimoya"]


def __getattr__(name: str) -> Any:
    """Import torch only when a model is asked for, so that the command line answers at once."""
    if name == "Cherimoya":
        from cherimoya.network import Cherimoya

        return Cherimoya
    if name == "CheriBlock":
        from cherimoya.cheri import CheriBlock

        return CheriBlock
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
