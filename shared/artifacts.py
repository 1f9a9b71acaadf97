"""A fitted model at rest: arrays in safetensors with a JSON header, checked by hash before reading.

Nothing in it can be executed. The header holds what a person may read: kind, version, columns,
training window, settings.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from shared.errors import PeerwatchError

LARGEST_BYTES = 512 * 1024 * 1024  # no model of ours comes near
LARGEST_HEADER = 64 * 1024 * 1024
DEEPEST = 40  # levels of JSON within each other; ours has nine
HEADER = "peerwatch"
SIZES = {
    "BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "F16": 2, "I32": 4, "U32": 4, "F32": 4,
    "I64": 8, "U64": 8, "F64": 8,
}  # bytes of one value, by safetensors' names  # fmt: skip


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

    header = _read_header(data)
    return header, load(data)


def _read_header(data: bytes) -> dict[str, Any]:
    """Our header, once the whole file is what it claims to be: nothing is allocated before."""
    size = int.from_bytes(data[:8], "little")
    if not 0 < size <= min(len(data) - 8, LARGEST_HEADER):
        raise _strange(f"its header claims {size} bytes of {len(data)}")
    try:
        outer = _json(data[8 : 8 + size].decode("utf-8"))
        text = outer.pop("__metadata__")[HEADER]
        claimed = sum(_claimed_bytes(tensor) for tensor in outer.values())
        header = _json(text)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _strange(f"its header is not ours, {type(error).__name__}") from error
    if claimed != len(data) - 8 - size:
        raise _strange(f"its arrays claim {claimed} bytes of {len(data) - 8 - size}")
    return header


def _json(text: str) -> dict[str, Any]:
    """An object of JSON; its depth is counted before it is read, which would recurse."""
    within = re.sub(r'"(?:[^"\\]|\\.)*"', "", text)
    depth = deepest = 0
    for mark in re.finditer(r"[\[\]{}]", within):
        depth += 1 if mark[0] in "[{" else -1
        deepest = max(deepest, depth)
    if deepest > DEEPEST:
        raise _strange(f"its header is {deepest} levels deep")
    found = json.loads(text)
    if not isinstance(found, dict):
        raise TypeError(type(found).__name__)
    return found


def _claimed_bytes(tensor: Mapping[str, Any]) -> int:
    """What an array would take by its type and shape, which must be what it says of its place."""
    begin, end = tensor["data_offsets"]
    values = math.prod(tensor["shape"])
    if any(not isinstance(side, int) or side < 0 for side in (begin, end, *tensor["shape"])):
        raise ValueError("a size is no count")
    if SIZES[tensor["dtype"]] * values != end - begin:
        raise ValueError("a shape does not fit its place")
    return int(end - begin)


def _strange(what: str) -> PeerwatchError:
    return PeerwatchError(
        f"The stored model cannot be read: {what}. It was not written by peerwatch. Roll back to "
        "another: peerwatch models rollback KIND --by NAME"
    )
