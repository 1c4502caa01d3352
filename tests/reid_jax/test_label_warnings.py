import numpy as np
import pytest

from reid_jax import label_metrics, label_warnings

FINE = {"num_groups": 26, "num_alone": 40, "largest_cluster": 40, "camera_nmi": 0.3}


@pytest.mark.parametrize(
    "metrics, expected",
    [
        ({}, []),
        (FINE, []),
        ({"largest_cluster": 100}, []),
        ({"largest_cluster": 101}, [("one cluster has 101 of 200 samples", "cluster.eps or cluster.k1 smaller")]),
        ({"num_alone": 180}, []),
        ({"num_alone": 181}, [("181 of 200 samples are in no cluster or alone", "data.images_per_identity")]),
        ({"camera_nmi": 0.8}, []),
        ({"camera_nmi": 0.83}, [("follow the cameras (camera_nmi 0.83;", "--postprocess=camera_center")]),
        ({"camera_nmi": 1.0, "num_alone": 100}, []),
        ({"camera_nmi": 1.0, "num_alone": 99}, [("follow the cameras", "unless most people were seen by one camera")]),
        (
            {"largest_cluster": 150, "camera_nmi": 1.0},
            [("one cluster has 150", "merge less"), ("camera_nmi 1.00", "dissimilarity.camera_penalty")],
        ),
    ],
)
def test_each_warning_where_it_holds(metrics, expected):
    found = label_warnings.label_warnings(metrics, num_samples=200)
    assert len(found) == len(expected)
    for text, words in zip(found, expected):
        assert all(each in text for each in words) and "\n" not in text


def test_methods_that_start_alone_are_not_blamed_for_it():
    metrics = {"num_alone": 200, "largest_cluster": 1}
    assert label_warnings.label_warnings(metrics, num_samples=200, starts_alone=True) == []
    assert len(label_warnings.label_warnings(metrics, num_samples=200)) == 1
    assert len(label_warnings.label_warnings({"largest_cluster": 190}, num_samples=200, starts_alone=True)) == 1


def test_each_is_new_once_a_run():
    collapsed, alone = FINE | {"largest_cluster": 150}, FINE | {"num_alone": 199}
    history, found = [], []
    for record in ({"mAP": 0.1}, FINE, collapsed, collapsed | {"largest_cluster": 160}, alone, FINE, collapsed, alone):
        history.append(record)
        found.append(label_warnings.new_warnings(history, num_samples=200))
    assert [len(each) for each in found] == [0, 0, 1, 0, 1, 0, 0, 0]
    assert "150 of 200" in found[2][0] and "199 of 200" in found[4][0]
    assert label_warnings.new_warnings([alone], num_samples=200, starts_alone=True) == []


def test_of_labels(rng):
    """Through the metrics: random and right labels are fine, what the warnings are for is not."""
    pids = np.repeat(np.arange(40), 12)
    camids = rng.integers(0, 5, len(pids))
    nobody = np.full(len(pids), -1)

    def warn(labels):
        metrics = label_metrics.clustered_metrics(labels, None, nobody, camids=camids)
        return label_warnings.label_warnings(metrics, num_samples=len(labels))

    assert warn(pids) == warn(rng.permutation(pids)) == []
    assert "collapse" in warn(np.zeros(len(pids), int))[0]
    assert "alone" in warn(nobody)[0]
    # Every tenth image is in a cluster of another camera.
    noisy = np.where(rng.random(len(pids)) < 0.1, rng.integers(0, 5, len(pids)), camids)
    for labels in (5 * pids + camids, 10 * noisy + rng.integers(0, 10, len(pids))):
        (text,) = warn(np.unique(labels, return_inverse=True)[1])
        assert "follow the cameras" in text
