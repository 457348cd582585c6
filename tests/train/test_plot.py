"""loss.png: curves of whatever the log holds."""
import numpy as np
import pytest

from minillm.train.log import append_log
from minillm.train.plot import plot_losses, smoothed


def test_smoothing_is_a_mean_that_starts_without_bias():
    assert smoothed([3.0] * 100) == pytest.approx([3.0] * 100)
    assert smoothed([5.0, 1.0]) == [5.0, 1.0]                     # too few to smooth
    noisy = 2 + np.random.default_rng(0).standard_normal(1000)
    assert np.std(smoothed(noisy.tolist())[200:]) < 0.2 < 0.9 < np.std(noisy)


@pytest.mark.parametrize("rows", [0, 1, 30])
def test_a_picture_of_any_log(tmp_path, monkeypatch, rows):
    figure = pytest.importorskip("matplotlib.figure").Figure
    seen, real = [], figure.savefig
    monkeypatch.setattr(figure, "savefig", lambda self, *args, **more: (seen.append(self), real(self, *args, **more)))
    for step in range(1, rows + 1):
        row = {"train_loss": 5 / step, "lr": 1e-3, "grad_norm": 1.0, "tokens_per_second": 1e4}
        append_log(tmp_path, {"step": step, "tokens": step}, row | ({"val_loss": 6 / step} if step % 10 == 0 else {}))
    assert plot_losses(tmp_path, floor=0.1 if rows else None).read_bytes().startswith(b"\x89PNG")
    titles = {axes.get_title(): len(axes.get_lines()) for axes in seen[0].axes}
    some = int(rows > 0)
    assert titles == {"loss": 3 * some + (rows == 30), "learning rate": some, "gradient norm": some,
                      "tokens per second": some}
