"""What a report is of: run directories, what they logged, and what the model that a run kept makes of its data."""

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments import curves, reporting, setup_run, trained_model
from experiments.setup_run import Dataset
from reid_jax import checkpoints, embedding_files, evaluate, features, logs, sharding, types
from reid_jax.data import samples as samples_lib
from reid_jax.evaluate import RankingResult

_MAP_IDS, _MAP_SAMPLES = 100, 1700  # of a t-SNE, about as many as in BUC's Fig. 4 and HCT's Fig. 3
_TRAIN, _QUERY, _GALLERY = "train", "query", "gallery"


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
    def noun(self) -> str:
        """What its samples are, in the plural."""
        return "tracklets" if self.config["data"].get("tracklets") else "images"

    @property
    def selects(self) -> bool:
        """Whether a negative pseudo label says that a sample was not selected for training, not that it is alone."""
        return self.method == "pul"

    @property
    def kept(self) -> int:
        """Place among the records of the iteration whose model was kept."""
        stop = self.config.get("stop")
        return reporting.best_iteration(self.records, ConfigDict(stop) if stop else None)

    @property
    def label_free(self) -> int | None:
        """Place among the records of the iteration that a signal without labels chooses; None: there is no signal."""
        stop = self.config.get("stop")
        return reporting.label_free_choice(self.records, ConfigDict(stop))[0] if stop else None


class Views(NamedTuple):
    """What the model that a run kept makes of its data.

    Attributes:
        dataset: with its images.
        query: [Q, D] float32, L2-normalised; None where there are no queries.
        gallery: [G, D] likewise.
        ranking: how well the gallery is ranked; None without queries.
        mapped: [n] indices of train samples, all of some identities where these are known.
        map_embeddings: [n, D] float32, L2-normalised.
    """

    dataset: Dataset
    query: np.ndarray | None
    gallery: np.ndarray | None
    ranking: RankingResult | None
    mapped: np.ndarray
    map_embeddings: np.ndarray


def find_runs(folders: Sequence[str]) -> list[Run]:
    """Reads all runs in run directories or folders of sweeps.

    Raises:
        UserError: a folder has no runs or is given twice, or a file cannot be read.
    """
    named = curves.find_folders(folders, flag="workdir")
    runs = []
    for name, places in named.items():
        for place in places:
            several = f"{name} {place.name}" if len(places) > 1 else name
            runs.append(_read_run(place, several))
    return runs


def _read_run(folder: pathlib.Path, name: str) -> Run:
    records = curves.read_records(folder / "metrics.jsonl", flag="workdir")
    if not records or not (folder / "config.json").is_file():
        raise types.UserError(f"--workdir: the run in {str(folder)!r} has logged nothing yet")
    config = logs.read_json(folder / "config.json")
    result = logs.read_json(folder / "result.json") if (folder / "result.json").exists() else None
    try:
        dataset, seed = config["data"]["dataset"], config["seed"]
        method = result["method"] if result else _guess_method(config)
        usable = all(isinstance(record["seconds"], Mapping) for record in records) and isinstance(dataset, str)
    except (KeyError, TypeError):
        usable, seed = False, None
    if not usable or not isinstance(seed, int) or not isinstance(method, str):
        raise types.UserError(f"--workdir: {str(folder)!r} holds no run of this library's")
    return Run(folder, name, config, records, method, result is not None)


def _guess_method(config: Mapping[str, Any]) -> str:
    """The method of a run that has no result yet, by the fields that its config alone has."""
    if "dynamics" in config:
        return "cluster_dynamics"
    if "selection" in config:
        return "pul"
    if "source" in config:
        return "dbscan"
    if "dissimilarity" in config:
        return "buc" if "cluster" in config else "softened"
    return "hct" if "cluster" in config else "supervised"


