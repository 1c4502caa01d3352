"""experiments/report.py: whole reports of runs, as pages and pictures; what a stranger's text can do in them."""

import html.parser
import json
import re

import numpy as np
import pytest
import tiny_runs
from PIL import Image

from reid_jax import errors
from reid_jax.experiments import report
from reid_jax.reports import paper_figures, report_page, report_pictures, report_runs, report_strips

pytestmark = pytest.mark.usefixtures("own_backbone")


@pytest.fixture(scope="module")
def make_run(prepared, tmp_path_factory):
    """(name, **options of tiny_runs.write_run) -> a run directory."""
    root = tmp_path_factory.mktemp("runs")

    def make(name, **options):
        return tiny_runs.write_run(root / name, prepared, **options)

    return make


CLUSTERS = np.repeat([0, 1, 2, 3], 6)


@pytest.fixture
def mixed_labels():
    """Of the 24 train images, six of each of four identities: cluster 0 holds two identities, identity 3 two clusters."""
    labels = CLUSTERS.copy()
    labels[6:12] = 0
    labels[21:] = 7
    return labels.astype(np.int32)


class Checked(html.parser.HTMLParser):
    """What a page is made of."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.attributes = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.words.append(data)


def test_a_report_of_one_run(make_run, mixed_labels, tmp_path, capsys):
    workdir = make_run("hct_tiny", labels=mixed_labels)
    page = report.write_report([str(workdir)], tmp_path / "out", details=3, batch_size=8)
    text = page.read_text()
    names = {path.name for path in page.parent.iterdir()}
    assert names == {
        "report.html", "curves.png", "cmc.png", "run1_map.png", "run1_sizes.png", "run1_wrong_merges.png",
        "run1_wrong_splits.png", "run1_worst_queries.png", "run1_best_queries.png",
    }  # fmt: skip
    found = Checked(text)
    # Nothing is loaded from elsewhere, nothing runs, every picture is in it.
    sources = [value for name, value in found.attributes if name in ("src", "href")]
    assert [source for source in sources if not source.startswith(("data:image/", "#"))] == []
    assert found.tags.count("img") == len(names) - 1 and not {"script", "link", "iframe"} & set(found.tags)
    words = " ".join(" ".join(found.words).split())
    for expected in (
        "hct_tiny",
        "30.0 (3)",
        "HCT",
        "80.0",
        "56.4",
        "CVPR 2020",
        "These figures are the papers', not measured here",
    ):
        assert expected in words, expected
    assert "hct_tiny: t-SNE of 24 images" in capsys.readouterr().out
    assert len(text) < 10_000_000
    # A second report reads what the first embedded.
    kept = {path: path.stat().st_mtime_ns for path in (workdir / "embeddings").iterdir()}
    assert {path.name for path in kept} == {"query.npz", "gallery.npz", "train_part.npz"}
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "mine.png").write_text("mine")
    for name in ("report.html", "run7_map.png"):
        (tmp_path / "again" / name).write_text("of a report of more runs")
    again = report.write_report([str(workdir)], tmp_path / "again", details=3, batch_size=8)
    assert {path.name for path in (tmp_path / "again").iterdir()} == names | {"mine.png"}
    assert again.read_text() == text and kept == {path: path.stat().st_mtime_ns for path in kept}


def test_wrong_labels_are_told(make_run, mixed_labels, tmp_path, monkeypatch):
    (run,) = report_runs.find_runs([str(make_run("told", labels=mixed_labels))])
    rows = []
    monkeypatch.setattr(
        report_strips.image_rows, "draw_rows", lambda given, **_: rows.extend(given) or Image.new("RGB", (9, 9))
    )
    dataset = report_runs.look(run, batch_size=8).dataset
    labels = report_runs.load_pseudo_labels(run, dataset)
    np.testing.assert_array_equal(labels, mixed_labels)
    report_strips.wrong_merges(run, dataset, labels, tmp_path / "a.png")
    assert [row.title for row in rows] == ["cluster 0: 12 images of 2 people, 36 pairs wrongly together"]
    assert [tile.mark.name for tile in rows[0].tiles] == ["RIGHT"] * 4 + ["WRONG"] * 4
    rows.clear()
    report_strips.wrong_splits(run, dataset, labels, tmp_path / "b.png")
    assert [row.title for row in rows] == ["person 4: 6 images in 2 clusters, 9 pairs wrongly apart"]
    assert {tile.caption for tile in rows[0].tiles} == {"cluster 3", "cluster 7"}


def test_ranked_lists_leave_out_the_query_s_own_camera(make_run, tmp_path, monkeypatch):
    (run,) = report_runs.find_runs([str(make_run("ranked"))])
    rows = []
    monkeypatch.setattr(
        report_strips.image_rows, "draw_rows", lambda given, **_: rows.extend(given) or Image.new("RGB", (9, 9))
    )
    views = report_runs.look(run, batch_size=8)
    report_strips.ranked_lists(run, views, tmp_path / "a.png", best=False)
    precisions = [float(re.search(r"average precision ([\d.]+)%", row.title)[1]) for row in rows]
    assert len(rows) == 4 and precisions == sorted(precisions)
    np.testing.assert_allclose(precisions, np.sort(100 * views.ranking.ap), atol=0.051)
    # Of a person's six gallery images three are by another camera than the query's.
    assert all(" 3 right images in the gallery" in row.title for row in rows)
    for row in rows:
        first = int(re.search(r"the first at rank (\d+)", row.title)[1])
        marks = [tile.mark.name for tile in row.tiles[1:]]
        assert (marks.index("RIGHT") + 1 if "RIGHT" in marks else 11) == min(first, 11)


def test_seeds_are_one_curve_and_have_a_mean(make_run, tmp_path):
    folders = [str(make_run(f"seeds_{seed}", seed=seed)) for seed in (0, 1)]
    groups = report_runs.group_runs(report_runs.find_runs(folders))
    assert {name: [run.name for run in runs] for name, runs in groups.items()} == {"seeds": ["seeds_0", "seeds_1"]}
    assert "seeds: mean of 2 seeds" in report.results_table(groups) and "30.0 ± 0.0" in report.results_table(groups)
    assert [run.name for run in report.choose_detailed(groups, most=1)] == ["seeds_0"]
    page = report.write_report(folders, tmp_path, details=0, batch_size=8).read_text()
    assert "0 of the 2 runs are looked at closely" in page and not (tmp_path / "cmc.png").exists()


def test_text_of_a_run_is_only_text(make_run, tmp_path):
    workdir = make_run("<script>alert(1)< $^$", labels=CLUSTERS)  # a dollar begins a formula in plots
    config = json.loads((workdir / "config.json").read_text())
    config["cluster"]["linkage"] = "</pre><img src=http://x/y onerror=alert(2)>"
    (workdir / "config.json").write_text(json.dumps(config))
    page = report.write_report([str(workdir)], tmp_path, details=1, batch_size=8)
    found = Checked(page.read_text())
    assert "script" not in found.tags and not any(name == "onerror" for name, _ in found.attributes)
    assert any("<script>alert(1)< $^$" in word for word in found.words)


def test_levels_reliable_samples_and_no_labels(make_run, tmp_path):
    levels = np.stack([np.arange(24), CLUSTERS, CLUSTERS // 2], axis=1).astype(np.int32)
    hcd = make_run("levels", method="cluster_dynamics", labels=levels)
    records = [json.loads(line) for line in (hcd / "metrics.jsonl").read_text().splitlines()]
    for h in (1, 2, 3):
        records[-1] |= {f"level{h}_num_clusters": 24 // h, f"level{h}_bcubed_f": 0.1 * h}
    (hcd / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    Image.new("RGB", (30, 20), "red").save(hcd / "hierarchy.png")
    reliable = np.stack([np.roll(np.arange(24), -1), np.roll(np.arange(24), 1)], axis=1)
    ssl = make_run("reliable", method="softened", labels=reliable)
    supervised = make_run("with_labels", method="supervised")
    page = report.write_report([str(hcd), str(ssl), str(supervised)], tmp_path, details=3, batch_size=8).read_text()
    assert "batch-hard triplet with labels" in page
    names = {path.stem for path in tmp_path.glob("run*.png")}
    assert {"run1_levels", "run1_hierarchy", "run1_wrong_merges", "run2_reliable", "run3_map"} <= names
    assert not {"run2_sizes", "run2_wrong_merges", "run3_sizes", "run3_wrong_splits"} & names


def test_photographs_shrink_until_a_page_is_small(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    picture = report_pictures.Picture(tmp_path / "a.png", "title", "text", is_photo=True)
    large = report_page.page("page", [picture])
    monkeypatch.setattr(report_page, "_MOST_BYTES", len(large) - 1)
    small = report_page.page("page", [picture])
    assert len(small) < len(large) and "data:image/jpeg" in small


def test_a_hundred_iterations(make_run, tmp_path):
    workdir = make_run("long", labels=CLUSTERS, num_iterations=100)
    page = report.write_report([str(workdir)], tmp_path, details=0, batch_size=8)
    assert page.stat().st_size < 10_000_000 and "1000.0 (100)" in page.read_text()


def test_sweeps_are_drawn_over_what_they_vary(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(report_pictures.plots, "save_values", lambda *a, **k: drawn.append((a[1:], k)))
    rows = []
    for k in (1, 2, 4):
        runs = []
        for seed in (0, 1):
            folder = tmp_path / f"k_{k}" / f"seed_{seed}"
            folder.mkdir(parents=True)
            (folder / "metrics.jsonl").write_text("{}\n" + json.dumps({"selected": 0.1 * k + 0.02 * seed}) + "\n")
            runs.append({"folder": str(folder)})
        mean, std = {"best_mAP": 0.1 * k, "best_rank1": 0.2}, {"best_mAP": 0.01, "best_rank1": None}
        rows.append({"label": f"k = {k}", "overrides": {"labels.k": k}, "runs": runs, "mean": mean, "std": std})
    table = {"title": "k", "method": "pul", "dataset": "tiny", "rows": rows}
    assert "pul on tiny" in report_pictures.sweep_values(table, tmp_path / "a.png").text
    assert "iteration 1" in report_pictures.sweep_selected(table, tmp_path, tmp_path / "b.png").title
    ((values, series), options), ((_, selected), _) = drawn
    assert values == [1, 2, 4] and options == {"option": "labels.k"}
    np.testing.assert_allclose(series["mAP, best iteration"], [(10, 1), (20, 1), (40, 1)])
    assert series["rank-1, best iteration"] == [(20.0, None)] * 3
    np.testing.assert_allclose([mean for mean, _ in selected["samples selected in iteration 1"]], [11, 21, 41])
    # A row that leaves the option as it is has no value to be drawn over.
    rows[0]["overrides"] = {}
    report_pictures.sweep_values(table, tmp_path / "a.png")
    assert drawn[-1][0][0] == ["k = 1", "k = 2", "k = 4"] and drawn[-1][1] == {"option": "row of the sweep"}
    assert report_pictures.sweep_values(table | {"rows": rows[:1]}, tmp_path / "one.png") is None
    for row in rows:
        for run in row["runs"]:
            (tmp_path / run["folder"] / "metrics.jsonl").unlink()
    assert report_pictures.sweep_selected(table, tmp_path, tmp_path / "none.png") is None


def test_papers_figures_are_theirs():
    figures = paper_figures.figures_of({"hct", "softened", "supervised triplet"})
    assert {(figure.name, figure.dataset, figure.rank1, figure.mAP) for figure in figures} == {
        ("ImageNet weights, no training", "Market-1501", 11.1, 3.5), ("ImageNet weights, no training", "DukeMTMC-reID", 8.6, 3.0),
        ("HCT", "Market-1501", 80.0, 56.4), ("HCT", "DukeMTMC-reID", 69.6, 50.7),
        ("SSL", "Market-1501", 71.7, 37.8), ("SSL", "DukeMTMC-reID", 52.5, 28.6),
        ("SSL", "MARS", 62.8, 43.6), ("SSL", "DukeMTMC-VideoReID", 76.4, 69.3),
        ("batch-hard triplet with labels", "Market-1501", 91.6, 78.2), ("batch-hard triplet with labels", "DukeMTMC-reID", 80.8, 65.4),
    }  # fmt: skip
    assert all(figure.source and 0 < figure.mAP < figure.rank1 < 100 for figure in paper_figures.PAPER_FIGURES)
    assert paper_figures.figures_of({"own"}) == []


def run_of(tmp_path, name, *, seed=0, finished=True, **fields):
    """A run without files."""
    config = {
        "seed": seed,
        "data": {"dataset": "tiny", "dir": str(tmp_path / name)},
        "train": {"num_iterations": 1},
        **fields,
    }
    records = [{"iteration": i, "mAP": 0.1 + 0.1 * seed, "seconds": {}} for i in range(2)]
    return report_runs.Run(tmp_path / name, name, config, records, "hct", finished)


def test_runs_of_other_options_are_another_group(tmp_path):
    runs = [
        run_of(tmp_path, "x_0"), run_of(tmp_path, "x_1", seed=1, original_model="of seed 1"), run_of(tmp_path, "x", k=2),
        run_of(tmp_path, "y_coil100", k=3), run_of(tmp_path, "z_coil100", seed=1, k=3),
    ]  # fmt: skip
    groups = {name: [run.name for run in members] for name, members in report_runs.group_runs(runs).items()}
    # The seed alone is cut off a name, not what a data set's name ends in, and no group is lost.
    assert groups == {"x": ["x_0", "x_1"], "x (other options)": ["x"], "y_coil100": ["y_coil100", "z_coil100"]}


def test_a_mean_is_of_finished_runs(tmp_path):
    runs = [run_of(tmp_path, "x_0"), run_of(tmp_path, "x_1", seed=1), run_of(tmp_path, "x_2", seed=2, finished=False)]
    table = report.results_table(report_runs.group_runs(runs))
    assert "mean of 2 seeds" in table and "15.0 ± 7.1" in table and "x_2 (not finished)" in table
    assert "mean of" not in report.results_table(report_runs.group_runs(runs[1:]))


def test_what_was_not_trained_on_is_not_judged(tmp_path):
    selecting = [run_of(tmp_path, "a", memory={"kind": "cluster"}), run_of(tmp_path, "b")._replace(method="pul")]
    assert [run.selects for run in selecting] == [True, True] and not run_of(
        tmp_path, "c", memory={"kind": "unified"}
    ).selects


def test_a_model_that_collapsed_has_no_map(make_run, tmp_path):
    (run,) = report_runs.find_runs([str(make_run("collapsed", labels=CLUSTERS))])
    views = report_runs.look(run, batch_size=8)
    same = views._replace(map_embeddings=np.ones_like(views.map_embeddings))
    assert report_pictures.embedding_map(run, same, None, tmp_path / "map.png") is None


def test_data_that_are_not_those_of_the_run(make_run, prepared, tmp_path):
    workdir = make_run("moved", labels=CLUSTERS)
    config = json.loads((workdir / "config.json").read_text())
    (workdir / "config.json").write_text(json.dumps(config | {"data_fingerprint": "another"}))
    (run,) = report_runs.find_runs([str(workdir)])
    with pytest.raises(
        errors.UserError, match="moved is of other images or labels than 'tiny' has in .* give --data_dir"
    ):
        report_runs.look(run, batch_size=8)
    config["data"] |= {"dataset": "synthetic", "dir": str(tmp_path / "gone")}
    (workdir / "config.json").write_text(json.dumps(config))
    (run,) = report_runs.find_runs([str(workdir)])
    # Nothing is made where a stranger's config says.
    with pytest.raises(errors.UserError, match="is of the data set 'synthetic', not there in .*gone"):
        report_runs.look(run, batch_size=8)
    assert not (tmp_path / "gone").exists()


def test_what_is_no_run(make_run, tmp_path):
    with pytest.raises(errors.UserError, match="--workdir: no metrics.jsonl in"):
        report_runs.find_runs([str(tmp_path)])
    workdir = make_run("broken", labels=CLUSTERS)
    (workdir / "config.json").write_text("{}")
    with pytest.raises(errors.UserError, match="holds no run of this library's"):
        report_runs.find_runs([str(workdir)])
    other = make_run("other", labels=CLUSTERS)
    (run,) = report_runs.find_runs([str(other)])
    np.savez(other / "pseudo_labels" / "iteration_003.npz", pseudo_labels=np.zeros(2), paths=np.array(["a", "b"]))
    with pytest.raises(errors.UserError, match="is of other images than 'tiny' has now"):
        report_runs.load_pseudo_labels(run, report_runs.load_dataset(run))
