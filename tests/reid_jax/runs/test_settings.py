"""Settings that fit the data: what fields follow from a number of images per identity, and from the images' shapes."""

import importlib
import io

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from reid_jax.data.image_files import ImageFiles
from reid_jax.experiments.configs import buc, dbscan, hct, softened
from reid_jax.runs import config_rules, settings

METHODS = ("contrast", "hct", "buc", "softened", "pul", "cluster_dynamics", "dbscan", "combine", "supervised")
MARKET = {"images_per_identity": 12_936 / 751, "num_samples": 12_936}  # Market-1501's train split
PAIRS = {"images_per_identity": 2, "num_samples": 508}  # vehicles, one image by each of two cameras


def get_config(method, dataset="folder"):
    return importlib.import_module(f"reid_jax.experiments.configs.{method}").get_config(dataset)


def chosen(method, numbers, *, given=()):
    config = get_config(method)
    for name, value in dict(given).items():
        config.update_from_flattened_dict({name: value})
    return settings.choose(config, **numbers)


def test_market_has_its_papers_settings():
    found = chosen("hct", MARKET) | chosen("dbscan", MARKET) | chosen("softened", MARKET)
    assert found["cluster.num_steps"] == 13  # HCT, Table 3
    assert (found["cluster.k1"], found["cluster.k2"], found["cluster.min_samples"]) == (30, 6, 4)  # SpCL
    assert (found["train.num_ids"], found["train.num_instances"]) == (16, 4)  # HCT sec. 4.2
    assert found["train.num_steps"] == 100 and found["dissimilarity.num_reliable"] == 4
    assert chosen("pul", MARKET)["cluster.num_clusters"] == 751
    assert chosen("cluster_dynamics", MARKET)["dynamics.num_similar"] == 16.0


def test_two_images_of_an_identity():
    found = chosen("hct", PAIRS) | chosen("dbscan", PAIRS) | chosen("softened", PAIRS) | chosen("pul", PAIRS)
    assert (found["train.num_ids"], found["train.num_instances"]) == (32, 2)
    assert (found["cluster.k1"], found["cluster.k2"], found["cluster.min_samples"]) == (4, 2, 2)
    assert found["cluster.num_clusters"] == 254 and found["dissimilarity.num_reliable"] == 1
    # 35 merges at a time: 508 - 7 x 35 = 263 clusters of 254 identities.
    assert found["cluster.num_steps"] == 7
    assert chosen("cluster_dynamics", PAIRS)["dynamics.num_similar"] == 1.0


def test_bottom_up_stages_are_merges():
    config = get_config("buc")
    assert config.train.num_iterations is None
    found = settings.choose(config, **MARKET)
    # 646 merges a stage (5%): 12,936 - 18 x 646 = 1,308 clusters are left of 751 wanted, the next stage has fewer.
    assert found == {"train.num_iterations": 1 + 18}
    assert get_config("hct").train.num_iterations == 8  # rounds of training, elsewhere


@pytest.mark.parametrize("num_samples", [8, 24, 508, 12_936])
@pytest.mark.parametrize("images", [1.1, 2.0, 3.7, 17.2, 500.0])
def test_whatever_the_data_rules_are_kept(images, num_samples):
    for method in METHODS[:-1]:
        config = get_config(method)
        found = settings.choose(config, images_per_identity=images, num_samples=num_samples)
        assert found.keys() == set(settings.open_fields(config))
        config.update_from_flattened_dict(found)
        assert not settings.open_fields(config)
        config_rules.check_config(config, may_be_open=settings.OPEN_BY_SIZE)
        if "cluster.k1" in found:
            assert found["cluster.k1"] < num_samples
        if "train.num_ids" in found:
            assert found["train.num_ids"] * found["train.num_instances"] <= max(64, 2 * found["train.num_instances"])
        if "cluster.num_steps" in found:  # two clusters are left at least
            assert num_samples - found["cluster.num_steps"] * int(config.cluster.merge_percent * num_samples) >= 2


def test_more_images_of_an_identity_never_mean_fewer_neighbours():
    guesses = [1.5, 2, 3, 5, 9, 17, 40]
    for name in ("cluster.k1", "cluster.k2", "cluster.min_samples", "cluster.num_steps", "train.num_instances"):
        numbers = [{"images_per_identity": guess, "num_samples": 5000} for guess in guesses]
        values = [(chosen("hct", each) | chosen("dbscan", each))[name] for each in numbers]
        assert values == sorted(values) and values[0] < values[-1], name


def test_fields_that_are_given_win():
    found = chosen("hct", MARKET, given={"cluster.num_steps": 5, "train.num_instances": 8})
    assert "cluster.num_steps" not in found and "train.num_instances" not in found
    assert found["train.num_ids"] == 8  # P x K stays 64
    found = chosen("hct", {"images_per_identity": 2, "num_samples": 30}, given={"train.num_instances": 8})
    assert found["train.num_ids"] == 3
    found = chosen("hct", MARKET, given={"cluster.merge_percent": 0.01})
    assert found["cluster.num_steps"] == 94  # of 129 merges


