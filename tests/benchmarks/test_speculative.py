"""Speculative decoding of a pair as a benchmark."""
from benching import quick, run_json  # noqa: F401  (quick is a fixture of every test)

from benchmarks import __main__ as cli


def test_speculative_measures_a_pair(tmp_path, capsys):
    """A pair of tiny models: every draft, k and temperature has a row beside plain decoding."""
    from minillm import GPT, GPTConfig
    from minillm.data.shards.write import write_shards
    from minillm.tokenizer import Tokenizer
    tokenizer = Tokenizer.train(["some text about a fox " * 20], 270, special_tokens=["<|endoftext|>"])
    for name, width in (("target", 16), ("draft", 8)):
        GPT(GPTConfig(1, 1, width, 32, tokenizer.vocab_size), 1).save_pretrained(tmp_path / name)
    write_shards([(f"text {i}", "a fox about some text " * 9) for i in range(30)], tokenizer,
                 tmp_path / "target" / "data")
    where = ["--target", str(tmp_path / "target"), "--draft", str(tmp_path / "draft")]
    code, document = run_json(tmp_path, "speculative", *where)
    found = {row["candidate"] for row in document["rows"]}
    assert code == 0 and {"draft k=3", "lookup k=8", "plain beside draft k=5"} <= found and len(document["rows"]) == 24
    assert all(row["x_theory"] > 0 for row in document["rows"] if row["candidate"].startswith("draft"))
    assert cli.main(["speculative"]) == 2 and "--target DIR" in capsys.readouterr().err
