from reid_jax.runs import results

SECONDS = {"seconds": {"embed": 1.25, "train": 2.0}}


def test_the_line_says_how_many_clusters_there_are():
    labels = {"num_clusters": 159, "num_groups": 26, "num_alone": 1330, "largest_cluster": 40, "agreement": None}
    line = results.iteration_line({"iteration": 3} | labels | {"loss": 0.5} | SECONDS, 20)
    assert line == "iteration  3/20  26 clusters, 1,330 alone, largest 40  loss 0.5000  (3.2 s: embed 1.2, train 2.0)"


def test_the_line_of_metrics_of_ones_own():
    line = results.iteration_line({"iteration": 3, "num_clusters": 6, "selected": 0.5} | SECONDS, 20)
    assert line == "iteration  3/20  6 clusters  50.0% selected  (3.2 s: embed 1.2, train 2.0)"


def test_the_line_has_every_score_that_there_is():
    scores = {"bcubed_precision": 0.9, "bcubed_recall": 0.8, "bcubed_f": 0.847, "silhouette": 0.1, "agreement": 0.7}
    scores |= {"reliable_precision": 0.65, "reliable_cross_camera": 0.25, "mAP": 0.5, "mINP": 0.125}
    ranks = {"rank1": 0.6, "rank5": 0.7, "rank10": 0.8}
    line = results.iteration_line({"iteration": 20} | scores | ranks | SECONDS, 20)
    assert line == (
        "iteration 20/20  BCubed P/R/F 0.900/0.800/0.847  silhouette 0.100  reliable 65.0% right  25.0% across cameras  "
        "agreement 0.700  mAP 50.0  rank-1/5/10 60.0/70.0/80.0  mINP 12.5  (3.2 s: embed 1.2, train 2.0)"
    )


def row(mAP, **more):
    return {"mAP": mAP, "rank1": mAP, "rank5": 0.5, "rank10": 0.5, "mINP": 0.1, "queries_skipped": 0} | more


BASELINES = {"color_histogram": row(0.4), "direct transfer, pca_whiten": row(0.6)}


def make_result(best, last, *, direct=0.5, skipped=0, baselines=BASELINES):
    records = {"best": row(best, iteration=3), "last": row(last, iteration=8)}
    start = None if direct is None else row(direct, iteration=0, queries_skipped=skipped)
    learned = {"learned_from": "shop by hct", "label_free_choice": None}
    return records | learned | {"direct_transfer": start, "baselines": baselines}


def test_a_run_above_all_that_needs_no_training_says_nothing():
    assert results.compare_with_baselines(make_result(0.7, 0.65)) is None
    assert results.compare_with_baselines(make_result(0.6, 0.6)) is None  # not below
    assert results.compare_with_baselines(make_result(0.6, 0.55, baselines={})) is None


def test_a_run_that_never_reached_a_baseline():
    assert results.compare_with_baselines(make_result(0.55, 0.3)) == (
        "training ended below what needs none: no iteration reached direct transfer, pca_whiten (60.0 mAP); "
        "reid evaluate --model=RUN --postprocess=all shows what post-processing makes of this run's model"
    )
    assert "direct transfer (50.0 mAP), color_histogram (40.0 mAP), direct transfer, pca_whiten (60.0 mAP);" in (
        results.compare_with_baselines(make_result(0.3, 0.3))
    )


def test_a_run_that_fell_below_a_baseline_in_the_end():
    assert results.compare_with_baselines(make_result(0.7, 0.45)) == (
        "the last iteration ended below what needs no training, direct transfer (50.0 mAP), direct transfer, pca_whiten "
        "(60.0 mAP); the best one, which is kept, did not"
    )


def test_the_table_begins_with_what_needs_no_training():
    lines = results.result_table(make_result(0.55, 0.3, skipped=2)).splitlines()
    names = [line[:27].strip() for line in lines[:6]]
    assert names == [
        "", "color_histogram", "direct transfer", "direct transfer, pca_whiten", "best (iteration 3)", "last (iteration 8)"
    ]  # fmt: skip
    assert lines[1].split()[1:] == ["40.0", "40.0", "50.0", "50.0", "10.0"]
    assert lines[6:8] == ["learned from shop by hct", "2 queries without a match in another camera were skipped"]
    assert lines[8].startswith("training ended below") and len(lines) == 9


def test_without_accuracy_there_is_a_sentence():
    text = results.result_table(make_result(0.0, 0.0, direct=None, baselines={}))
    assert text.endswith("kept the model of iteration 3, chosen without labels") and "\n" not in text
