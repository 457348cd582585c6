"""log.csv, the rows of a run."""
import numpy as np
import pytest

from minillm import GPT, GPTConfig
from minillm.train.log import COLUMNS, GRADIENTS, append_gradients, append_log, layer_sizes, read_log, trim_log


def test_torn_log_line_is_dropped(tmp_path):
    (tmp_path / "log.csv").write_text(",".join(COLUMNS) + "\n3,100,2.5,0.001,1.0,,,900\n6,200,2.4")
    rows = read_log(tmp_path)
    assert [row["step"] for row in rows] == [3]
    trim_log(tmp_path, 2)
    assert read_log(tmp_path) == []


def test_a_log_of_before_gets_the_columns_of_today(tmp_path):
    (tmp_path / "log.csv").write_text("step,tokens,train_loss,lr\n1,10,2.5,0.001\n2,20,2.4,0.001\n")
    trim_log(tmp_path, 1)
    append_log(tmp_path, {"step": 2, "tokens": 20}, {"train_loss": 2.0, "val_loss": 3.0})
    first, second = read_log(tmp_path)
    assert first == {"step": 1, "tokens": 10, "train_loss": 2.5, "lr": 0.001}
    assert second == {"step": 2, "tokens": 20, "train_loss": 2.0, "val_loss": 3.0}


def test_gradients_of_each_layer(tmp_path):
    """A row of the root mean square of every matrix; rows of steps that are done again go."""
    model = GPT(GPTConfig(n_layer=2, n_head=1, n_embd=8, block_size=4, vocab_size=9))
    tokens = np.arange(8).reshape(2, 4)
    for step in (1, 2):
        _, grads = model.loss_and_grads(tokens, tokens + 1)
        append_gradients(tmp_path, {"step": step, "tokens": 8 * step}, grads)
    trim_log(tmp_path, 1, ["step", "tokens", *layer_sizes(grads)], GRADIENTS)
    (row,) = read_log(tmp_path, GRADIENTS)
    assert row.pop("step") == 1 and row.pop("tokens") == 8
    assert row == {name.removesuffix(".weight"): pytest.approx(np.sqrt(np.mean(grads[name] ** 2)), rel=1e-5)
                   for name in grads if grads[name].ndim == 2}