AT_HAND = {"cluster.eps_gap", "dynamics.min_similarity"}  # of the features of every iteration


def none_of(config):
    return {name for name, value in config_rules.flat_fields(config.to_dict()).items() if value is None}


def test_only_own_crops_leave_fields_open():
    for method in METHODS:
        for dataset in ("synthetic", "market1501", "coil100"):
            config = get_config(method, dataset)
            assert not settings.open_fields(config) and config.data.height and config.data.width
            assert none_of(config) <= AT_HAND
        config = get_config(method, "folder")
        assert (config.data.height, config.data.width, config.data.images_per_identity) == (0, 0, 0)
        assert none_of(config) - AT_HAND <= set(settings.ALL_OPEN)
        assert set(settings.open_fields(config)) == none_of(config) & set(settings.OPEN_FIELDS)


def test_fields_left_open_keep_their_types():
    config = hct.get_config("market1501")
    settings.leave_open(config, given=["cluster.num_steps"])
    assert config.cluster.num_steps == 13 and config.train.num_ids is None and config.train.num_iterations == 20
    with pytest.raises(TypeError):
        config.train.num_ids = "many"
    config.train.num_ids = 9
    assert settings.open_fields(config) == ["train.num_instances"]


def test_an_earlier_start_s_choices_hold():
    config = hct.get_config("folder")
    earlier = {"data.height": 192, "data.width": 160, "data.images_per_identity": 3.5, "cluster.num_steps": 9}
    earlier |= {"train.num_ids": 21, "train.num_instances": 3, "loss.margin": 9.0, "model.weights": "mobilenet_v2"}
    earlier |= {"model.backbone": "osnet_x1_0", "model.normalization": "half", "model.pooling": "token"}
    config.train.num_ids = 5
    resumed = settings.with_earlier(config, earlier)
    assert (resumed.data.height, resumed.data.width, resumed.data.images_per_identity) == (192, 160, 3.5)
    assert (resumed.cluster.num_steps, resumed.train.num_ids, resumed.train.num_instances) == (9, 5, 3)
    assert resumed.loss.margin == 0.5  # what is not open is as it was asked for
    assert (resumed.model.backbone, resumed.model.normalization, resumed.model.pooling) == (
        "osnet_x1_0",
        "half",
        "token",
    )
    assert config.cluster.num_steps is None and config.data.height == 0  # the config given stays


def test_of_other_weights_only_open_pooling_is_taken():
    config = hct.get_config("folder")
    config.model.weights = ""
    resumed = settings.with_earlier(config, {"model.weights": "x", "model.backbone": "vit_s16", "model.pooling": "gem"})
    assert (resumed.model.backbone, resumed.model.pooling) == ("mobilenet_v2", "gem")
    config.model.pooling = "avg"
    assert settings.with_earlier(config, {"model.pooling": "gem"}).model.pooling == "avg"


def test_without_an_earlier_start_all_stays_open():
    config = softened.get_config("folder")
    assert settings.with_earlier(config, {}).to_dict() == config.to_dict()


def test_a_pair_that_was_read_from_json():
    config = softened.get_config("folder")
    assert config.augment.sized_crop_aspect is None
    resumed = settings.with_earlier(config, {"augment.sized_crop_aspect": [0.75, 1.33]})
    assert tuple(resumed.augment.sized_crop_aspect) == (0.75, 1.33)


def folder_of(tmp_path, sizes):
    for place, (height, width) in enumerate(sizes):
        Image.new("RGB", (width, height)).save(tmp_path / f"{place:04d}.png")
    return ImageFiles(tmp_path, np.array([f"{place:04d}.png" for place in range(len(sizes))]))


@pytest.mark.parametrize(
    "sizes,options,expected",
    [
        ([(200, 100)] * 3, {}, (256, 128)),  # upright crops: as the papers have them
        ([(90, 120)] * 3, {}, (160, 224)),  # 156.8 x 209 pixels of the same number
        ([(64, 64)] * 3, {}, (192, 192)),
        ([(40, 20), (40, 20), (10, 40)], {}, (256, 128)),  # the median
        ([(50, 10)], {}, (352, 96)),  # 4 to 1 at most
        ([(10, 90)] * 2, {}, (96, 352)),
        ([(100, 100)], {"multiple": 14}, (182, 182)),
        ([(100, 100)], {"height": 64}, (64, 64)),
        ([(100, 50)], {"width": 64}, (128, 64)),
        ([(100, 50)], {"height": 100, "width": 30}, (100, 30)),  # as given, multiple or not
        ([(100, 50)], {"height": 20}, (20, 32)),  # a side is never 0
    ],
)
def test_sizes_by_the_median_shape(tmp_path, sizes, options, expected):
    assert settings.choose_size(folder_of(tmp_path, sizes), pixels=256 * 128, **options) == expected


