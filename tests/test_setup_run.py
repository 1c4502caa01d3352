import jax
import numpy as np
import pytest
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


def test_train_ids_are_numbered_from_0(prepared):
    config = hct.get_config("synthetic").data
    config.update(dataset="tiny", dir=str(prepared), height=24, width=12)
    dataset = setup_run.open_dataset(config)
    assert sorted(set(dataset.train_ids)) == [0, 1, 2, 3] and dataset.has_queries
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
