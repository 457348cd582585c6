"""`minillm eval`: tasks on one model or two, as rows with intervals and comparisons."""
import json

from small_models import TOK, model, write_records

from minillm.__main__ import main


def test_the_command_measures_and_compares(tmp_path, capsys):
    for name, seed in (("a", 0), ("b", 1)):
        model(seed).save_pretrained(tmp_path / name)
        TOK.save(tmp_path / name)
    text = tmp_path / "text.txt"
    text.write_text("the hen says cluck and the cow says moo", encoding="utf-8")
    questions = write_records(tmp_path / "q.jsonl",
                              [{"prompt": "the hen", "choices": [" moo", " cluck"], "answer": 1}] * 3)
    answers = write_records(tmp_path / "g.jsonl", [{"prompt": "the hen", "answer": "cluck"}])
    tasks = f"ppl,bpb,samples,memory,mc:{questions},gen:{answers}"
    command = ["eval", str(tmp_path / "a"), "--tasks", tasks, "--data", str(text)]
    assert main([*command, "--against", str(tmp_path / "b"), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    names = {row["task"] for row in results["rows"]}
    assert {"ppl", "bpb", "mc q (sum)", "gen g", "repeated 4-grams", "longest overlap (bytes)"} <= names
    assert {c["task"] for c in results["comparisons"]} >= {"ppl", "bpb", "mc q (per byte)"}
    assert main(command) == 0 and "95% interval" in capsys.readouterr().out
    for tasks, words in (("chess", "unknown task 'chess'"), ("ppl", "--data: the task ppl needs")):
        assert main(["eval", str(tmp_path / "a"), "--tasks", tasks]) == 1
        assert words in capsys.readouterr().err


def test_models_are_named_and_results_stay_in_the_run_for_its_card(tmp_path, capsys):
    a, b, text = tmp_path / "a", tmp_path / "b", tmp_path / "text.txt"
    for seed, run in enumerate((a, b)):
        model(seed).save_pretrained(run)
        TOK.save(run)
    text.write_text("the hen says cluck and the cow says moo", encoding="utf-8")
    assert main(["eval", str(a), "--against", str(b), "--tasks", "bpb", "--data", str(text)]) == 0
    assert f"{b} minus {a}, bpb: " in capsys.readouterr().out
    assert main(["eval", str(a), "--tasks", "samples"]) == main(["eval", str(a), "--tasks", "samples"]) == 0
    stored = json.loads((a / "evaluation.json").read_text())
    assert [row["model"] for row in stored["rows"] if row["task"] == "bpb"] == [str(a), str(b)]
    assert len(stored["rows"]) == 2 + 4 and not (b / "evaluation.json").exists()               # measured again: once
    (comparison,) = stored["comparisons"]
    assert (comparison["first"], comparison["second"]) == (str(a), str(b))
    assert main(["card", str(a)]) == 0
    card = (a / "MODEL_CARD.md").read_text()
    assert f"| bpb | {b} |" in card and f"- {b} minus {a}, bpb: " in card and "| distinct 2-grams |" in card


def test_one_document_has_no_interval_and_no_task_is_an_error(tmp_path, capsys):
    model().save_pretrained(tmp_path / "run")
    TOK.save(tmp_path / "run")
    (tmp_path / "text.txt").write_text("the hen says cluck")
    command = ["eval", str(tmp_path / "run"), "--data", str(tmp_path / "text.txt"), "--tasks"]
    assert main([*command, "ppl,bpb", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["low"], row["high"], row["items"]) for row in rows] == [(None, None, 1)] * 2
    assert main([*command, " , "]) == 1
    assert "nothing to measure" in capsys.readouterr().err
