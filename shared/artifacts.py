"""A fitted model at rest: arrays in safetensors with a JSON header, checked by hash before reading.

Nothing in it can be executed. The header holds what a person may read: kind, version, columns,
training window, settings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from shared.errors import PeerwatchError

LARGEST_BYTES = 512 * 1024 * 1024  # no model of ours comes near
HEADER = "peerwatch"


def pack(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Header and arrays as bytes; equal contents give equal bytes."""
    from safetensors.numpy import save

    tensors = {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}
    text = json.dumps(header, sort_keys=True, allow_nan=False)
    return bytes(save(tensors, metadata={HEADER: text}))


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def unpack(data: bytes, sha256: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(header, arrays); refuses bytes that are too many or not those that were stored."""
    if len(data) > LARGEST_BYTES:
        raise PeerwatchError(f"The stored model has {len(data)} bytes, more than any of ours.")
    if digest(data) != sha256:
        raise PeerwatchError(
            "The stored model is not the one that was fitted (its SHA-256 differs); it was not "
            "read. Roll back to another: peerwatch models rollback KIND --by NAME"
        )
    from safetensors.numpy import load

    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])["__metadata__"][HEADER]
    return json.loads(header), load(data)
