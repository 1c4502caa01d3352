"""The label bank against a plain NumPy version, its invariant, and its quality on made-up features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_data import clustered_features

from reid_jax import cluster_dynamics, cluster_quality
from reid_jax.cluster_dynamics import (
    init_label_bank,
    label_bank_from,
    preserves_clusters,
    update_label_bank,
)
from reid_jax.cluster_dynamics.choices import PAPER_READING, REFERENCE_READING, Options

SMALL = {"num_neighbors": 12, "k": 5}


class Plain:
    """One update as docs and docstrings say it, with sets, loops and a direct inverse."""

    def __init__(self, labels, features, **options):
        self.labels = [list(map(int, row)) for row in labels]
        self.features = np.asarray(features, np.float64)
        self.o = Options(**options)
        self.num_items = len(self.features)

    def update(self, indices):
        batch = [int(i) for i in indices if i >= 0]
        cosines = self.features @ self.features.T
        self.least = self.o.min_similarity
        if self.least is None:
            others = np.concatenate([np.delete(cosines[i], i) for i in batch])
            low, median, high = np.percentile(others, [25, 50, 75])
            self.least = median + 3 * (high - low) / 1.349
            wanted = self.o.num_similar or self.o.k
            bound = np.quantile(others, 1 - wanted / (self.num_items - 1))
            self.least = bound if self.o.num_similar else min(self.least, bound)
        around = {}
        for i in batch:
            others = sorted((j for j in range(self.num_items) if j != i), key=lambda j: -cosines[i, j])
            around[i] = [i, *others[: self.o.num_neighbors]]
        self.place(batch, around, cosines)
        below = list(range(self.num_items))
        for level in range(len(self.labels)):
            if self.o.split:
                self.split(level, below, batch, cosines)
            border = self.labels[level + 1] if level + 1 < len(self.labels) else [0] * self.num_items
            self.merge(level, border, batch, around, cosines)
            below = self.labels[level]
        return self.labels

    def affinity(self, similarities, connected_by=None, valid=None):
        n = len(similarities)
        valid = [True] * n if valid is None else valid
        by = similarities if connected_by is None else connected_by
        near = [set(sorted((j for j in range(n) if j != i and valid[j]), key=lambda j: -by[i, j])[: self.o.k])
                if valid[i] else set() for i in range(n)]  # fmt: skip
        affinity = np.zeros((n, n))
        for i in range(n):
            for j in near[i]:
                if i in near[j] and by[i, j] > self.least:
                    weight = np.exp(-(2 - 2 * similarities[i, j]))
                    affinity[i, j] = weight if self.o.weights == "gaussian" else max(similarities[i, j], 0)
        return affinity

    def propagated(self, affinity, alpha):
        degrees = self.o.self_loop + affinity.sum(axis=1)
        scale = np.array([1 / np.sqrt(degree) if degree > 0 else 0 for degree in degrees])
        return np.linalg.inv(np.eye(len(affinity)) - alpha * affinity * scale[:, None] * scale)

    def place(self, batch, around, cosines):
        before = [list(row) for row in self.labels]
        for i in batch:
            local = cosines[np.ix_(around[i], around[i])]
            if self.o.placement == "nearest":
                joined = around[i][1]
            elif self.o.criterion == "average_linkage":
                joined = around[i][1] if local[0, 1] > self.least else None
            else:
                shares = self.propagated(self.affinity(local), self.o.alpha_merge)[0, 1:]
                joined = around[i][1 + shares.argmax()] if shares.max() > self.o.threshold else None
            for row, old in zip(self.labels, before):
                row[i] = self.num_items + i if joined is None else old[joined]
        self.labels = [self.renamed(row) for row in self.labels]

    def renamed(self, row):
        return [min(j for j in range(self.num_items) if row[j] == label) for label in row]

    def mean(self, row, label):
        rows = self.features[[j for j in range(self.num_items) if row[j] == label]].mean(axis=0)
        return rows if self.o.criterion == "average_linkage" else rows / np.linalg.norm(rows)

    def split(self, level, below, batch, cosines):
        row, new, done = self.labels[level], list(self.labels[level]), set()
        for i in batch:
            members = [j for j in range(self.num_items) if row[j] == row[i]]
            if row[i] in done or len(members) <= self.o.min_split_size:
                continue
            done.add(row[i])
            units = sorted({below[j] for j in members}, key=lambda u: -cosines[i, u])
            rest, units = units[self.o.max_units :], units[: self.o.max_units]
            if len(units) < 2:
                continue
            centers = np.stack([self.mean(below, unit) for unit in units])
            similarities = centers @ centers.T
            affinity = self.affinity(similarities)
            density = affinity.sum(axis=1)
            peaks = {}
            for u in range(len(units)):
                denser = [v for v in range(len(units)) if (-density[v], v) < (-density[u], u)]
                if not denser:
                    peaks[u] = np.inf
                    continue
                nearest = max(similarities[u, v] for v in denser)
                if self.o.peak_similarity[0] <= nearest < self.o.peak_similarity[1]:
                    peaks[u] = density[u] * np.sqrt(max(2 - 2 * nearest, 0))
            anchors = sorted(peaks, key=lambda u: (-peaks[u], u))[: self.o.max_anchors]
            if self.o.anchors == "farthest_points":
                wanted = len(anchors)
                anchors = anchors[:1]
                while len(anchors) < wanted:
                    left = [u for u in range(len(units)) if u not in anchors]
                    anchors.append(min(left, key=lambda u: max(similarities[u, a] for a in anchors)))
            if len(anchors) < 2:
                continue
            shares = self.propagated(affinity, self.o.alpha_split)[:, anchors]
            for u, unit in enumerate(units):
                best = similarities[u, anchors].argmax()
                if self.o.criterion == "propagation" and shares[u].max() > 1e-9:
                    best = shares[u].argmax()
                for j in members:
                    if below[j] == unit:
                        new[j] = units[anchors[best]]
            for unit in rest:
                best = (centers[anchors] @ self.mean(below, unit)).argmax()
                for j in members:
                    if below[j] == unit:
                        new[j] = units[anchors[best]]
        self.labels[level] = self.renamed(new)

    def merge(self, level, border, batch, around, cosines):
        row, pairs = self.labels[level], []
        for i in batch:
            clusters = [row[j] for j in around[i]]
            firsts = [place for place, label in enumerate(clusters) if label not in clusters[:place]]
            firsts = [place for place in firsts if border[around[i][place]] == border[i]]
            centers = np.stack([self.mean(row, clusters[place]) for place in firsts])
            similarities = centers @ centers.T
            if self.o.criterion == "average_linkage":
                united = [p for p, s in zip(firsts[1:], similarities[0, 1:]) if s > self.least]
            else:
                # Mutual neighbours among all items around, represented by the nearest of each cluster.
                local = cosines[np.ix_(around[i], around[i])]
                connected = (self.affinity(local) > 0)[np.ix_(firsts, firsts)]
                if self.o.connected_by == "centers":
                    connected = self.affinity(similarities) > 0
                weights = np.exp(2 * similarities - 2) if self.o.weights == "gaussian" else np.maximum(similarities, 0)
                shares = self.propagated(np.where(connected, weights, 0), self.o.alpha_merge)[0]
                united = [p for p, share in zip(firsts[1:], shares[1:]) if share > self.o.threshold]
            united = [clusters[place] for place in united]
            if not self.o.guarded or clusters[1] == row[i] or clusters[1] in united:
                pairs += [(row[i], label) for label in united]
        group = {label: label for label in row}
        for first, second in pairs:
            old, name = max(group[first], group[second]), min(group[first], group[second])
            group = {label: name if g == old else g for label, g in group.items()}
        self.labels[level] = [group[label] for label in row]


VARIANTS = {
    "defaults": {},
    "one level": {"num_levels": 1},
    "five levels": {"num_levels": 5},
    "without split": {"split": False},
    "farthest points": {"anchors": "farthest_points"},
    "average linkage": {"criterion": "average_linkage"},
    "paper": PAPER_READING | {"k": 5},
    "connected by centres": {"connected_by": "centers", "k": 3},
    "reference code": REFERENCE_READING,
    "so many similar ones": {"num_similar": 9.5},
    "more units than propagate": {"max_units": 8, "max_anchors": 3, "threshold": 0.15},
    "a low alpha": {"alpha_merge": 0.7, "alpha_split": 0.3, "threshold": 0.1, "min_similarity": 0.4},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("start", ["singletons", "few clusters"])
def test_equals_the_plain_version(variant, start):
    options = SMALL | VARIANTS[variant]
    num_levels = options.pop("num_levels", 3)
    features, pids = clustered_features(num_ids=5, size=14, dim=32, spread=0.6, seed=1)
    rng = np.random.default_rng(0)
    if start == "singletons":
        bank = init_label_bank(len(features), num_levels=num_levels)
    else:  # too coarse: identities together, and 3 items of each alone
        bank = label_bank_from(np.where(rng.random(len(pids)) < 0.2, -1, pids // 2), num_levels=num_levels)
    plain = Plain(bank.labels, features, **options)
    changed = False
    for _ in range(5):
        indices = rng.permutation(len(features))[:9]
        indices[-1] = -1  # one that only fills the batch
        before, bank = bank, update_label_bank(bank, jnp.asarray(features), jnp.asarray(indices), **options)
        assert np.asarray(bank.labels).tolist() == plain.update(indices)
        assert preserves_clusters(bank)
        changed |= bool(jnp.any(before.labels != bank.labels))
    assert changed


def test_a_filler_and_an_item_twice_change_nothing():
    features, _ = clustered_features(num_ids=4, size=10, dim=32, spread=0.6)
    features = jnp.asarray(features)
    bank = update_label_bank(init_label_bank(40), features, jnp.arange(20), min_similarity=0.3, **SMALL)
    once = update_label_bank(bank, features, jnp.array([3, 30, 17]), min_similarity=0.3, **SMALL)
    again = update_label_bank(bank, features, jnp.array([17, -1, 3, 30, 3]), min_similarity=0.3, **SMALL)
    assert once.labels.tolist() == again.labels.tolist() != bank.labels.tolist()


def test_the_number_of_similar_items_may_change_without_a_compilation():
    features, _ = clustered_features(num_ids=4, size=10, dim=32, spread=0.6)
    features, start, indices = jnp.asarray(features), init_label_bank(40), jnp.arange(20)
    counts = cluster_dynamics.bank._update._cache_size
    update_label_bank(start, features, indices, num_similar_now=1.0, **SMALL)
    compiled, found = counts(), []
    for num_similar in (0.5, 4.5, 20.0):
        bank = update_label_bank(start, features, indices, num_similar_now=jnp.float32(num_similar), **SMALL)
        found.append(bank.labels.tolist())
    assert counts() == compiled
    for num_similar, labels in zip((0.5, 4.5, 20.0), found):
        assert labels == update_label_bank(start, features, indices, num_similar=num_similar, **SMALL).labels.tolist()
    # It goes before a cosine that is given; the more there are, the fewer clusters.
    bank = update_label_bank(start, features, indices, num_similar_now=4.5, min_similarity=0.9, **SMALL)
    assert bank.labels.tolist() == found[1]
    assert len(np.unique(found[0][-1])) > len(np.unique(found[1][-1]))


def test_random_anchors_follow_the_key():
    features, _ = clustered_features(num_ids=6, size=10, dim=32, spread=0.8)
    bank = label_bank_from(np.zeros(60, int), num_levels=1)

    def updated(seed):
        # Nobody stands alone and nothing is united again, so that the parts can be seen.
        options = SMALL | {
            "anchors": "random",
            "peak_similarity": (-1.0, 2.0),
            "placement": "nearest",
            "threshold": 9.0,
        }
        key = jax.random.key(seed)
        return update_label_bank(bank, jnp.asarray(features), jnp.arange(60), key=key, **options).labels.tolist()

    assert updated(0) == updated(0) != updated(1)


def test_from_singletons_it_finds_the_identities_and_neither_collapses_nor_freezes():
    features, pids = clustered_features(num_ids=20, size=20, dim=48, spread=0.9)
    bank, rng = init_label_bank(len(pids)), np.random.default_rng(0)
    for _ in range(4):
        for indices in np.array_split(rng.permutation(len(pids)), 25):
            bank = update_label_bank(bank, jnp.asarray(features), jnp.asarray(indices))
        scores = [
            cluster_quality.bcubed(np.unique(row, return_inverse=True)[1], pids) for row in np.asarray(bank.labels)
        ]
        precisions, recalls, f_scores = np.array(scores).T
        assert f_scores[-1] > 0.9
        # The paper's Fig. 5: recall rises with the level, precision falls only slightly.
        assert (np.diff(recalls) >= 0).all() and precisions[-1] > precisions[0] - 0.1


def test_wrong_clusters_are_split_into_their_identities():
    features, pids = clustered_features(num_ids=8, size=12, dim=48, spread=0.4)
    bank = label_bank_from(pids // 2, num_levels=2)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(96).reshape(-1, 16)
        for indices in order:
            bank = update_label_bank(bank, jnp.asarray(features), jnp.asarray(indices))
    precision, _, f_score = cluster_quality.bcubed(np.unique(bank.labels[-1], return_inverse=True)[1], pids)
    assert precision > 0.95 and f_score > 0.9


def test_one_compilation_whatever_the_clusters():
    features, _ = clustered_features(num_ids=5, size=12, dim=32, spread=0.5)
    bank = init_label_bank(60)
    before = cluster_dynamics.bank._update._cache_size()
    for indices in np.random.default_rng(0).permutation(60).reshape(6, 10):
        bank = update_label_bank(bank, jnp.asarray(features), jnp.asarray(indices), **SMALL)
    assert cluster_dynamics.bank._update._cache_size() == before + 1


def test_bank_from_labels_by_hand():
    assert init_label_bank(3, num_levels=2).labels.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert label_bank_from(np.array([7, -1, 7, 2, -1]), num_levels=2).labels.tolist() == [[0, 1, 0, 3, 4]] * 2
    assert preserves_clusters(cluster_dynamics.LabelBank(jnp.array([[0, 0, 2], [0, 0, 0]])))
    assert not preserves_clusters(cluster_dynamics.LabelBank(jnp.array([[0, 0, 2], [0, 1, 1]])))


def test_few_items_are_all_around():
    features, _ = clustered_features(num_ids=3, size=4, dim=16, spread=0.3)
    default, all_others = (
        update_label_bank(init_label_bank(12), jnp.asarray(features), jnp.arange(12), min_similarity=0.3, **options)
        for options in ({}, {"num_neighbors": 11})
    )
    assert default.labels.tolist() == all_others.labels.tolist()


@pytest.mark.parametrize(
    "options,message",
    [
        ({"num_neighbors": 0}, "num_neighbors must"),
        ({"max_units": 7}, "max_units must"),
        ({"threshold": -1.0}, "threshold must"),
        ({"min_similarity": 7.0}, "min_similarity must"),
        ({"peak_similarity": (0.8, 0.4)}, "peak_similarity must"),
        ({"connected_by": "both"}, "connected_by must"),
        ({"k": 0}, "k must"),
        ({"alpha_merge": 1.0}, "alpha_merge must"),
        ({"alpha_split": -0.5}, "alpha_split must"),
        ({"anchors": "best"}, "anchors must"),
        ({"criterion": "single"}, "criterion must"),
        ({"self_loop": -1.0}, "self_loop must"),
        ({"peak_similarity": (0.4,)}, "peak_similarity must"),
        ({"num_similar": 9.0}, "num_similar must"),
        ({"anchors": "random"}, "key must be given with anchors='random'"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        update_label_bank(init_label_bank(10), jnp.eye(10), jnp.arange(3), **({"num_neighbors": 4} | options))


def test_wrong_shapes():
    bank = init_label_bank(10)
    with pytest.raises(ValueError, match=r"features must"):
        update_label_bank(bank, jnp.zeros((9, 4)), jnp.arange(3))
    with pytest.raises(ValueError, match=r"indices must"):
        update_label_bank(bank, jnp.eye(10), jnp.arange(3)[None], num_neighbors=4)
    with pytest.raises(ValueError, match="num_items must"):
        init_label_bank(1)
    with pytest.raises(TypeError, match="num_neighbours"):
        update_label_bank(bank, jnp.eye(10), jnp.arange(3), num_neighbours=4)
