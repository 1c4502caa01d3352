"""What is wrong with an iteration's pseudo labels, in words, as far as it shows without true identities."""

from collections.abc import Sequence
from typing import Any

_COLLAPSED = 0.5  # of the samples in one cluster
_ALONE = 0.9  # of the samples
# Of camera_nmi. Right labels have less; clusters of one camera each have 1, and about this when every tenth image is in
# those of another camera (docs/measured_runs.md, "Clusters and cameras").
_CAMERAS = 0.8
# Of the samples. The nearest two images of a person are often of one camera: where few are united yet, it says nothing.
_FEW_UNITED = 0.5


def label_warnings(metrics: dict[str, Any], *, num_samples: int, starts_alone: bool = False) -> list[str]:
    """Says what is wrong with pseudo labels, and what to change.

    Args:
        metrics: as `label_metrics.label_metrics` returns them; what is not there is not judged.
        num_samples: N.
        starts_alone: whether the labels begin with every sample alone and unite few at a time (BUC): then it is no sign
            that most are alone.

    Returns:
        One line for each thing that is wrong.
    """
    return list(_found(metrics, num_samples, starts_alone).values())


def new_warnings(history: Sequence[dict[str, Any]], *, num_samples: int, starts_alone: bool = False) -> list[str]:
    """Returns the last record's warnings but for those that an earlier one had already.

    Args:
        history: the records of a run's iterations so far, each with its metrics.
        num_samples: as in `label_warnings`.
        starts_alone: likewise.
    """
    before = {kind for metrics in history[:-1] for kind in _found(metrics, num_samples, starts_alone)}
    found = _found(history[-1], num_samples, starts_alone)
    return [text for kind, text in found.items() if kind not in before]


def _found(metrics: dict[str, Any], num_samples: int, starts_alone: bool) -> dict[str, str]:
    """Returns the warnings by their kind."""
    warnings = {}
    largest, alone = metrics.get("largest_cluster", 0), metrics.get("num_alone", 0)
    if largest > max(1, _COLLAPSED * num_samples):
        warnings["collapsed"] = (
            f"one cluster has {largest:,} of {num_samples:,} samples: the labels collapse. To keep people apart, make "
            "cluster.eps or cluster.k1 smaller, merge less, or start from a better model, such as a pretrained one"
        )
    if alone > _ALONE * num_samples and not starts_alone:
        warnings["alone"] = (
            f"{alone:,} of {num_samples:,} samples are in no cluster or alone in theirs. To unite more, make cluster.eps "
            "greater, cluster.min_samples smaller, or set cluster.k1 to up to twice the number of images of a person "
            "(data.images_per_identity); or merge more"
        )
    dependence = metrics.get("camera_nmi", 0.0)
    if dependence > _CAMERAS and num_samples - alone > _FEW_UNITED * num_samples:
        warnings["cameras"] = (
            f"the clusters follow the cameras (camera_nmi {dependence:.2f}; 1: each is of one camera), unless most people "
            "were seen by one camera only. The cross-camera term (dissimilarity.camera_penalty, of softened) works "
            "against it; at search time --postprocess=camera_center does"
        )
    return warnings
