"""log.csv, the rows of a run."""
from minillm.train.log import COLUMNS, read_log, trim_log


def test_torn_log_line_is_dropped(tmp_path):
    (tmp_path / "log.csv").write_text(",".join(COLUMNS) + "\n3,100,2.5,0.001,1.0,,,900\n6,200,2.4")
    rows = read_log(tmp_path)
    assert [row["step"] for row in rows] == [3]
    trim_log(tmp_path, 2)
    assert read_log(tmp_path) == []
