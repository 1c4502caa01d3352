import numpy as np

from reid_jax.linkage.host import MergedRows, NearestSingletons


def test_nearest_singletons_by_hand():
    points = np.array([0.0, 1.0, 3.0, 7.0])
    singletons = NearestSingletons(np.abs(points[:, None] - points))
    is_singleton = np.ones(4, bool)
    singletons.update(is_singleton)
    assert singletons.nearest.tolist() == [1, 0, 1, 2]
    assert singletons.distance.tolist() == [1, 1, 2, 4]
    is_singleton[1] = False
    singletons.update(is_singleton)
    assert singletons.nearest[[0, 2, 3]].tolist() == [2, 0, 2]
    assert singletons.distance.tolist() == [3, np.inf, 3, 4]
    is_singleton[[0, 2]] = False
    singletons.update(is_singleton)
    assert (singletons.distance == np.inf).all()


def test_merged_rows_use_freed_rows_again():
    merged = MergedRows(5)
    merged.add(np.array([1, 3]))
    merged.write(np.array([1, 3]), np.array([np.full(5, 1), np.full(5, 3)]))
    merged.remove(np.array([0, 1]))
    merged.add(np.array([0, 4]))
    merged.write(np.array([4]), np.full((1, 5), 4))
    merged.row(0)[:] = 7
    assert merged.roots.tolist() == [0, 3, 4]
    assert merged.has_row.tolist() == [True, False, False, True, True]
    assert merged.copy_of(np.array([4, 0, 3]))[:, 0].tolist() == [4, 7, 3]


def test_merged_rows_combine_by_hand():
    merged = MergedRows(4)
    merged.add(np.array([0, 2]))
    merged.write(np.array([0, 2]), np.array([[0, 1, 2, 3], [2, 5, 0, 6]]))
    merged.combine_rows(np.array([0]), np.array([2]), np.add)
    assert merged.row(0).tolist() == [2, 6, 2, 9]
    merged.combine_columns(np.array([0, 1, 0, 1]), np.maximum)
    assert merged.row(0)[:2].tolist() == [2, 9]
    merged.add(np.array([1]))
    merged.copy_across(np.array([0, 2]), np.array([1]))
    assert merged.row(1)[[0, 2]].tolist() == [9, 6]
