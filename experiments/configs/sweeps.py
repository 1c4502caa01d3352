"""The papers' ablations as lists of overrides, for experiments/sweep.py --sweep=NAME."""

from typing import Any, NamedTuple

from reid_jax.cluster_dynamics import choices

_HCT = "HCT (Zeng et al., CVPR 2020)"
_BUC = "BUC (Lin et al., AAAI 2019)"
_PUL = "PUL (Fan et al., 2017)"
_SSL = "SSL (Lin et al., CVPR 2020)"
_HCD = "HCD (Zheng et al., ICCV 2021)"

_TENTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class Sweep(NamedTuple):
    """A list of overrides of one method.

    Attributes:
        method: one of `experiments.sweep.METHODS`.
        title: what the rows differ in.
        source: the table or figure it can be compared with; empty: none.
        rows: by label, the values of the dotted config fields that differ from the method's config.
    """

    method: str
    title: str
    source: str
    rows: dict[str, dict[str, Any]]


def get_sweeps() -> dict[str, Sweep]:
    """Returns the named sweeps."""
    return {
        **_contrast_sweeps(),
        **_hct_sweeps(),
        **_buc_sweeps(),
        **_pul_sweeps(),
        **_softened_sweeps(),
        **_cluster_dynamics_sweeps(),
    }


def _contrast_sweeps() -> dict[str, Sweep]:
    parts = {
        "contrast": {},
        "without the camera term": {"loss.camera_weight": 0.0},
        "without post-processing": {"embedding.postprocess": "none"},
        "without the average": {"train.average_decay": 0.0},
        "reliable clusters only": {"cluster.eps_gap": 0.02},
        "hardest sample moves a vector": {"memory.rule": "hardest"},
        "CAP's term inside each camera": {"loss.intra_camera_weight": 1.0},
        "support samples": {"loss.support_weight": 1.0, "loss.consistency_weight": 0.1},
        "batch norm by camera": {"train.camera_groups": True, "model.bn_group_size": 16},
    }
    start = {
        "kept batch norms": {},
        "batch norms learn": {"model.keep_batch_norm": False},
        "half the rate": {"train.learning_rate": 1e-4},
        "twice the rate": {"train.learning_rate": 4e-4},
        "no warm-up": {"train.warmup_steps": 0},
        "layer-wise rates": {"train.layer_decay": 0.7},
        "three stages frozen": {"model.frozen_stages": 3},
        "without the average": {"train.average_decay": 0.0},
        "without mirror images": {"model.mirrored": False},
    }
    usual = {"model.keep_batch_norm": True, "train.learning_rate": 2e-4, "train.warmup_steps": 10}
    start = {label: usual | row for label, row in start.items()}
    return {
        "contrast_parts": Sweep("contrast", "Parts of the recommended method", "", parts),
        "contrast_start": Sweep("contrast", "Training from published weights on few images", "", start),
    }


def _hct_sweeps() -> dict[str, Sweep]:
    steps = {
        f"s = {num_steps}": {"cluster.num_steps": num_steps, "train.num_epochs": num_epochs}
        for num_steps, num_epochs in ((12, 15), (13, 60), (14, 300))
    }
    # The paper does not state s for each mp: these leave the number of clusters nearest to s = 13's at mp = 0.07.
    percents = {
        f"mp = {merge_percent}": {"cluster.merge_percent": merge_percent, "cluster.num_steps": num_steps}
        for merge_percent, num_steps in (
            (0.04, 23), (0.05, 18), (0.06, 15), (0.07, 13), (0.08, 11), (0.09, 10), (0.1, 9)
        )
    }  # fmt: skip
    return {
        "hct_merge_steps": Sweep("hct", "Merging steps s and epochs", f"{_HCT}, Table 3", steps),
        "hct_merge_percent": Sweep("hct", "Merging percent mp", f"{_HCT}, Table 4", percents),
    }


