"""What a run prints, and its result.json."""

import importlib.metadata
import platform
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from reid_jax import cluster_quality, stopping

_PACKAGES = ("reid_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets", "grain")


def label_quality(pseudo_labels, previous_labels, true_ids) -> dict[str, float]:
    """Judges pseudo labels.

    Args:
        pseudo_labels: [N] int32.
        previous_labels: [N] int32, the last iteration's, or None.
        true_ids: [N] int64, -1 where not known; scores against them are left out if none is known.

    Returns:
        num_clusters, agreement (adjusted Rand index with the last iteration), and BCubed, pair counts, NMI and ARI.
    """
    quality = {"num_clusters": int(pseudo_labels.max()) + 1, "agreement": None}
    if previous_labels is not None:
        quality["agreement"] = agreement(pseudo_labels, previous_labels)
    if (true_ids >= 0).any():
        precision, recall, f_score = cluster_quality.bcubed(pseudo_labels, true_ids)
        quality |= {"bcubed_precision": precision, "bcubed_recall": recall, "bcubed_f": f_score}
        quality["nmi"] = cluster_quality.normalized_mutual_information(pseudo_labels, true_ids)
        quality["ari"] = cluster_quality.adjusted_rand_index(pseudo_labels, true_ids)
        quality |= cluster_quality.pair_counts(pseudo_labels, true_ids)._asdict()
    return quality


def agreement(pseudo_labels, previous_labels) -> float:
    """How well labels [N] agree with the last iteration's: the adjusted Rand index."""
    return cluster_quality.adjusted_rand_index(pseudo_labels, previous_labels)


def reliable_quality(reliable, previous, true_ids, camids) -> dict[str, float]:
    """Judges the reliable samples of softened similarity learning.

    Args:
        reliable: [N, k] integer, each sample's k reliable ones.
        previous: [N, k], the last iteration's, or None.
        true_ids: [N] int64, -1 where not known; the precision is left out if none is known.
        camids: [N] int64, -1 where not known; so is the share across cameras.

    Returns:
        agreement (mean share of the reliable samples that were reliable before), reliable_precision (same identity)
        and reliable_cross_camera (another camera).
    """
    quality = {"agreement": None}
    if previous is not None:
        quality["agreement"] = float((reliable[:, :, None] == previous[:, None, :]).any(axis=2).mean())
    for name, values, differs in (("precision", true_ids, False), ("cross_camera", camids, True)):
        known = (values[:, None] >= 0) & (values[reliable] >= 0)
        if known.any():
            quality[f"reliable_{name}"] = float(((values[:, None] == values[reliable]) != differs)[known].mean())
    return quality


def iteration_line(record: dict[str, Any], num_iterations: int) -> str:
    """One readable line of an iteration's record."""
    parts = [f"iteration {record['iteration']:2d}/{num_iterations}"]
    if "num_clusters" in record:
        parts.append(f"{record['num_clusters']} clusters")
    if "bcubed_f" in record:
        scores = (f"{record['bcubed_' + name]:.3f}" for name in ("precision", "recall", "f"))
        parts.append("BCubed P/R/F " + "/".join(scores))
    if record.get("silhouette") is not None:
        parts.append(f"silhouette {record['silhouette']:.3f}")
    if "reliable_precision" in record:
        parts.append(f"reliable {100 * record['reliable_precision']:.1f}% right")
    if "reliable_cross_camera" in record:
        parts.append(f"{100 * record['reliable_cross_camera']:.1f}% across cameras")
    if "selected" in record:
        parts.append(f"{100 * record['selected']:.1f}% selected")
    if record.get("agreement") is not None:
        parts.append(f"agreement {record['agreement']:.3f}")
    if "loss" in record:
        parts.append(f"loss {record['loss']:.4f}")
    if "mAP" in record:
        ranks = "/".join(f"{100 * record[name]:.1f}" for name in ("rank1", "rank5", "rank10"))
        parts.append(f"mAP {100 * record['mAP']:.1f}  rank-1/5/10 {ranks}  mINP {100 * record['mINP']:.1f}")
    seconds = record["seconds"]
    phases = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())
    return "  ".join(parts) + f"  ({sum(seconds.values()):.1f} s: {phases})"


