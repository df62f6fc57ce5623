"""bigembed: distributed training for embeddings with very large vocabularies."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bigembed.inference import Loaded as Loaded
    from bigembed.inference import load as load

__version__ = "0.1.0"
__all__ = ["Loaded", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for."""
    if name in ("load", "Loaded"):
        from bigembed import inference

        return getattr(inference, name)
    raise AttributeError(f"module 'bigembed' has no attribute '{name}'")
