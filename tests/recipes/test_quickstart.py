"""`minillm quickstart`: the main job in a few steps."""
import json

import pytest

from minillm.__main__ import main


@pytest.mark.parametrize("corpus", ["docs", "stories"])
def test_quickstart(corpus, tmp_path, capsys):
    """A few steps of the main job; its figures are finite and its page complete."""
    from minillm.recipes import quickstart
    quickstart.STORIES, kept = 300, quickstart.STORIES
    try:
        assert main(["quickstart", "--corpus", corpus, "--steps", "4", "--out", str(tmp_path), "--json"]) == 0
    finally:
        quickstart.STORIES = kept
    said = capsys.readouterr()
    results = json.loads(said.out)
    assert 0 < results["baselines"]["lzma"] < 4 and results["val_bpb"] > 0.1
    assert ("floor_bpb" in results) == (corpus == "stories")
    for words in ("before training", "after training", "gzip", "minillm train --data FOLDER"):
        assert words in said.err
    assert (tmp_path / "loss.png").exists() or not has_matplotlib()


def has_matplotlib():
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True