def group_runs(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Groups runs that differ in nothing but their seeds; a group has its runs' common name."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        same = {key: value for key, value in run.config.items() if key not in ("seed", "num_devices")}
        groups.setdefault(json.dumps([run.method, same], sort_keys=True), []).append(run)
    named: dict[str, list[Run]] = {}
    for members in groups.values():
        # The seed is the end of a name, as in hct_synthetic_0 or "average seed_0".
        name = re.sub(r"[ _-]*(seed_?)?\d+$", "", members[0].name) if len(members) > 1 else members[0].name
        named[name if name and name not in named else members[0].name] = members
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
    except (ValueError, KeyError, EOFError, OSError) as error:
        raise types.UserError(f"--workdir: {str(path)!r} holds no pseudo labels: {error}") from error
    if not np.array_equal(paths, dataset.samples[_TRAIN].names) or len(labels) != len(paths):
        raise types.UserError(f"--workdir: {str(path)!r} is of other images than {run.dataset!r} has now")
    return labels


def load_dataset(run: Run) -> Dataset:
    """Loads a run's data set, without its images.

    Raises:
        UserError: it is not there.
    """
    return setup_run.load_dataset(trained_model.run_config(run.folder).data)


def look(run: Run, *, batch_size: int) -> Views:
    """Embeds a run's data with the model it kept; what was embedded is kept in its folder embeddings/.

    Raises:
        UserError: the model or the data cannot be read.
    """
    model, variables, config = trained_model.load_run(run.folder)
    dataset = setup_run.with_images(setup_run.load_dataset(config.data), config.data)
    mesh = sharding.make_mesh()
    sharding.check_batch_size(mesh, batch_size)
    embed_step, digest = features.make_embed_step(model, mesh), checkpoints.digest(variables)

    def embedded(split: str, samples: samples_lib.Samples, file: str) -> np.ndarray:
        path = run.folder / "embeddings" / file
        if path.exists() and (kept := _kept_embeddings(path, digest, samples)) is not None:
            return kept
        found = features.embed_samples(
            embed_step,
            variables,
            dataset.images[split],
            samples,
            mesh,
            batch_size=batch_size,
            description=f"{run.name}: embedding {split}",
        ).embeddings
        found = features.l2_normalized(found)
        path.parent.mkdir(exist_ok=True)
        origin = embedding_files.Origin(digest, config.data.height, config.data.width)
        embedding_files.write_embeddings(
            path, found, samples.names, origin=origin, pids=samples.pids, camids=samples.camids
        )
        return found

    query = gallery = ranking = None
    if dataset.has_queries:
        query, gallery = (embedded(split, dataset.samples[split], f"{split}.npz") for split in (_QUERY, _GALLERY))
        labels = [getattr(dataset.samples[split], name) for split in (_QUERY, _GALLERY) for name in ("pids", "camids")]
        # Normalised, cosine and Euclidean distances rank alike.
        ranking = evaluate.evaluate_embeddings(
            query, gallery, *labels, metric="cosine", ap_method=config.evaluation.ap_method
        )
    mapped = choose_mapped(dataset.train_ids)
    map_embeddings = embedded(_TRAIN, samples_lib.select(dataset.samples[_TRAIN], mapped), "train_part.npz")
    return Views(dataset, query, gallery, ranking, mapped, map_embeddings)


def _kept_embeddings(path: pathlib.Path, digest: str, samples: samples_lib.Samples) -> np.ndarray | None:
    """The embeddings in a file, if they are of this model and these samples."""
    try:
        opened = embedding_files.open_embeddings(path)
        if opened.origin.model == digest and np.array_equal(opened.paths, samples.names):
            return embedding_files.read_embeddings(opened)
    except types.UserError:  # they can be made again
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
    return np.flatnonzero(np.isin(true_ids, ids[:fitting]))


def images_of(dataset: Dataset, split: str, indices: Sequence[int]) -> np.ndarray:
    """Returns samples' images [n, h, w, 3] uint8, a tracklet's first frame."""
    samples = dataset.samples[split]
    frames = samples.frames[samples.starts[np.asarray(indices, dtype=np.int64)]]
    return next(iter(dataset.images[split].batches(frames[None])))
