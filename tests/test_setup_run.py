import dataclasses

import jax
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

from experiments import setup_run
from experiments.configs import buc, hct, shared, softened, supervised
from reid_jax import types


def test_every_data_set_has_a_config_that_builds_a_model():
    for dataset in shared.DATASETS:
        for method in (hct, supervised, buc, softened):
            config = method.get_config(dataset)
            assert config.data.dataset in shared.DATASETS
            num_parts = config.dissimilarity.num_parts if "dissimilarity" in config else 0
            model = setup_run.build_model(config.model, num_stripes=num_parts)
            sample = np.zeros((1, config.data.height, config.data.width, 3), np.float32)
            outputs = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, train=False)[0], sample)
            dim = 2048 if config.model.backbone == "resnet50" else 8 * config.model.width
            assert outputs.embeddings.shape == (1, dim)
    with pytest.raises(ValueError, match="no config for data set 'markt'; choose one of synthetic"):
        shared.base_config("markt")


def test_weights_that_are_missing_are_named(prepared):
    config = hct.get_config("market1501")
    model = setup_run.build_model(config.model)
    dataset = setup_run.open_dataset(
        ConfigDict(config.data.to_dict() | {"dataset": "tiny", "dir": str(prepared), "height": 24, "width": 12})
    )
    config.model.weights = "nowhere/resnet50.npz"
    with pytest.raises(types.UserError, match="model.weights: no file 'nowhere/resnet50.npz'.*port_resnet.py"):
        setup_run.initial_variables(config, model, dataset.images["train"], batch_size=8)


def small_data(prepared):
    data = hct.get_config("synthetic").data
    data.update(dataset="tiny", dir=str(prepared), height=24, width=12)
    return data


def test_train_ids_are_numbered_from_0(prepared):
    dataset = setup_run.open_dataset(small_data(prepared))
    assert sorted(set(dataset.train_ids)) == [0, 1, 2, 3] and dataset.has_queries
    config = small_data(prepared)
    config.height = 0
    with pytest.raises(types.UserError, match="data.height must be at least 1 pixel, got 0"):
        setup_run.open_dataset(config)


@pytest.mark.parametrize(
    "field,value,message",
    [("backbone", "resnet101", "must be one of"), ("backbone", "no_module:X", "cannot import"), ("dtype", "int8", "model.dtype")],
)
def test_model_errors(field, value, message):
    config = hct.get_config("synthetic").model
    config[field] = value
    with pytest.raises(types.UserError, match=message):
        setup_run.build_model(config)


class NeedsArguments(nn.Module):
    size: int

    def __call__(self, images, *, train):
        return images


def test_a_backbone_that_needs_arguments_is_told():
    config = hct.get_config("synthetic")
    config.model.backbone = f"{__name__}:NeedsArguments"
    with pytest.raises(types.UserError, match="NeedsArguments' cannot be made without arguments: .*'size'"):
        setup_run.build_model(config.model)


def test_random_weights_are_not_frozen(prepared):
    config = hct.get_config("synthetic")
    config.model.frozen_stages = 2
    images = setup_run.open_dataset(small_data(prepared)).images["train"]
    with pytest.raises(types.UserError, match="model.frozen_stages must be 0 where training starts from random weights"):
        setup_run.initial_variables(config, setup_run.build_model(config.model), images, batch_size=8)


def test_distractors_are_no_identity_and_labels_are_part_of_the_fingerprint(prepared):
    dataset = setup_run.open_dataset(small_data(prepared))
    records, samples = dataset.records["train"], dataset.samples["train"]
    pids = np.where(records.pids == 2, types.DISTRACTOR_PID, records.pids)
    other = dataset._replace(
        records=dataset.records | {"train": dataclasses.replace(records, pids=pids)},
        samples=dataset.samples | {"train": dataclasses.replace(samples, pids=pids)},
    )
    assert sorted(set(other.train_ids)) == [-1, 0, 1, 2]
    assert other.fingerprint != dataset.fingerprint == setup_run.open_dataset(small_data(prepared)).fingerprint
