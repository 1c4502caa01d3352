import numpy as np
import pytest

from reid_jax import types
from reid_jax.data import records as records_lib


def test_in_path_order_with_verbatim_bytes(prepared):
    records = records_lib.load_records(prepared, "tiny")
    assert {split: len(items) for split, items in records.items()} == {"train": 24, "query": 4, "gallery": 24}
    train = records["train"]
    assert list(train.paths) == sorted(train.paths)
    for index in (0, 7, 23):
        name = train.paths[index].split("/")[-1]
        assert (train.pids[index], train.camids[index]) == (int(name[:4]), int(name[6]))
        source = prepared.parent / "source" / train.paths[index]
        assert train.encoded(index) == source.read_bytes()


def test_fingerprint_tells_splits_apart_and_is_stable(prepared):
    first, again = (records_lib.load_records(prepared, "tiny") for _ in range(2))
    assert first["train"].fingerprint == again["train"].fingerprint != first["gallery"].fingerprint


def test_errors(prepared, tmp_path):
    with pytest.raises(types.UserError, match="no prepared data set 'market1501'.*data_prep/prepare.py"):
        records_lib.load_records(prepared, "market1501")
    assert records_lib.find_dataset(tmp_path, "tiny") is None
    assert records_lib.find_dataset(prepared, "tiny").name == "1.0.0"
    assert records_lib.load_records(prepared, "tiny")["train"].tracklets.dtype == np.int64
