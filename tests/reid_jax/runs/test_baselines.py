"""The label-free baselines of a run: measured once for all that they depend on."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from reid_jax import features, postprocess
from reid_jax.experiments.configs import hct
from reid_jax.runs import baselines, checkpoints, evaluation, models
from reid_jax.runs import dataset as dataset_lib

pytestmark = pytest.mark.usefixtures("own_backbone")


@pytest.fixture
def config(prepared, tmp_path):
    return tiny_runs.make_config(hct.get_config, prepared, tiny_runs.OVERRIDES, data__cache_dir=str(tmp_path / "cache"))


@pytest.fixture
def measure(meshes):
    """(config, dataset or None) -> (baselines, the splits that were embedded for them)."""

    def run(config, dataset=None, *, variables=None):
        dataset = dataset or dataset_lib.with_images(dataset_lib.load_dataset(config.data), config.data)
        model = models.build_model(config.model)
        if variables is None:
            variables = model.init(
                jax.random.key(0), jnp.zeros((1, config.data.height, config.data.width, 3)), train=False
            )
        embedded, embed_split = [], evaluation.embed_split
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                evaluation, "embed_split", lambda *a, **k: embedded.append(k["split"]) or embed_split(*a, **k)
            )
            step = features.make_embed_step(model, meshes[1])
            found = baselines.measure_baselines(config, dataset, meshes[1], embed_step=step, variables=variables)
        return found, embedded

    return run


def test_they_are_what_evaluation_gives(config, measure, meshes):
    dataset = dataset_lib.with_images(dataset_lib.load_dataset(config.data), config.data)
    found, embedded = measure(config, dataset)
    assert sorted(embedded) == ["gallery", "gallery", "query", "query", "train"]
    color, start = found
    assert color == "color_histogram" and start.startswith("direct transfer, ")
    # The best of all kinds, each fitted to the train split.
    model = models.build_model(config.model)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 24, 12, 3)), train=False)
    rows = {
        split: features.embed_samples(
            features.make_embed_step(model, meshes[1]),
            variables,
            dataset.images[split],
            dataset.samples[split],
            meshes[1],
            batch_size=8,
        ).embeddings
        for split in ("train", "query", "gallery")
    }
    scores = {}
    for kind in postprocess.KINDS[1:]:
        camids = {split: dataset.samples[split].camids for split in rows}
        fitted = postprocess.fit(kind, [rows["train"]], camids=camids["train"])
        query, gallery = (postprocess.apply(fitted, rows[split], camids[split]) for split in ("query", "gallery"))
        scores[f"direct transfer, {kind}"] = evaluation.score(config.evaluation, query, gallery, dataset=dataset)
    assert found[start]["mAP"] == max(each["mAP"] for each in scores.values())
    assert found[start] == scores[start] and found[color].keys() == found[start].keys()


def test_they_are_measured_once(config, measure):
    found, _ = measure(config)
    again, embedded = measure(config)
    assert again == found and embedded == []
    # Where they lie: in the cache of images, in JSON.
    files = list((pathlib.Path(config.data.cache_dir) / "baselines").iterdir())
    assert len(files) == 2 and found["color_histogram"] in [json.loads(file.read_text()).get("none") for file in files]


@pytest.mark.parametrize(
    "change,start_only",
    [
        ({"evaluation.metric": "euclidean"}, False),
        ({"evaluation.ap_method": "trapezoid"}, False),
        ({"data.height": 32}, False),
        ({"model.pooling": "gem"}, True),  # the start's, of colours nothing
        ({"model.normalization": "half"}, True),
        ({"model.last_stride": 2}, True),
        ({"model.dtype": "bfloat16"}, True),
        ({"model.neck": "bn"}, True),
    ],
)
def test_of_anything_else_they_are_measured_again(config, measure, change, start_only):
    measure(config)
    config.update_from_flattened_dict(change)
    _, embedded = measure(config)
    assert sorted(embedded) == ["gallery", "query", "train"] if start_only else len(embedded) == 5
    assert measure(config)[1] == []


def test_other_weights_and_other_data_are_measured_again(config, measure, prepared_tracklets):
    model = models.build_model(config.model)
    variables = [model.init(jax.random.key(n), jnp.zeros((1, 24, 12, 3)), train=False) for n in (0, 1)]
    assert checkpoints.digest(variables[0]) != checkpoints.digest(variables[1])
    measure(config, variables=variables[0])
    assert len(measure(config, variables=variables[1])[1]) == 3
    config.data.update(dir=str(prepared_tracklets), dataset="walks", tracklets=True)
    assert len(measure(config)[1]) == 5
    config.data.max_frames = 2
    assert len(measure(config)[1]) == 5
    config.data.tracklets = False
    assert len(measure(config)[1]) == 5


def with_train(dataset, **changes):
    samples = dataset.samples["train"]
    changed = {name: change(getattr(samples, name)) for name, change in changes.items()}
    return dataset._replace(samples=dataset.samples | {"train": dataclasses.replace(samples, **changed)})


@pytest.mark.parametrize("camids", [lambda camids: np.full_like(camids, -1), lambda camids: np.arange(len(camids))])
def test_without_cameras_or_with_one_for_every_image(config, measure, camids):
    dataset = dataset_lib.with_images(dataset_lib.load_dataset(config.data), config.data)
    found, _ = measure(config, with_train(dataset, camids=camids))
    assert list(found)[1] in ("direct transfer, center", "direct transfer, pca_whiten")


def test_a_start_that_tells_nothing_apart(config, measure):
    model = models.build_model(config.model)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 24, 12, 3)), train=False)
    found, _ = measure(config, variables=jax.tree.map(jnp.zeros_like, variables))
    assert list(found) == ["color_histogram"]