def test_sizes_are_those_of_upright_images(tmp_path):
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (200, 100)).save(tmp_path / "a.jpg", exif=exif)
    files = ImageFiles(tmp_path, np.array(["a.jpg"]))
    assert settings.choose_size(files, pixels=256 * 128) == (256, 128)


def test_images_that_cannot_be_opened_have_no_say(tmp_path):
    files = folder_of(tmp_path, [(64, 64), (10, 90)])
    (tmp_path / "0001.png").write_bytes(b"no image")
    assert settings.choose_size(files, pixels=4096) == (64, 64)
    (tmp_path / "0000.png").write_bytes(b"")
    assert settings.choose_size(files, pixels=128 * 64) == (128, 64)  # decoding will tell


def test_up_to_a_thousand_images_are_looked_at(tmp_path):
    class Records:
        looked_at = []

        def __len__(self):
            return 5000

        def encoded(self, index):
            self.looked_at.append(index)
            file = io.BytesIO()
            Image.new("RGB", (4, 4 if index < 2500 else 12)).save(file, "PNG")
            return file.getvalue()

    records = Records()
    settings.choose_size(records, pixels=1024)
    assert len(records.looked_at) == 1000 and {0, 4999} <= set(records.looked_at)
    assert sum(index < 2500 for index in records.looked_at) == 500


def test_multiples_by_backbone():
    found = {name: settings.size_multiple(name) for name in ("resnet50", "vit_s16", "vit_b14_reg", "own:Backbone")}
    assert found == {"resnet50": 32, "vit_s16": 16, "vit_b14_reg": 14, "own:Backbone": 32}


def test_what_follows_from_the_size():
    assert settings.max_shift(128) == 25.7 and settings.max_shift(224) == 45  # PUL sec. IV-B
    assert settings.sized_crop_aspect(256, 128) == (2.0, 3.0)  # BUC's code, for people
    assert settings.sized_crop_aspect(128, 128) == (0.75, 1.33)  # torchvision's
    assert settings.sized_crop_aspect(160, 224) == (0.54, 0.95)  # about the images' own


def test_presets_set_what_is_not_given():
    for preset, expected in (("person", (0.5, 0.5)), ("rigid", (0.5, 0.0)), ("shapes", (0.0, 0.0))):
        config = hct.get_config("market1501")
        config.augment.preset = preset
        settings.follow(config, given={"augment.preset"}, method="hct")
        assert (config.augment.flip_probability, config.augment.erasing_probability) == expected
    config.augment.erasing_probability = 0.3
    settings.follow(config, given={"augment.preset", "augment.erasing_probability"}, method="hct")
    assert config.augment.erasing_probability == 0.3 and config.augment.flip_probability == 0.0


def test_every_method_has_presets():
    for method in METHODS:
        config = get_config(method, "market1501")
        assert config.augment.preset == "person"
        config.augment.preset = "shapes"
        settings.follow(config, given=(), method=method)
        assert config.augment.flip_probability == 0 and not config.augment.get("erasing_probability", 0)
        assert "erasing_probability" in config.augment or method in ("buc", "softened", "pul")


def test_a_number_of_images_opens_the_fields_of_any_config():
    config = buc.get_config("market1501")
    config.data.images_per_identity = 4.0
    settings.follow(config, given={"data.images_per_identity"}, method="buc")
    assert settings.open_fields(config) == ["train.num_iterations"]
    config = dbscan.get_config("market1501")
    settings.follow(config, given={"data.images_per_identity", "cluster.k1"}, method="dbscan")
    assert set(settings.open_fields(config)) == {
        "cluster.k2", "cluster.min_samples", "train.num_steps", "train.num_ids", "train.num_instances"
    }  # fmt: skip
    assert config.cluster.k1 == 30


def test_without_it_nothing_is_opened():
    for given, options in ((set(), {}), ({"data.images_per_identity"}, {"is_own_file": True})):
        config = hct.get_config("market1501")
        settings.follow(config, given=given, method="hct", **options)
        assert not settings.open_fields(config)


def test_the_field_must_be_a_number_of_images():
    config = hct.get_config("folder")
    for value in (0.0, 1.5, 100.0):
        config.data.images_per_identity = value
        config_rules.check_config(config, may_be_open=settings.ALL_OPEN)
    for value in (1.0, -2.0, 0.5):
        config.data.images_per_identity = value
        with pytest.raises(ValueError, match=f"data.images_per_identity must be 0 or greater than 1, got {value}"):
            config_rules.check_config(config, may_be_open=settings.ALL_OPEN)


def test_small_parts_of_configs_are_not_touched():
    """Sections and fields that a method does not have are not made."""
    config = ConfigDict({"augment": {"preset": "shapes"}, "train": {"num_ids": 4}, "data": {"height": 1}})
    settings.follow(config, given={"data.images_per_identity"}, method="x")
    assert config.to_dict() == {"augment": {"preset": "shapes"}, "train": {"num_ids": None}, "data": {"height": 1}}