def best_iteration(history: list[dict[str, Any]], stop: ConfigDict | None) -> int:
    """Index into history of the model to keep: the greatest mAP, or the label-free choice where there is none.

    Args:
        history: records; the first is the initial model's, which counts only where mAP is known.
        stop: config.stop, or None for methods without pseudo labels: then the last iteration.
    """
    if "mAP" in history[0]:
        return max(range(len(history)), key=lambda i: history[i]["mAP"])
    return label_free_choice(history, stop)[0] if stop is not None else len(history) - 1


def has_fallen(history: list[dict[str, Any]], patience: int) -> bool:
    """Whether no trained model of the last `patience` iterations beat the best mAP before (BUC sec. 3.2)."""
    return len(history) > 1 and len(history) - 2 - best_iteration(history[1:], None) >= patience


def label_free_choice(history: list[dict[str, Any]], stop: ConfigDict | None) -> tuple[int, bool]:
    """(index into history, whether to stop now) by the signal that config.stop names."""
    if len(history) == 1:
        return 0, False
    signal = [record.get(stop.signal) for record in history[1:]]
    if stop.signal == "selected":  # the weak original model may select more than those that learn from it do
        if min(signal) == 1:  # nothing is left out: the number cannot tell when to stop
            return len(signal), False
        saturated = stopping.first_saturated(signal, patience=stop.patience, tolerance=stop.min_rise)
        return (len(signal), False) if saturated is None else (saturated + 1, True)
    choice, stop_now = stopping.label_free_choice(signal, patience=stop.patience, min_rise=stop.min_rise)
    return choice + 1, stop_now


def summarize(history: list[dict[str, Any]], *, method: str, config: ConfigDict, mesh: Mesh) -> dict[str, Any]:
    """Builds result.json: direct transfer, best, last and label-free choice, seconds, versions, device."""
    stop = config.get("stop")
    seconds: dict[str, float] = {}
    for record in history:
        for name, value in record["seconds"].items():
            seconds[name] = round(seconds.get(name, 0.0) + value, 3)
    return {
        "method": method,
        "dataset": config.data.dataset,
        "seed": config.seed,
        "direct_transfer": history[0] if "mAP" in history[0] else None,
        "best": history[best_iteration(history, stop)],
        "last": history[-1],
        "label_free_choice": history[label_free_choice(history, stop)[0]] if stop is not None else None,
        "iterations": len(history) - 1,
        "seconds": seconds,
        "device": mesh.devices.flat[0].device_kind,
        "num_devices": mesh.size,
        "platform": platform.platform(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        "jax_backend": jax.default_backend(),
    }


def score_table(rows: dict[str, dict[str, Any]]) -> str:
    """A table of percentages, one row per named record."""
    columns = {"mAP": "mAP", "rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "mINP": "mINP"}
    width = max(len(name) for name in rows)
    lines = [" " * width + "".join(f"{title:>9}" for title in columns.values())]
    for name, record in rows.items():
        lines.append(f"{name:{width}}" + "".join(f"{100 * record[key]:9.1f}" for key in columns))
    return "\n".join(lines)


def result_table(result: dict[str, Any]) -> str:
    """The result for people; without accuracy, a sentence that says so."""
    if result["direct_transfer"] is None:
        return (
            "no query and gallery images with known identities, so no accuracy can be measured; kept the model of "
            f"iteration {result['best']['iteration']}, chosen without labels"
        )
    rows = {"direct transfer": result["direct_transfer"]}
    for name in ("best", "last", "label_free_choice"):
        if result[name] is not None:
            rows[f"{name.replace('_', '-')} (iteration {result[name]['iteration']})"] = result[name]
    table = score_table(rows)
    skipped = result["direct_transfer"]["queries_skipped"]
    return table + (f"\n{skipped} queries without a match in another camera were skipped" if skipped else "")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
