"""fraudwatch: alerts for transactions that are unlikely for the customer who made them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fraudwatch.model import TransactionVAE

__all__ = ["TransactionVAE"]


def __getattr__(name: str) -> Any:
    """Import the estimator on first use (PEP 562): `import fraudwatch` does not load torch."""
    if name == "TransactionVAE":
        from fraudwatch.model import TransactionVAE

        return TransactionVAE
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