def _buc_sweeps() -> dict[str, Sweep]:
    # The paper names the distance between clusters, this library the linkage; Average is not in the paper.
    criteria = {"Maximum": "complete", "Centroid": "centroid", "Minimum": "single", "Average": "average"}
    criterion = {label: {"cluster.linkage": linkage} for label, linkage in criteria.items()}
    diversity = {"BUC without diversity regularizer": {"cluster.size_penalty": 0.0}, "BUC": {}}
    size_penalty = _one_field("lambda", "cluster.size_penalty", (0.0, 0.001, 0.002, 0.003, 0.004, 0.005))
    # As many stages as leave about as few clusters as 20 do at mp = 0.05.
    percents = {
        f"mp = {merge_percent}": {"cluster.merge_percent": merge_percent, "train.num_iterations": num_stages}
        for merge_percent, num_stages in ((0.03, 32), (0.04, 24), (0.05, 20), (0.06, 16), (0.07, 14), (0.1, 10))
    }
    metrics = {"Euclidean": "euclidean", "squared Euclidean": "sqeuclidean"}
    distance = {label: {"dissimilarity.metric": metric} for label, metric in metrics.items()}
    return {
        "buc_criterion": Sweep("buc", "Merging criterion", f"{_BUC}, Table 3", criterion),
        "buc_diversity": Sweep("buc", "Diversity regularization", f"{_BUC}, Tables 1 and 2", diversity),
        "buc_size_penalty": Sweep("buc", "Diversity weight lambda", f"{_BUC}, Fig. 3(a)", size_penalty),
        "buc_merge_percent": Sweep("buc", "Merging percent mp", f"{_BUC}, sec. 4.2 for mp = 0.05", percents),
        "buc_distance": Sweep("buc", "Distance", f"{_BUC}, sec. 3.2, and its code (squared)", distance),
        "buc_auxiliary": Sweep("buc", "Auxiliary information", f"{_SSL}, Table 3, BUC", _auxiliary()),
    }


def _pul_sweeps() -> dict[str, Sweep]:
    num_clusters = _one_field("K", "cluster.num_clusters", (250, 500, 750, 1000, 1250))
    without = {label: row | {"selection.compared": "none"} for label, row in num_clusters.items()}
    threshold = _one_field("lambda", "selection.threshold", (0.7, 0.75, 0.8, 0.85, 0.9))
    labelled = {
        "PUL": {},
        "25 labelled ids": {"selection.num_labelled_ids": 25},
        "50 labelled ids": {"selection.num_labelled_ids": 50},
    }
    adaptation = {"PUL": {}, "without selection": {"selection.compared": "none"}} | labelled
    compared = {name: {"selection.compared": name} for name in ("own", "any", "none")}
    # The paper trains for all iterations (sec. IV-D).
    never = {"stop.when": "never"}
    return {
        "pul_num_clusters": Sweep("pul", "Number of clusters K", f"{_PUL}, Fig. 6", _with(num_clusters, never)),
        "pul_without_selection": Sweep("pul", "K without selection", f"{_PUL}, Table III", _with(without, never)),
        "pul_threshold": Sweep("pul", "Threshold lambda", f"{_PUL}, Fig. 5", _with(threshold, never)),
        "pul_labelled": Sweep("pul", "Semi-supervised", f"{_PUL}, Table IV", _with(labelled, never)),
        "pul_adaptation": Sweep("pul", "Adaptation, unsupervised and semi-supervised", "", _with(adaptation, never)),
        "pul_compared": Sweep("pul", "Centres that a sample is compared with", "", _with(compared, never)),
    }


