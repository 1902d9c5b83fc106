"""Studies."""

import numpy as np
import pytest

import glowflow

STUDY = """
name = "width"
seeds = [0]
steps = 2
evaluations = 1

[base]
model = { image = [16, 16, 3], levels = 2, steps = 1 }
train = { batch = 8, eval_images = 8 }

[[configurations]]
name = "narrow"
model = { hidden = 4 }

[[configurations]]
name = "wide"
model = { hidden = 8 }
"""


def test_study(portraits, tmp_path):
    (tmp_path / "width.toml").write_text(STUDY)
    np.save(tmp_path / "images.npy", portraits)
    outcome = glowflow.study(tmp_path / "width.toml", tmp_path / "out", data=tmp_path / "images.npy", device="cpu")
    assert outcome["finished"] == outcome["runs"] == 2
    assert [row["configuration"] for row in outcome["configurations"]] == ["narrow", "wide"]
    assert (tmp_path / "out" / "study.csv").exists()
    # A second call has nothing left to train.
    assert glowflow.study(tmp_path / "width.toml", tmp_path / "out", data=tmp_path / "images.npy") == outcome


def test_arguments(tmp_path):
    assert "speedrun" in glowflow.study_names()
    with pytest.raises(ValueError, match="unknown study"):
        glowflow.study("nothing", tmp_path)
    with pytest.raises(ValueError, match="several budgets"):
        glowflow.study("speedrun", tmp_path, data="portraits", steps=1, minutes=1)
    with pytest.raises(ValueError, match="scale"):
        glowflow.study("speedrun", tmp_path, scale="tpu")
