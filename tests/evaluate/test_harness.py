"""Inside lm-evaluation-harness: on local tasks, the same scores as transformers on the same checkpoint."""
import json

import numpy as np
import pytest
from small_models import TOK, model

from minillm import GPT
from minillm.__main__ import main
from minillm.evaluate import harness, samples

TASK = """task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
{rest}
"""
CHOICES = """output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: gold
target_delimiter: ""
metric_list:
  - metric: acc
  - metric: acc_norm"""
ROLLING = """output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}} says cluck and the cow says moo and the hen and the cow and the hen says moo and cluck \
and moo"
metric_list:
  - metric: bits_per_byte"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run directory, and a folder with two tasks."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    model(block_size=32).save_pretrained(tmp_path / "run")
    TOK.save(tmp_path / "run")
    GPT.from_pretrained(tmp_path / "run").save_pretrained(tmp_path / "run")              # in float32
    data = tmp_path / "q.jsonl"
    choices = [" says cluck", " says moo", " and the cow"]
    data.write_text("\n".join(json.dumps({"question": f"the hen {i}", "choices": choices, "gold": i % 3})
                              for i in range(12)))
    for name, rest in (("hens", CHOICES), ("rolling", ROLLING)):
        (tmp_path / f"{name}.yaml").write_text(TASK.format(name=name, data=data, rest=rest))
    return tmp_path / "run"


@pytest.mark.filterwarnings("ignore")
def test_the_same_scores_as_transformers(run, capsys):
    pytest.importorskip("lm_eval")
    huggingface = pytest.importorskip("lm_eval.models.huggingface")
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager
    folder = str(run.parent)
    assert main(["eval", str(run), "--tasks", "harness:hens,harness:rolling", "--harness-path", folder, "--json"]) == 0
    ours = {row["task"]: row["value"] for row in json.loads(capsys.readouterr().out)["rows"]}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (run / "tokenizer_config.json").write_text(json.dumps(config))
    theirs = simple_evaluate(model=huggingface.HFLM(pretrained=str(run), device="cpu", dtype="float32", max_length=32),
                             tasks=["hens", "rolling"], task_manager=TaskManager(include_path=folder),
                             bootstrap_iters=0, verbosity="ERROR")["results"]
    assert ours["hens acc"] == theirs["hens"]["acc,none"] and ours["hens acc_norm"] == theirs["hens"]["acc_norm,none"]
    assert ours["rolling bits_per_byte"] == pytest.approx(theirs["rolling"]["bits_per_byte,none"], rel=1e-6)


def test_a_task_that_is_not_there_is_an_error_in_a_line(run, capsys):
    pytest.importorskip("lm_eval")
    assert main(["eval", str(run), "--tasks", "harness:no_such_task"]) == 1
    error = capsys.readouterr().err
    assert "no task 'no_such_task'" in error and "Traceback" not in error


def test_scored_says_whether_the_greedy_text_is_meant():
    made = model(block_size=32)
    greedy = TOK.encode_ordinary(samples.continuation(made, TOK, "the hen", 3))
    logits = made.forward(np.array([TOK.encode("the hen")]))[0][0, -1]
    best = int(logits.argmax())

    def scored(after):
        return harness.continuation_scores(made, [(TOK.encode("the hen"), after)])[0]
    assert scored([best])[1]
    assert not scored([(best + 1) % TOK.vocab_size])[1]
    assert scored(greedy or [best])[0] < 0


def test_generation_ends_before_a_stop():
    made = model(block_size=32)
    text = samples.continuation(made, TOK, "the hen", 8)
    stop = text[3:5]
    found = harness.continued(made, TOK, "the hen", {"until": [stop], "max_gen_toks": 8})
    assert found == text.partition(stop)[0]


@pytest.mark.parametrize("settings, left, wanted", [
    ({"max_gen_toks": 8}, 24, 8), ({"max_new_tokens": 5}, 27, 5), ({}, 16, 16), ({"max_gen_toks": 31}, 1, 31)], ids=str)
def test_the_context_leaves_room_for_the_answer_as_in_the_harness(monkeypatch, settings, left, wanted):
    """max_length - max_gen_toks tokens of the context, its last ones."""
    asked = []
    monkeypatch.setattr(harness, "stream", lambda model, ids, length, temperature: asked.append((ids, length)) or [])
    ids = TOK.encode("the hen says cluck and the cow says moo " * 4)
    harness.continued(model(block_size=32), TOK, TOK.decode(ids), settings)
    assert asked == [(ids[-left:], wanted)]


def test_an_answer_longer_than_the_context_is_refused():
    with pytest.raises(ValueError, match="max_gen_toks must be below the model's context length, 32: got 256"):
        harness.continued(model(block_size=32), TOK, "the hen", {"max_gen_toks": 256})


def test_without_lm_eval_the_error_says_what_to_install(run, capsys, monkeypatch):
    import sys
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    assert main(["eval", str(run), "--tasks", "harness:hens"]) == 1
    assert "pip install 'minillm[harness]'" in capsys.readouterr().err
