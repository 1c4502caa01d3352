"""What a report is of: run directories, what they logged, and what the model that a run kept makes of its data."""

import contextlib
import json
import pathlib
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from reid_jax import errors, evaluate, features, postprocess, sharding
from reid_jax.data import records as records_lib
from reid_jax.data import samples as samples_lib
from reid_jax.embeddings import l2_normalize
from reid_jax.evaluate import RankingResult
from reid_jax.inference import networks
from reid_jax.retrieval import embedding_files
from reid_jax.runs import compatibility, config_rules, logs, metrics_files, stopping
from reid_jax.runs import dataset as dataset_lib
from reid_jax.runs.dataset import Dataset

_MAP_IDS, _MAP_SAMPLES = 100, 1700  # of a t-SNE, about as many as in BUC's Fig. 4 and HCT's Fig. 3
_NO_METHOD = "method not noted"  # of runs from before config.json said it, that have no result yet
_TRAIN, _QUERY, _GALLERY = "train", "query", "gallery"
# Fields of config.json in which runs of one setting differ: the seed, the original model that follows from it, and where
# and when a run worked.
_OF_ONE_RUN = frozenset(compatibility.FREE_FIELDS) - {"train.num_iterations"} | {"seed", "original_model"}


class Run(NamedTuple):
    """A run directory.

    Attributes:
        folder: where it is.
        name: short, and different from all other runs' in a report.
        config: its config.json.
        records: the lines of its metrics.jsonl; the first is the initial model's.
        method: the script that made it, without .py.
        is_finished: whether it has a result.
    """

    folder: pathlib.Path
    name: str
    config: dict[str, Any]
    records: list[dict[str, Any]]
    method: str
    is_finished: bool

    @property
    def dataset(self) -> str:
        """Name of the data set, of the target where there is a source."""
        return self.config["data"]["dataset"]

    @property
    def described_data(self) -> str:
        """The data set, with the labelled source where there is one."""
        source = (self.config.get("source") or {}).get("dataset")
        return f"{self.dataset} from {source}" if source else self.dataset

    @property
    def learned_from(self) -> str:
        """What its model learned from, and whether labels of people were used; empty: an earlier version did not note it."""
        return self.config.get("learned_from", "")

    @property
    def baselines(self) -> dict[str, dict[str, float]]:
        """Scores of what needs no training, by its name; empty where they were not measured."""
        path = self.folder / "baselines.json"
        return logs.read_json(path) if path.is_file() else {}

    @property
    def noun(self) -> str:
        """What its samples are, in the plural."""
        return "tracklets" if self.config["data"].get("tracklets") else "images"

    @property
    def selects(self) -> bool:
        """Whether a negative pseudo label says that a sample was not trained on, not that it is alone."""
        return self.method == "pul" or (self.config.get("memory") or {}).get("kind") == "cluster"

    @property
    def kept(self) -> int:
        """Place among the records of the iteration whose model was kept."""
        stop = self.config.get("stop")
        return stopping.best_iteration(self.records, ConfigDict(stop) if stop else None)

    @property
    def label_free(self) -> int | None:
        """Place among the records of the iteration that a signal without labels chooses; None: there is no signal."""
        stop = self.config.get("stop")
        return stopping.kept_without_labels(self.records, ConfigDict(stop))[0] if stop else None


class Views(NamedTuple):
    """What the model that a run kept makes of its data.

    Attributes:
        dataset: with its images.
        query: [Q, D] float32, not normalised; None where there are no queries.
        gallery: [G, D] likewise.
        ranking: how well the gallery is ranked; None without queries.
        mapped: [n] indices of train samples, all of some identities where these are known.
        map_embeddings: [n, D] float32, L2-normalised.
        metric: that the gallery is ranked by.
    """

    dataset: Dataset
    query: np.ndarray | None
    gallery: np.ndarray | None
    ranking: RankingResult | None
    mapped: np.ndarray
    map_embeddings: np.ndarray
    metric: str


def find_runs(folders: Sequence[str]) -> list[Run]:
    """Reads all runs in run directories or folders of sweeps.

    Raises:
        UserError: a folder has no runs or is given twice, or a file cannot be read.
    """
    named = metrics_files.find_folders(folders, flag="workdir")
    runs = []
    for name, places in named.items():
        for place in places:
            several = f"{name} {place.name}" if len(places) > 1 else name
            runs.append(_read_run(place, several))
    return runs


