import dataclasses

import jax
import numpy as np
import pytest
from flax import linen as nn

from reid_jax import errors, identities
from reid_jax.experiments.configs import buc, hct, softened, supervised
from reid_jax.models.lookup import LookupModel
from reid_jax.runs import base_config, checkpoints, memory_limits, models, objectives
from reid_jax.runs import dataset as dataset_lib
from reid_jax.training import optimizers, train_step


def test_every_data_set_has_a_config_that_builds_a_model():
    traced = set()
    for dataset in base_config.DATASETS:
        for method in (hct, supervised, buc, softened):
            config = method.get_config(dataset)
            assert config.data.dataset in base_config.DATASETS
            num_parts = config.dissimilarity.num_parts if "dissimilarity" in config else 0
            if dataset in base_config.OWN_DATASETS:  # found out from the crops
                assert (config.data.height, config.data.width) == (0, 0) and not num_parts
                config.data.height, config.data.width = 128, 64
                num_parts = 4
            model = models.build_model(config.model, num_stripes=num_parts)
            sample = np.zeros((1, config.data.height, config.data.width, 3), np.float32)
            if (config.model.to_json(), num_parts, sample.shape) in traced:  # another data set's, too
                continue
            traced.add((config.model.to_json(), num_parts, sample.shape))
            outputs = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, train=False)[0], sample)
            dims = {"resnet50": 2048, "resnet18": 8 * config.model.width, "mobilenet_v2": 1280}
            assert outputs.embeddings.shape == (1, dims[config.model.backbone])
    with pytest.raises(ValueError, match="no config for data set 'markt'; choose one of synthetic"):
        base_config.base_config("markt")


def test_weights_that_are_missing_are_named():
    config = hct.get_config("market1501")
    config.model.weights = "nowhere/resnet50.npz"
    with pytest.raises(errors.UserError, match="model.weights: no file 'nowhere/resnet50.npz'.*reid weights list"):
        models.check_start(config, models.build_model(config.model), resuming=False)
    models.check_start(config, models.build_model(config.model), resuming=True)


def small_data(prepared):
    data = hct.get_config("synthetic").data
    data.update(dataset="tiny", dir=str(prepared), height=24, width=12)
    return data


def test_train_ids_are_numbered_from_0(prepared):
    dataset = dataset_lib.load_dataset(small_data(prepared))
    assert sorted(set(dataset.train_ids)) == [0, 1, 2, 3] and dataset.has_queries


@pytest.mark.parametrize(
    "field,value,message",
    [
        ("backbone", "resnet101", "must be one of"),
        ("backbone", "no_module:X", "cannot import"),
        ("dtype", "int8", "model.dtype"),
    ],
)
def test_model_errors(field, value, message):
    config = hct.get_config("synthetic").model
    config[field] = value
    with pytest.raises(errors.UserError, match=message):
        models.build_model(config)


class NeedsArguments(nn.Module):
    size: int

    def __call__(self, images, *, train):
        return images


def test_a_backbone_that_needs_arguments_is_told():
    config = hct.get_config("synthetic")
    config.model.backbone = f"{__name__}:NeedsArguments"
    with pytest.raises(errors.UserError, match="NeedsArguments' cannot be made without arguments: .*'size'"):
        models.build_model(config.model)


def test_random_weights_are_not_frozen():
    config = hct.get_config("synthetic")
    config.model.frozen_stages = 2
    with pytest.raises(
        errors.UserError, match="model.frozen_stages must be 0 where training starts from random weights"
    ):
        models.check_start(config, models.build_model(config.model), resuming=False)


def test_distractors_are_no_identity_and_labels_are_part_of_the_fingerprint(prepared):
    dataset = dataset_lib.load_dataset(small_data(prepared))
    records, samples = dataset.records["train"], dataset.samples["train"]
    pids = np.where(records.pids == 2, identities.DISTRACTOR_PID, records.pids)
    other = dataset._replace(
        records=dataset.records | {"train": dataclasses.replace(records, pids=pids)},
        samples=dataset.samples | {"train": dataclasses.replace(samples, pids=pids)},
    )
    assert sorted(set(other.train_ids)) == [-1, 0, 1, 2]
    assert other.fingerprint != dataset.fingerprint == dataset_lib.load_dataset(small_data(prepared)).fingerprint


def test_queries_of_a_single_camera_measure_nothing(prepared):
    dataset = dataset_lib.load_dataset(small_data(prepared))

    def seen_by(camids):
        samples = {
            split: dataclasses.replace(each, camids=np.full(len(each), camids[split == "gallery"]))
            for split, each in dataset.samples.items()
        }
        return dataset._replace(samples=samples).has_queries

    assert dataset.has_queries and seen_by((1, 2)) and seen_by((-1, -1)) and seen_by((1, -1))
    assert not seen_by((1, 1))


def test_rate_factors_freeze_and_slow_what_they_name():
    config = hct.get_config("synthetic")
    config.model.update(width=4, frozen_stages=2)
    model = models.build_model(config.model, LookupModel)
    params = model.init(jax.random.key(0), np.zeros((2, 32, 32, 3), np.float32), train=False)["params"]
    config.train.update(optimizer="sgd", learning_rate=1.0, weight_decay=0.1, momentum=0.0)
    config.unlock().train.backbone_rate_factor = 0.1
    optimizer = objectives.make_optimizer(config)
    ones = jax.tree.map(np.ones_like, params)
    updates, _ = optimizer.update(ones, optimizer.init(params), params)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        part, name = path[0].key, path[1].key
        expected = 1.0 if part == "head" else 0.0 if name.startswith(("conv1", "bn1", "layer1", "layer2")) else 0.1
        decayed = 1 + 0.1 * _at(params, path)
        np.testing.assert_allclose(update, -expected * decayed, rtol=1e-5)


def _at(tree, path):
    for key in path:
        tree = tree[key.key]
    return tree


def test_matrices_beyond_memory_are_refused():
    memory_limits.check_distance_matrix(1000)
    with pytest.raises(errors.UserError, match=r"all pairs of 3,000,000 samples take 33,528 GiB, the cpu has"):
        memory_limits.check_distance_matrix(3_000_000)


def test_batch_norm_groups_are_checked_before_any_work():
    config = hct.get_config("synthetic")
    config.model.update(width=4, bn_group_size=3)
    model = models.build_model(config.model)
    with pytest.raises(errors.UserError, match="bn_group_size must divide the batch of 8 images"):
        models.check_training(model, config.data, batch_size=8)


def test_another_methods_run_is_a_start_without_its_head(prepared, tmp_path, meshes):
    config = hct.get_config("synthetic")
    config.model.width = 4
    data = small_data(prepared)
    images = dataset_lib.with_images(dataset_lib.load_dataset(data), data).images["train"]
    plain = models.initial_variables(config, models.build_model(config.model), images, batch_size=8)
    optimizer = optimizers.make_optimizer("sgd", 0.1, weight_decay=0.0)
    checkpoints.Checkpoints(tmp_path).save_best(train_step.init_train_state(plain, optimizer, meshes[0]), {})
    config.model.checkpoint = str(tmp_path)
    found = models.initial_variables(config, models.build_model(config.model, LookupModel), images, batch_size=8)
    assert "head" in found["params"] and "head" in found["batch_stats"]
    jax.tree.map(np.testing.assert_array_equal, found["params"]["backbone"], plain["params"]["backbone"])
