"""Every benchmark, one after the other, each in a process of its own so that memory is measured from zero.

    pip install -e .[benchmarks]
    python benchmarks/run_all.py

torch, where it is installed, is compared with in the train step. Nothing else should run on the machine meanwhile.
"""

import pathlib
import subprocess
import sys
import time

BENCHMARKS = (
    "linkage",
    "distances",
    "gallery_search",
    "kmeans",
    "buc_stage",
    "evaluation",
    "jaccard",
    "reranking",
    "label_bank",
    "depthwise",
    "train_step",
    "input_pipeline",
)


def main() -> int:
    """Runs them all; returns the number that failed."""
    failed = 0
    for name in BENCHMARKS:
        print(f"== benchmarks/{name}.py", flush=True)
        start = time.monotonic()
        status = subprocess.run([sys.executable, pathlib.Path(__file__).with_name(f"{name}.py")]).returncode
        failed += status != 0
        print(f"   ({time.monotonic() - start:.0f} s{', FAILED' if status else ''})", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