def _with(rows: dict[str, dict[str, Any]], overrides: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Rows with the same overrides added to each."""
    return {label: row | overrides for label, row in rows.items()}


def _softened_sweeps() -> dict[str, Sweep]:
    own_weight = _one_field("lambda", "loss.own_weight", _TENTHS)
    num_reliable = _one_field("k", "dissimilarity.num_reliable", range(1, 9))
    camera_penalty = _one_field("lambda_c", "dissimilarity.camera_penalty", (0.0, 0.01, 0.02, 0.03, 0.04, 0.05))
    part_weight = _one_field("lambda_p", "dissimilarity.part_weight", (0.0, *_TENTHS, 1.0))
    # The paper has 1 to 10; parts of equal height must divide the feature map's 8 rows.
    num_parts = _one_field("p", "dissimilarity.num_parts", (1, 2, 4, 8))
    source = f"{_SSL}, Table 1"
    baseline = {"Baseline": {"train.num_iterations": 1}}
    return {
        "softened_auxiliary": Sweep("softened", "Auxiliary information", source, baseline | _auxiliary()),
        "softened_own_weight": Sweep("softened", "Own class's weight lambda", f"{_SSL}, Fig. 4(b)", own_weight),
        "softened_num_reliable": Sweep("softened", "Reliable images k", f"{_SSL}, Fig. 4(c)", num_reliable),
        "softened_camera_penalty": Sweep("softened", "Camera term lambda_c", f"{_SSL}, Fig. 4(d)", camera_penalty),
        "softened_part_weight": Sweep("softened", "Part weight lambda_p", f"{_SSL}, Fig. 4(e)", part_weight),
        "softened_num_parts": Sweep("softened", "Number of parts p", f"{_SSL}, Fig. 4(f)", num_parts),
    }


def _cluster_dynamics_sweeps() -> dict[str, Sweep]:
    components = {
        "tgt. instance": {"labels.warmup_steps": 10**9},  # no label is ever updated
        "tgt. HC w/o LP": {"dynamics.criterion": "average_linkage"},
        "tgt. HC (merge) w LP": {"dynamics.split": False},
        "tgt. LP w/o HC": {"labels.num_levels": 1},
        "tgt. HC w LP": {},
    }
    anchors = {
        "Random": {"dynamics.anchors": "random"},
        "FPS": {"dynamics.anchors": "farthest_points"},
        "Density peak": {"dynamics.anchors": "density_peaks"},
    }
    readings = {
        "reference code, mended": {},
        "reference code": _in_section("dynamics", choices.REFERENCE_READING),
        "paper": _in_section("dynamics", choices.PAPER_READING),
    }
    labels = {
        "momentum 0.8, embedded anew": {},
        "momentum 0.2, never anew (paper)": {"memory.momentum": 0.2, "memory.refresh": False},
        "one level": {"labels.num_levels": 1},
        "without singletons": {"loss.singletons": False},
        "drawn by level 1": {"train.sampling_level": 1},
        "from DBSCAN": {"labels.init": "dbscan", "labels.warmup_steps": 100},
        "all levels in the loss": {"loss.levels": "all"},
        "similarity rises": {"labels.similar_steps": 400, "dynamics.num_similar": 15.0},
        "average of the weights": {"train.average_decay": 0.99},
        "centred per camera": {"embedding.postprocess": "camera_center"},
    }
    usual = {"memory.momentum": 0.8, "memory.refresh": True}
    labels = {label: usual | row for label, row in labels.items()}
    merge = _one_field("alpha_M", "dynamics.alpha_merge", (0.1, 0.3, 0.5, 0.7, 0.9, 0.99))
    split = _one_field("alpha_S", "dynamics.alpha_split", (0.3, 0.5, 0.7, 0.9, 0.95, 0.99))
    return {
        "hcd_components": Sweep("cluster_dynamics", "Components", f"{_HCD}, Table 3", components),
        "hcd_interval": Sweep(
            "cluster_dynamics",
            "Steps between updates",
            f"{_HCD}, Table 4",
            _one_field("I", "labels.interval", range(4)),
        ),
        "hcd_anchors": Sweep("cluster_dynamics", "Anchors of the split", f"{_HCD}, Table 5", anchors),
        "hcd_alpha_merge": Sweep("cluster_dynamics", "alpha of the merge", f"{_HCD}, Table 6", merge),
        "hcd_alpha_split": Sweep("cluster_dynamics", "alpha of the split", f"{_HCD}, Table 6", split),
        "hcd_num_levels": Sweep(
            "cluster_dynamics", "Levels H", f"{_HCD}, Fig. 4", _one_field("H", "labels.num_levels", range(1, 6))
        ),
        "hcd_labels": Sweep("cluster_dynamics", "What labels and loss are made of", "", labels),
        "hcd_readings": Sweep("cluster_dynamics", "Readings of the dynamics", f"{_HCD}, section 4.2", readings),
    }


def _auxiliary() -> dict[str, dict[str, Any]]:
    values = {"None": (0.0, 0.0), "CCE": (0.02, 0.0), "CCE + part": (0.02, 0.5)}
    fields = ("dissimilarity.camera_penalty", "dissimilarity.part_weight")
    return {label: dict(zip(fields, pair)) for label, pair in values.items()}


def _in_section(section: str, values: dict[str, Any]) -> dict[str, Any]:
    return {f"{section}.{field}": value for field, value in values.items()}


def _one_field(symbol: str, field: str, values) -> dict[str, dict[str, Any]]:
    return {f"{symbol} = {value}": {field: value} for value in values}
