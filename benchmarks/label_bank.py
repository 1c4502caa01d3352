"""The hierarchical label bank on features that do not change, and what an update costs.

    python benchmarks/label_bank.py --features=coil100_mobilenet_features.npz      # BCubed, sweep by sweep
    python benchmarks/label_bank.py --features=gaussian_150x20_features.npz --sweeps=3 --variants=all
    python benchmarks/label_bank.py                                                # seconds, at Market-1501's size

With --features the labels start from every item alone and are updated in batches of 64, for whole sweeps over the
rows of a file (its train split), centred and normalised. Without, one update is timed beside one ResNet-50 train step
of the same batch on the same device.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import measure
import numpy as np

from reid_jax import cluster_dynamics, cluster_quality, sharding
from reid_jax.cluster_dynamics import choices
from reid_jax.runs import base_config, models
from reid_jax.training import optimizers, train_step

BATCH_SIZE = 64
VARIANTS = {
    "defaults": {},
    "reference code": choices.REFERENCE_READING,
    "paper": choices.PAPER_READING,
    "cosine weights": {"weights": "cosine"},
    "no self-loop": {"self_loop": 0.0},
    "nearest joins": {"placement": "nearest"},
    "unguarded": {"guarded": False},
    "merge only": {"split": False},
    "one level": {"num_levels": 1},
    "two levels": {"num_levels": 2},
    "five levels": {"num_levels": 5},
    "average linkage": {"criterion": "average_linkage"},
    "farthest points": {"anchors": "farthest_points"},
    "random anchors": {"anchors": "random"},
    "alpha_merge 0.9": {"alpha_merge": 0.9},
    "alpha_merge 0.5": {"alpha_merge": 0.5},
    "alpha_split 0.5": {"alpha_split": 0.5},
}


def load_features(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns (features [N, D], centred and L2-normalised, pids [N]) of an .npz, of its train split if there is one."""
    with np.load(path, allow_pickle=False) as arrays:
        rows, pids = arrays["embeddings"].astype(np.float32), arrays["pids"]
        if "split" in arrays:
            rows, pids = rows[arrays["split"] == "train"], pids[arrays["split"] == "train"]
    rows -= rows.mean(axis=0)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), pids


def score(labels: np.ndarray, pids: np.ndarray) -> str:
    """Returns a level's BCubed precision, recall and F, and its number of clusters, for people."""
    _, groups = np.unique(labels, return_inverse=True)
    precision, recall, f_score = cluster_quality.bcubed(groups, pids)
    return f"{precision:.3f} {recall:.3f} {f_score:.3f} ({groups.max() + 1:4})"


def sweep_over(path: str, *, num_sweeps: int, variants: dict, seed: int) -> None:
    """Prints every level's quality after the first and the last sweep."""
    features, pids = load_features(path)
    num_items = len(features)
    pids = np.unique(pids, return_inverse=True)[1]
    print(f"{num_items} rows of {features.shape[1]}, {pids.max() + 1} identities, seed {seed}: BCubed P R F (clusters)")
    for name, options in variants.items():
        options = dict(options)
        bank = cluster_dynamics.init_label_bank(num_items, num_levels=options.pop("num_levels", 3))
        rng, broken = np.random.default_rng(seed), 0
        for sweep in range(1, num_sweeps + 1):
            order = np.append(rng.permutation(num_items), np.full(-num_items % BATCH_SIZE, -1))
            for step, indices in enumerate(order.reshape(-1, BATCH_SIZE)):
                key = jax.random.fold_in(jax.random.key(seed), sweep * num_items + step)
                bank = cluster_dynamics.update_label_bank(
                    bank, jnp.asarray(features), jnp.asarray(indices), key=key, **options
                )
                broken += not cluster_dynamics.preserves_clusters(bank)
            if sweep in (1, num_sweeps):
                levels = "   ".join(score(labels, pids) for labels in np.asarray(bank.labels))
                print(f"  {name:16} sweep {sweep:2}  {levels}", flush=True)
        if broken:
            print(f"  {name:16} the cluster preserve property was broken after {broken} batches")


def time_update(num_items: int, dim: int, repeats: int) -> None:
    """Prints the seconds of an update of labels that are 70% right, and of a ResNet-50 train step."""
    rng = np.random.default_rng(0)
    pids = rng.integers(0, 751, num_items)
    centers = rng.standard_normal((751, dim), dtype=np.float32)
    rows = centers[pids] + 1.5 * rng.standard_normal((num_items, dim), dtype=np.float32)
    rows -= rows.mean(axis=0)
    features = jnp.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    bank = cluster_dynamics.label_bank_from(np.where(rng.random(num_items) < 0.3, -1, pids))
    batches = [jnp.asarray(rng.permutation(num_items)[:BATCH_SIZE]) for _ in range(20)]
    for indices in batches[:-1]:
        bank = cluster_dynamics.update_label_bank(bank, features, indices)
    labels = np.asarray(bank.labels[-1])

    model_config = base_config.base_config("market1501").model
    model_config.update({"last_stride": 1, "neck": "bn"})
    model, mesh = models.build_model(model_config), sharding.make_mesh()
    images = sharding.put_batch(mesh, np.zeros((BATCH_SIZE, 256, 128, 3), np.uint8))
    optimizer = optimizers.make_optimizer("adam", 1e-4, weight_decay=5e-4)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 256, 128, 3)), train=False)
    step = train_step.make_train_step(
        model,
        lambda outputs, targets, memory: jnp.mean(outputs.embeddings**2),
        optimizer,
        lambda key, images: images / 255.0,
        mesh,
    )
    state = train_step.init_train_state(variables, optimizer, mesh)
    targets = sharding.put_batch(mesh, np.zeros(BATCH_SIZE, np.int32))
    key = sharding.put_replicated(mesh, jax.random.key(1))

    def one_step():
        nonlocal state
        state, loss = step(state, key, images, targets)
        return loss

    calls = {
        "label update": lambda: cluster_dynamics.update_label_bank(bank, features, batches[-1]).labels,
        "ResNet-50 step": one_step,
    }
    for call in calls.values():
        jax.block_until_ready(call())
    seconds = measure.take_turns(calls, repeats=repeats)
    num_clusters = len(np.unique(labels))
    print(f"N = {num_items}, D = {dim}, a batch of {BATCH_SIZE}, {num_clusters} clusters, on {jax.default_backend()}")
    for name, value in seconds.items():
        print(f"  {name:16} {value:8.3f} s   {value / seconds['ResNet-50 step']:6.3f} x a ResNet-50 step", flush=True)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", help=".npz with embeddings and pids; without it time is measured")
    parser.add_argument("--sweeps", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variants", default="defaults", help=f"all, or of {', '.join(VARIANTS)}, separated by commas")
    parser.add_argument("--rows", type=int, default=12_936, help="N, of what is timed")
    parser.add_argument("--dim", type=int, default=2_048, help="D")
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    start = time.monotonic()
    if args.features:
        names = list(VARIANTS) if args.variants == "all" else args.variants.split(",")
        if unknown := [name for name in names if name not in VARIANTS]:
            parser.error(f"--variants: no {unknown[0]!r}; choose of {', '.join(VARIANTS)}")
        sweep_over(
            args.features, num_sweeps=args.sweeps, variants={name: VARIANTS[name] for name in names}, seed=args.seed
        )
    else:
        time_update(args.rows, args.dim, args.repeats)
    print(f"({time.monotonic() - start:.0f} s)")


if __name__ == "__main__":
    main()
