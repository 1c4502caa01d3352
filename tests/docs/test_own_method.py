"""docs/own_method.md: its code is what is run here."""

import re
import sys

import pytest
import tiny_runs
from tiny_data import ROOT


@pytest.mark.usefixtures("own_backbone")
def test_the_pages_method_runs_and_resumes(prepared, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/own_method.md").read_text(), re.DOTALL)
    assert len(code.splitlines()) < 60
    (tmp_path / "spectral.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    import spectral

    config = tiny_runs.make_config(spectral.hct.get_config, prepared, tiny_runs.PK_OVERRIDES, num_devices=1).unlock()
    config.spectral = {"num_clusters": 6, "k": 5}
    config.train.update(num_iterations=1, num_epochs=1)
    spectral.run_spectral(config, tmp_path / "run")
    config.train.num_iterations = 2  # the run goes on from its checkpoint
    result = spectral.run_spectral(config, tmp_path / "run")
    assert result["method"] == "spectral" and result["iterations"] == 2
    lines = tiny_runs.metrics(tmp_path / "run")
    assert [line["num_clusters"] for line in lines[1:]] == [6, 6] and lines[2]["agreement"] is not None
    del sys.modules["spectral"]
