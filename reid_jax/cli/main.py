"""The console command `reid`: every command is a script of experiments/ or data_prep/, run as it is."""

import difflib
import runpy
import sys

METHODS = {
    "contrast": "recommended: DBSCAN labels, contrast with clusters and cameras, averaged weights",
    "hct": "merge steps and triplet loss (CVPR 2020)",
    "buc": "bottom-up clustering and repelled loss (AAAI 2019)",
    "pul": "k-means, reliable samples, fine-tuning (2017)",
    "softened": "softened similarity (CVPR 2020)",
    "cluster_dynamics": "online labels by splitting and merging clusters (ICCV 2021)",
    "dbscan": "DBSCAN labels, contrastive loss over a memory (SpCL 2020, Cluster Contrast 2021)",
    "supervised": "true identities: the upper limit",
    "combine": "any labels with any loss",
    "transfer": "from labelled sources to targets, as a table",
}
COMMANDS = {
    "prepare": ("data_prep.prepare", "turn a folder or a public data set into a prepared one"),
    "weights": ("experiments.weights", "list published weights, and get those to start from"),
    "train": ("", "train a method on it: reid train METHOD"),
    "evaluate": ("experiments.evaluate", "score a model on a prepared data set"),
    "embed": ("experiments.embed", "embed images: one vector for each, in an .npz"),
    "search": ("experiments.search", "rank a gallery for query images"),
    "group": ("experiments.group", "sort a folder of crops into people"),
    "export": ("experiments.export", "write a model as one file, or as a model folder"),
    "report": ("experiments.report", "a page of results, curves and pictures of runs"),
    "curves": ("experiments.curves", "a plot of what runs logged"),
    "sweep": ("experiments.sweep", "run a list of overrides and print a table"),
}


def main() -> None:
    """Runs the command that the command line names; does not return."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "-help", "help"):
        _exit(usage(), 0)
    if name == "--version":
        from reid_jax import __version__

        _exit(__version__, 0)
    if name in METHODS:
        print(f"error: {name} is a method: reid train {name}", file=sys.stderr)
        sys.exit(2)
    if name not in COMMANDS:
        _fail("command", name, COMMANDS)
    module = COMMANDS[name][0]
    if name == "train":
        method, *arguments = arguments or ["--help"]
        if method in ("--help", "-h", "-help", "help"):
            _exit(_methods(), 0)
        if method not in METHODS:
            _fail("method", method, METHODS)
        name, module = f"train {method}", f"experiments.{method}"
    from reid_jax.cli import program  # imports what --help and --version do without

    program.started_as = f"reid {name}"
    sys.argv = [f"reid {name}", *arguments]
    try:
        runpy.run_module(f"reid_jax.{module}", run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:  # while modules are imported: later `program` catches it
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def usage() -> str:
    """What `reid --help` prints."""
    lines = [f"  {name:9} {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(["usage: reid COMMAND --name=value ...", "", *lines, "", "reid COMMAND --help shows its flags."])


def _methods() -> str:
    lines = [f"  {name:17} {what}" for name, what in METHODS.items()]
    more = "reid train METHOD --help shows its flags and the fields of its config."
    return "\n".join(
        ["usage: reid train METHOD [--config=METHOD:DATASET] [--workdir=FOLDER] ...", "", *lines, "", more]
    )


def _fail(what: str, name: str, known: dict) -> None:
    (nearest,) = difflib.get_close_matches(name, known, n=1, cutoff=0)
    print(
        f"error: there is no {what} {name!r}; did you mean {nearest!r}? They are: {', '.join(known)}", file=sys.stderr
    )
    sys.exit(2)


def _exit(text: str, status: int) -> None:
    print(text)
    sys.exit(status)


if __name__ == "__main__":
    main()
