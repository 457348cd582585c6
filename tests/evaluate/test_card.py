"""`minillm safety`, `eval` and `card`: what they print goes into the model card."""
import json

from small_models import TOK, model

from minillm.__main__ import main


def test_the_commands_and_the_card(tmp_path, capsys):
    run = tmp_path / "run"
    model().save_pretrained(run)
    TOK.save(run)
    (run / "log.csv").write_text("step,tokens,train_loss,val_loss\n10,640,3.5,3.25\n")
    prompts = tmp_path / "p.jsonl"
    prompts.write_text("\n".join(json.dumps({"category": "x", "prompt": "the hen", "harmful": bool(i)})
                                 for i in range(2)))
    assert main(["safety", str(run), "--against", str(run), "--prompts", str(prompts), "--json", "--out",
                 str(tmp_path / "answers.jsonl")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {c["p"] for c in found["changes"]} == {1.0}
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 2
    (tmp_path / "safety.json").write_text(json.dumps(found))
    (tmp_path / "text.txt").write_text("the hen says cluck")
    assert main(["eval", str(run), "--tasks", "bpb", "--data", str(tmp_path / "text.txt"), "--json"]) == 0
    (tmp_path / "eval.json").write_text(capsys.readouterr().out)
    assert main(["card", str(run), "--evaluation", str(tmp_path / "eval.json"),
                 "--safety", str(tmp_path / "safety.json"), "--limit", "It is a toy."]) == 0
    card = (run / "MODEL_CARD.md").read_text()
    for words in ("n_layer: 1", "10 steps", "loss 3.2500", "| bpb |", "all harmful", "It is a toy.",
                  "No record of the data"):
        assert words in card, words
    assert json.loads((run / "safety.json").read_text()) == found and (run / "evaluation.json").exists()
    assert main(["card", str(run)]) == 0 and "| all harmful |" in (run / "MODEL_CARD.md").read_text()
    assert main(["card", str(run), "--safety", str(tmp_path / "eval.json")]) == 1
    assert "expected what `minillm safety --json`" in capsys.readouterr().err
    assert main(["card", str(run), "--evaluation", str(tmp_path / "text.txt")]) == 1
    assert "text.txt: not valid JSON" in capsys.readouterr().err
    assert main(["safety", str(run), "-n", "0"]) == 1
    assert "max_new_tokens must be at least 1" in capsys.readouterr().err
    assert main(["generate", str(run), "-p", "the hen", "-n", "4", "--filter"]) == 0
    assert main(["generate", str(run), "-n", "4", "--filter", "--logprobs", "1"]) == 1
    assert "does not go with --filter" in capsys.readouterr().err
