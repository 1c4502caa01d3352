"""The catalogue: its entries fit the architectures, and files are recognised."""

import re

import pytest

from reid_jax import errors
from reid_jax.models import backbones, reid, torch_files
from reid_jax.weights import catalog, store
from reid_jax.weights.catalog import CATALOG, InPackage


@pytest.mark.parametrize("entry", CATALOG.values(), ids=CATALOG)
def test_entries_say_what_they_must(entry):
    store.check_name(entry.name)
    assert backbones.find(entry.architecture).has_weights and entry.normalization in reid.NORMALIZATIONS
    assert entry.sha256 is None or re.fullmatch("[0-9a-f]{8}|[0-9a-f]{64}", entry.sha256)
    assert entry.size is None or entry.size > 1_000_000
    assert entry.page.startswith("https://") and all((entry.trained_on, entry.labels, entry.licence))
    assert entry.file_name.endswith((".pth", ".pt", ".safetensors")) and "/" not in entry.file_name
    if isinstance(entry.source, InPackage):
        assert entry.source.member.endswith(f"/{entry.file_name}") and re.fullmatch("[0-9a-f]{64}", entry.source.sha256)
    else:
        assert entry.source.startswith("https://")
    # torch.hub's rule: what stands in a name is the beginning of the sha256.
    if digits := re.search("-([0-9a-f]{8})[.]pth$", entry.file_name):
        assert entry.sha256.startswith(digits[1])


def test_every_architecture_with_weights_has_some():
    wanted = {name for name, architecture in backbones.ARCHITECTURES.items() if architecture.has_weights}
    assert {entry.architecture for entry in CATALOG.values()} == wanted


def test_labels_of_people_are_told_apart():
    with_people = {name for name, entry in CATALOG.items() if entry.people_labels}
    assert with_people == {name for name, entry in CATALOG.items() if "identities of people" in entry.labels}
    assert with_people == {"osnet_x1_0_msmt17", "osnet_x0_25_msmt17", "osnet_ain_x1_0_msmt17"}


def test_files_are_recognised_by_their_bytes_and_their_names():
    resnet, vit, mobilenet = CATALOG["resnet50"], CATALOG["vit_b16"], CATALOG["mobilenet_v2"]
    assert catalog.recognize("renamed.pth", resnet.sha256) is resnet
    assert catalog.recognize("model.safetensors", vit.sha256) is vit
    assert catalog.recognize("x.whl", mobilenet.source.sha256) is mobilenet
    # torchvision publishes the first digits only.
    prefix = CATALOG["mobilenet_v2_torchvision"]
    assert catalog.recognize("renamed.pth", prefix.sha256 + "0" * 56) is prefix
    unknown = "f" * 64
    assert catalog.recognize(resnet.file_name, unknown) is resnet
    assert catalog.recognize("model.safetensors", unknown) is None  # several are called so
    assert catalog.recognize("other.pth", unknown) is None


def test_a_name_that_is_not_there():
    assert catalog.find("resnet50").file_name == "resnet50-0676ba61.pth"
    with pytest.raises(errors.UserError, match="no published weights 'mobilnet_v2'; did you mean 'mobilenet_v2'"):
        catalog.find("mobilnet_v2")


def test_the_clip_file_that_is_a_program_is_not_in_it(tmp_path):
    """Why not OpenAI's own: such an archive asks for classes of its own code."""
    import zipfile

    path = tmp_path / "ViT-B-16.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "ViT-B-16/data.pkl", b"\x80\x02c__torch__.multimodal.model.multimodal_transformer\nMultimodal\n)\x81."
        )
    with pytest.raises(errors.UserError, match="asks for the Python object __torch__"):
        torch_files.read_tensors(path)
