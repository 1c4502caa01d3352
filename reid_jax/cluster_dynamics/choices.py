"""How the hierarchical label bank is updated: the choices, their defaults and their ranges."""

from typing import NamedTuple

from reid_jax import rules
from reid_jax.rules import Rule

CRITERIA = ("propagation", "average_linkage")
PLACEMENTS = ("propagation", "nearest")
WEIGHTS = ("gaussian", "cosine")
CONNECTIONS = ("members", "centers")
ANCHORS = ("density_peaks", "farthest_points", "random")


class Options(NamedTuple):
    """How labels are updated; all static. The defaults are those of the public reference code, mended.

    Attributes:
        num_neighbors: the items nearest to an item, among which it is placed and whose clusters its own may unite
            with; N - 1 or more: all.
        k: mutual nearest neighbours of eq. (3).
        alpha_merge: of the propagation that places and unites.
        alpha_split: of the propagation that splits.
        threshold: sigma: what a share must exceed for an item to join another, or clusters to unite.
        min_similarity: below this cosine there is no affinity. None: by the features at hand.
        num_similar: without min_similarity: it is the cosine that an item's others exceed this many times on average.
            0: where chance ends (`similarity_bounds.chance_similarity`), or k times where that is lower.
        weights: of pairs with affinity: "gaussian", exp(-|u - v|^2), or "cosine" as in eq. (3).
        self_loop: added to each unit's degree; see `propagation.normalize_affinity`.
        placement: an item joins the one with the greatest share of it if that exceeds the threshold, and else stands
            alone ("propagation"), or its nearest one in any case ("nearest").
        connected_by: which clusters are mutual neighbours where they unite: those whose members nearest to the batch's
            item are ("members"), or whose centres are ("centers", eq. 3). Weights are always those of the centres.
        guarded: clusters unite only where the nearest neighbour's cluster is among them.
        split: whether clusters are ever split.
        min_split_size: clusters of this many items or fewer are not split.
        anchors: which units a split starts from: "density_peaks", or as many "farthest_points" or "random" ones.
        max_anchors: K, at most.
        peak_similarity: a unit is a density peak if its cosine to the nearest denser unit is between these; of more
            than K peaks those with the greatest density x distance count. The reference code's lower bound is 0.4,
            with which identities that are far apart but in one cluster are never split.
        max_units: of a cluster's units, how many propagate, at least max_anchors; others, in a cluster that has more,
            follow the anchor they are the most similar to.
        criterion: "propagation", or "average_linkage" to do without: clusters unite whose items are more similar
            than min_similarity on average, and units go to the anchor with the greatest average similarity.
    """

    num_neighbors: int = 64
    k: int = 30
    alpha_merge: float = 0.99
    alpha_split: float = 0.99
    threshold: float = 0.25
    min_similarity: float | None = None
    num_similar: float = 0.0
    weights: str = "gaussian"
    self_loop: float = 1.0
    placement: str = "propagation"
    connected_by: str = "members"
    guarded: bool = True
    split: bool = True
    min_split_size: int = 4
    anchors: str = "density_peaks"
    max_anchors: int = 8
    peak_similarity: tuple[float, float] = (-1.0, 0.8)
    max_units: int = 128
    criterion: str = "propagation"


# What differs from the defaults in the paper's formulas (eq. 3, section 4.2). Where units are chosen, an item's own
# cluster grows, out of those of its nearest items, in both readings: a graph of all clusters would be N x N.
PAPER_READING = {
    "k": 30,
    "connected_by": "centers",
    "min_similarity": -1.0,
    "weights": "cosine",
    "self_loop": 0.0,
    "placement": "nearest",
    "guarded": False,
    "peak_similarity": (-1.0, 2.0),  # every unit may be one
}


# What differs where the public reference code is taken as it is, but for its slips.
REFERENCE_READING = {"min_similarity": 0.45, "peak_similarity": (0.4, 0.8)}


RULES = {
    "num_neighbors": rules.at_least(1),
    "k": rules.at_least(1),
    "alpha_merge": rules.from_up_to(0, 1),
    "alpha_split": rules.from_up_to(0, 1),
    "threshold": rules.at_least(0),
    "min_similarity": Rule("in -1..1, or None", lambda value: value is None or -1 <= value <= 1),
    "num_similar": rules.at_least(0),
    "weights": rules.one_of(*WEIGHTS),
    "self_loop": rules.at_least(0),
    "placement": rules.one_of(*PLACEMENTS),
    "connected_by": rules.one_of(*CONNECTIONS),
    "min_split_size": rules.at_least(1),
    "anchors": rules.one_of(*ANCHORS),
    "max_anchors": rules.at_least(2),
    "peak_similarity": Rule(
        "two numbers (low, high), the lower first",
        lambda value: (
            len(value) == 2 and all(isinstance(number, int | float) for number in value) and value[0] < value[1]
        ),
    ),
    "max_units": rules.at_least(2),
    "criterion": rules.one_of(*CRITERIA),
}


def check_options(options: Options, num_items: int) -> None:
    """Checks the options of an update for N items.

    Raises:
        ValueError: one is out of its range.
    """
    for name, rule in RULES.items():
        value = getattr(options, name)
        if not rules.is_kept(rule, value):
            raise ValueError(f"{name} must be {rule.text}, got {value!r}")
    if options.max_units < options.max_anchors:
        raise ValueError(f"max_units must be at least max_anchors, {options.max_anchors}, got {options.max_units}")
    if not options.num_similar < num_items - 1:
        raise ValueError(
            f"num_similar must be at least 0 and less than the {num_items - 1} others of an item, got {options.num_similar}"
        )
