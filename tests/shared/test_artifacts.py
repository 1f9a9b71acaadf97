"""A model at rest: the same bytes for the same contents, and no other bytes are read."""

from __future__ import annotations

import json
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shared import artifacts
from shared.errors import PeerwatchError

HEADER = {"kind": "segmenter", "columns": ["ä", "b"], "seed": 7, "share": 0.1}
ARRAYS = {"means": np.arange(6.0).reshape(2, 3), "levels": np.array([1, 2], dtype="int64")}
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
kinds = st.sampled_from([np.float64, np.float32, np.int64, np.int32, np.uint8, np.bool_])


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text("abc_.", min_size=1, max_size=4),
        kinds.flatmap(lambda kind: hnp.arrays(kind, shapes)),
        max_size=4,
    )
)
def test_header_and_arrays_come_back_as_they_were(arrays):
    data = artifacts.pack(HEADER, arrays)

    header, found = artifacts.unpack(data, artifacts.digest(data))

    assert header == HEADER
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


def test_equal_contents_give_equal_bytes():
    reordered = {name: ARRAYS[name] for name in reversed(ARRAYS)}
    header = {name: HEADER[name] for name in reversed(HEADER)}

    assert artifacts.pack(HEADER, ARRAYS) == artifacts.pack(header, reordered)
    assert artifacts.pack(HEADER, ARRAYS) != artifacts.pack(HEADER | {"seed": 8}, ARRAYS)


def test_views_and_other_byte_orders_are_stored_by_value():
    base = np.arange(12.0).reshape(3, 4)
    arrays = {"turned": base.T, "stepped": base[:, ::2], "big": base.astype(">f8")}
    data = artifacts.pack({}, arrays)

    _, found = artifacts.unpack(data, artifacts.digest(data))

    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def test_any_flipped_byte_is_refused():
    data = artifacts.pack(HEADER, ARRAYS)
    digest = artifacts.digest(data)

    for at in range(len(data)):
        flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(PeerwatchError, match="SHA-256"):
            artifacts.unpack(flipped, digest)


@pytest.mark.parametrize("cut", [0, 1, 8, 100])
def test_a_cut_or_longer_model_is_refused(cut):
    data = artifacts.pack(HEADER, ARRAYS)

    for other in (data[:cut], data + b"\0" * (cut + 1)):
        with pytest.raises(PeerwatchError, match="it was not read"):
            artifacts.unpack(other, artifacts.digest(data))


def test_more_bytes_than_any_model_has_are_refused(monkeypatch):
    data = artifacts.pack(HEADER, ARRAYS)
    monkeypatch.setattr(artifacts, "LARGEST_BYTES", len(data) - 1)

    with pytest.raises(PeerwatchError, match=f"has {len(data)} bytes"):
        artifacts.unpack(data, artifacts.digest(data))


def forged(tensors: dict, text: str = "{}", body: bytes = b"", size: int | None = None) -> bytes:
    """A file with a right hash whose header was made by somebody else."""
    header = json.dumps({"__metadata__": {"peerwatch": text}, **tensors}).encode()
    return (len(header) if size is None else size).to_bytes(8, "little") + header + body


HUGE = {"dtype": "F64", "shape": [10**6, 1_250_000], "data_offsets": [0, 10**13]}
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (forged({"means": HUGE}, body=b"x" * 10_000), "claim 10000000000000 bytes of 10000"),
        (forged({"means": HUGE | {"data_offsets": [0, 8]}}, body=b"x" * 8), "ValueError"),
        (forged({"means": HUGE | {"shape": [-1]}}), "ValueError"),
        (forged({"means": HUGE | {"shape": [2.5]}}), "ValueError"),
        (forged({"means": HUGE | {"dtype": "object"}}), "KeyError"),
        (forged({"means": 7}), "TypeError"),
        (forged({}, size=10**13), "claims 10000000000000 bytes"),
        (forged({}, size=2**64 - 1), "claims 18446744073709551615 bytes"),
        (forged({}, f'{{"a": {DEEP}}}'), "100001 levels deep"),
        (forged({"x": json.loads("[" * 50 + "]" * 50)}), "51 levels deep"),
        (forged({}, "7"), "TypeError"),
        (forged({}, "no JSON"), "JSONDecodeError"),
        (b"\x08" + bytes(7) + b"\xff" * 8, "UnicodeDecodeError"),
        (b"\x02" + bytes(7) + b"{}", "KeyError"),
        (pickle.dumps(print), "header claims"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_forged_model_is_refused_before_anything_is_allocated(data, word):
    tracemalloc.start()

    with pytest.raises(PeerwatchError, match="was not written by peerwatch") as caught:
        artifacts.unpack(data, artifacts.digest(data))

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert word in str(caught.value)
    assert peak < 64 * 1024 * 1024


def test_brackets_within_texts_are_no_depth():
    header = {"name": "[" * 1000 + '"\\' + "{" * 1000}
    data = artifacts.pack(header, ARRAYS)

    assert artifacts.unpack(data, artifacts.digest(data))[0] == header


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_header_holds_no_number_that_json_does_not_know(value):
    with pytest.raises(ValueError, match="JSON"):
        artifacts.pack({"loss": value}, {})


def test_an_object_is_never_stored():
    with pytest.raises(Exception, match="object"):
        artifacts.pack({}, {"code": np.array([print], dtype=object)})
