"""What a run prints, and its result.json."""

import importlib.metadata
import platform
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from reid_jax.runs import start, stopping

_PACKAGES = ("reid_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets", "grain")


def iteration_line(record: dict[str, Any], num_iterations: int) -> str:
    """One readable line of an iteration's record."""
    parts = [f"iteration {record['iteration']:2d}/{num_iterations}", *_label_parts(record)]
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


def _label_parts(record: dict[str, Any]) -> list[str]:
    """What an iteration's record says of its labels."""
    parts = []
    if "num_groups" in record:
        sizes = (f"{record[name]:,}" for name in ("num_groups", "num_alone", "largest_cluster"))
        parts.append("{} clusters, {} alone, largest {}".format(*sizes))
    elif "num_clusters" in record:
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
    if "unreliable" in record:
        parts.append(f"{100 * record['unreliable']:.1f}% unreliable")
    if "selected" in record:
        parts.append(f"{100 * record['selected']:.1f}% selected")
    return parts


def summarize(
    history: list[dict[str, Any]],
    *,
    method: str,
    config: ConfigDict,
    mesh: Mesh,
    baselines: dict[str, dict[str, float]],
) -> dict[str, Any]:
    """Builds result.json: baselines, direct transfer, best, last, label-free choice, seconds, versions, device."""
    stop = config.get("stop")
    seconds: dict[str, float] = {}
    for record in history:
        for name, value in record["seconds"].items():
            seconds[name] = round(seconds.get(name, 0.0) + value, 3)
    return {
        "method": method,
        "dataset": config.data.dataset,
        "seed": config.seed,
        "learned_from": start.describe_run(config, method),
        "postprocess": config.embedding.postprocess,
        "baselines": baselines,
        "direct_transfer": history[0] if "mAP" in history[0] else None,
        "best": history[stopping.best_iteration(history, stop)],
        "last": history[-1],
        "label_free_choice": history[stopping.kept_without_labels(history, stop)[0]] if stop is not None else None,
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
    # First what needs no training.
    rows = {name: row for name, row in result["baselines"].items() if "," not in name}
    rows |= {"direct transfer": result["direct_transfer"]} | result["baselines"]
    for name in ("best", "last", "label_free_choice"):
        if result[name] is not None:
            rows[f"{name.replace('_', '-')} (iteration {result[name]['iteration']})"] = result[name]
    lines = [score_table(rows), f"learned from {result['learned_from']}"]
    skipped = result["direct_transfer"]["queries_skipped"]
    if skipped:
        lines.append(f"{skipped} queries without a match in another camera were skipped")
    if (comparison := compare_with_baselines(result)) is not None:
        lines.append(comparison)
    return "\n".join(lines)


def compare_with_baselines(result: dict[str, Any]) -> str | None:
    """Says in a line where a run ended below what needs no training; None where it did not.

    Args:
        result: as `summarize` makes it.
    """
    rows = {"direct transfer": result["direct_transfer"]} | result["baselines"]

    def above(record: dict[str, Any]) -> str:
        return ", ".join(
            f"{name} ({100 * row['mAP']:.1f} mAP)" for name, row in rows.items() if row["mAP"] > record["mAP"]
        )

    if never := above(result["best"]):
        hint = "; reid evaluate --model=RUN --postprocess=all shows what post-processing makes of this run's model"
        is_plain = result.get("postprocess", "none") == "none"
        return f"training ended below what needs none: no iteration reached {never}{hint if is_plain else ''}"
    if now := above(result["last"]):
        return f"the last iteration ended below what needs no training, {now}; the best one, which is kept, did not"
    return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
