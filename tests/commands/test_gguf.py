"""GGUF files on the command line: a directory made of one gets a plain name, and who needs one says how to make it."""
import pytest
from small_models import TOK, model

from minillm.__main__ import main


@pytest.mark.parametrize("command", ["doctor", "verify", "eval", "safety", "card", "quantize -o q", "trace -p a"])
def test_commands_for_directories_name_the_one_that_makes_one(tmp_path, capsys, command):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(SystemExit):
        main([*command.split(), str(path)])
    assert f"is a GGUF file: `minillm export {path} -o DIR`" in capsys.readouterr().err


def test_a_directory_without_a_name_is_not_called_a_gguf_file(tmp_path):
    model().save_pretrained(tmp_path / "mine")
    TOK.save(tmp_path / "mine")
    assert main(["export", str(tmp_path / "mine")]) == 0
    assert (tmp_path / "mine-transformers" / "model.safetensors").exists()