def _read_run(folder: pathlib.Path, name: str) -> Run:
    records = metrics_files.read_records(folder / metrics_files.NAME, flag="workdir")
    if not records or not (folder / "config.json").is_file():
        raise errors.UserError(f"--workdir: the run in {str(folder)!r} has logged nothing yet")
    config = logs.read_json(folder / "config.json")
    result = logs.read_json(folder / "result.json") if (folder / "result.json").exists() else None
    try:
        dataset, seed = config["data"]["dataset"], config["seed"]
        method = result["method"] if result else config.get("method", _NO_METHOD)
        usable = all(isinstance(record["seconds"], Mapping) for record in records) and isinstance(dataset, str)
    except (KeyError, TypeError):
        usable, seed = False, None
    if not usable or not isinstance(seed, int) or not isinstance(method, str):
        raise errors.UserError(f"--workdir: {str(folder)!r} holds no run of this library's")
    return Run(folder, name, config, records, method, result is not None)


def group_runs(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Groups runs that differ in nothing but their seeds and where they ran; a group has its runs' common name."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        fields = config_rules.flat_fields(run.config)
        same = {name: value for name, value in fields.items() if name not in _OF_ONE_RUN}
        groups.setdefault(json.dumps([run.method, same], sort_keys=True), []).append(run)
    named: dict[str, list[Run]] = {}
    # The same seed twice is the same run twice, or runs of different length: no seeds to take a mean of.
    repeated = [len({run.config["seed"] for run in members}) < len(members) for members in groups.values()]
    separate = [
        each
        for members, is_repeated in zip(groups.values(), repeated)
        for each in ([[run] for run in members] if is_repeated else [members])
    ]
    for members in separate:
        name = members[0].name
        if len(members) > 1:
            # The seed is the end of a name, as in hct_synthetic_0 or "average seed_0".
            name = re.sub(rf"[ _-]+(seed_?)?{members[0].config['seed']}$", "", name)
        while name in named:
            name += " (other options)"
        named[name] = members
    return named


def load_pseudo_labels(run: Run, dataset: Dataset) -> np.ndarray | None:
    """Returns the pseudo labels that the kept model was trained on: [N] clusters, or [N, k] of what the method has.

    Softened similarity's are each sample's k reliable samples, HCD's each sample's clusters at its levels.

    Returns:
        None where the run has none, as supervised ones.

    Raises:
        UserError: the file is damaged, or of other samples than the data set's.
    """
    path = run.folder / "pseudo_labels" / f"iteration_{max(run.kept, 1):03d}.npz"
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            labels, paths = arrays["pseudo_labels"], arrays["paths"]
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise errors.UserError(f"--workdir: {str(path)!r} holds no pseudo labels: {error}") from error
    is_right = (
        len(labels) == len(paths) and labels.dtype.kind in "iu" and labels.ndim in (1, 2) and labels.max() < len(paths)
    )
    if not is_right or not np.array_equal(paths, dataset.samples[_TRAIN].names):
        raise errors.UserError(f"--workdir: {str(path)!r} is of other images than {run.dataset!r} has now")
    return labels


def load_dataset(run: Run, *, data_dir: str | None = None) -> Dataset:
    """Loads a run's data set, without its images; one that is not there is not made.

    Args:
        run: the run.
        data_dir: where the data set was prepared; None: where the run had it.

    Raises:
        UserError: it is not there, or is not what the run was on.
    """
    with errors.prefixed("--workdir: "):
        data = networks.run_config(run.folder).data
    data.dir = data_dir or data.dir
    advice = "give --data_dir, or --details=0 for what was logged alone"
    for name in data.dataset.split("+"):
        if records_lib.find_dataset(data.dir, name) is None:
            raise errors.UserError(
                f"--workdir: {run.name} is of the data set {name!r}, not there in {data.dir!r}; {advice}"
            )
    dataset = dataset_lib.load_dataset(data)
    if run.config.get("data_fingerprint") not in (None, dataset.fingerprint):
        raise errors.UserError(
            f"--workdir: {run.name} is of other images or labels than {data.dataset!r} has in {data.dir!r} now; {advice}"
        )
    return dataset


def look(run: Run, *, batch_size: int, data_dir: str | None = None) -> Views:
    """Embeds a run's data with the model it kept; what was embedded is kept in its folder embeddings/.

    Args:
        run: the run.
        batch_size: images at a time.
        data_dir: as in `load_dataset`.

    Raises:
        UserError: the model or the data cannot be read.
    """
    with errors.prefixed("--workdir: "):
        network = networks.load_run(run.folder)
    config, variables = network.config, network.variables
    config.data.dir = data_dir or config.data.dir
    dataset = dataset_lib.with_images(load_dataset(run, data_dir=data_dir), config.data)
    mesh = sharding.make_mesh()
    sharding.check_batch_size(mesh, batch_size)
    embed_step, digest = features.make_embed_step(network.module, mesh), networks.digest(network)

    def embedded(split: str, samples: samples_lib.Samples, file: str) -> np.ndarray:
        path = run.folder / "embeddings" / file
        if path.exists() and (kept := _kept_embeddings(path, digest, samples)) is not None:
            return kept
        embeddings = features.embed_samples(
            embed_step,
            variables,
            dataset.images[split],
            samples,
            mesh,
            batch_size=batch_size,
            description=f"{run.name}: embedding {split}",
        ).embeddings
        if network.fitted is not None:
            embeddings = postprocess.apply(network.fitted, embeddings, samples.camids)
        origin = embedding_files.Origin(digest, config.data.height, config.data.width)
        # A run directory that is not the user's own can be read all the same.
        with contextlib.suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            embedding_files.write_embeddings(
                path, embeddings, samples.names, origin=origin, pids=samples.pids, camids=samples.camids
            )
        return embeddings

    query = gallery = ranking = None
    if dataset.has_queries:
        query, gallery = (embedded(split, dataset.samples[split], f"{split}.npz") for split in (_QUERY, _GALLERY))
        labels = [getattr(dataset.samples[split], name) for split in (_QUERY, _GALLERY) for name in ("pids", "camids")]
        options = config.evaluation
        ranking = evaluate.evaluate_embeddings(
            query, gallery, *labels, metric=options.metric, ap_method=options.ap_method
        )
    mapped = choose_mapped(dataset.train_ids)
    embeddings = embedded(_TRAIN, samples_lib.select(dataset.samples[_TRAIN], mapped), "train_part.npz")
    return Views(dataset, query, gallery, ranking, mapped, l2_normalize(embeddings), config.evaluation.metric)


def _kept_embeddings(path: pathlib.Path, digest: str, samples: samples_lib.Samples) -> np.ndarray | None:
    """The embeddings in a file, if they are of this model and these samples."""
    try:
        opened = embedding_files.open_embeddings(path)
        if opened.origin.model == digest and np.array_equal(opened.paths, samples.names):
            return embedding_files.read_embeddings(opened)
    except errors.UserError:  # they can be made again
        pass
    return None


def choose_mapped(true_ids: np.ndarray) -> np.ndarray:
    """Chooses the samples of a t-SNE: all of some identities drawn at random, or some at random where none is known.

    Args:
        true_ids: [N] integer; -1 where not known.

    Returns:
        [n] int64, ascending.
    """
    rng = np.random.default_rng(0)
    known = np.unique(true_ids[true_ids >= 0])
    if not len(known):
        return np.sort(rng.permutation(len(true_ids))[:_MAP_SAMPLES])
    ids = rng.permutation(known)[:_MAP_IDS]
    sizes = np.bincount(true_ids[true_ids >= 0])[ids]
    fitting = max(2, int(np.searchsorted(np.cumsum(sizes), _MAP_SAMPLES, side="right")))
    chosen = np.flatnonzero(np.isin(true_ids, ids[:fitting]))
    # Few identities with very many samples: evenly spaced ones of all.
    return chosen if len(chosen) <= 2 * _MAP_SAMPLES else chosen[:: -(-len(chosen) // _MAP_SAMPLES)]


def images_of(dataset: Dataset, split: str, indices: Sequence[int]) -> np.ndarray:
    """Returns samples' images [n, h, w, 3] uint8, a tracklet's first frame."""
    samples = dataset.samples[split]
    frames = samples.frames[samples.starts[np.asarray(indices, dtype=np.int64)]]
    return next(iter(dataset.images[split].batches(frames[None])))
