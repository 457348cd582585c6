"""log.csv, the rows of a run."""
from minillm.train.log import COLUMNS, append_log, read_log, trim_log


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
