"""`minillm chat`: a conversation in the terminal."""
import io
import re

from small_models import talker  # noqa: F401  (a fixture)

from minillm import GPT, Tokenizer
from minillm.__main__ import main
from minillm.generation.decode import steps
from minillm.generation.sampling import Sampling
from minillm.generation.text import TextStream


def talk(monkeypatch, capsys, run, lines, *options):
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(line + "\n" for line in lines)))
    code = main(["chat", str(run), "-n", "20", *options])
    out = capsys.readouterr()
    assert code == 0, out.err
    return out.out


def test_the_terminal_says_what_the_model_says(talker, monkeypatch, capsys):
    """The first answer is that of the library on the same template; /again changes the seed; settings that are wrong
    are told, and change nothing."""
    tokenizer, model = Tokenizer.from_pretrained(talker), GPT.from_pretrained(talker)
    said = talk(monkeypatch, capsys, talker, ["hello", "/again", "/set top_k 0", "/set colour 1", "/set seed 0",
                                           "/clear", "hello", "", "/help", "/quit", "not read"], "--temperature", "1")
    expected = []
    for seed in (0, 1, 0):
        stream = TextStream(tokenizer, ("\nUser:", "\nSystem:"))
        ids = tokenizer.encode("User: hello\n\nAssistant:")
        found = steps(model, ids, 20, Sampling(seed=seed), tokenizer.eot_token)
        text = "".join(stream.push(step.token) for step in found if step.token != tokenizer.eot_token)
        expected.append(text + stream.finish())
    assert expected[0] != expected[1]
    errors = "(top_k must be an integer of at least 1, or None: got 0)\n(there is no colour to set: "
    assert said.startswith(f"{expected[0]}\n\n{expected[1]}\n\n{errors}")
    assert f")\n{expected[2]}\n\n/set NAME VALUE" in said and "not read" not in said


def test_colours_and_acceptance_in_the_terminal(talker, monkeypatch, capsys):
    plain = talk(monkeypatch, capsys, talker, ["the the the the"], "--temperature", "0", "--lookup", "--no-colour")
    painted = talk(monkeypatch, capsys, talker, ["the the the the"], "--temperature", "0", "--lookup", "--colour")
    assert "\x1b" not in plain and re.sub(r"\x1b\[[\d;]*m", "", painted) == plain and "\x1b[38;5;" in painted
    assert re.search(r"\(\d+% of the draft tokens accepted, \d\.\d\d tokens a pass\)", plain)


def test_numbers_are_set_as_they_are_written(talker, monkeypatch, capsys):
    lines = [f"/set {line}" for line in ("temperature 1e-3", "temperature .5", "seed 7", "top_k none", "seed 1.5",
                                         "temperature nan", "top_p -1", "temperature x")]
    said = talk(monkeypatch, capsys, talker, lines).splitlines()
    assert [line[1:].split()[0] for line in said] == ["seed", "temperature", "top_p", "temperature"]


def test_a_message_longer_than_the_context_is_told(talker, monkeypatch, capsys):
    said = talk(monkeypatch, capsys, talker, ["the lazy dog " * 400, "hello"])
    assert said.count("fit into the context") == 1 and "only the last 256" in said


def test_a_long_talk_forgets_its_oldest_turns(talker, monkeypatch, capsys):
    said = talk(monkeypatch, capsys, talker, ["the lazy dog and the quick fox " * 3] * 8, "--temperature", "0")
    assert "context" not in said


def test_the_terminal_refuses_what_cannot_work(talker, monkeypatch, capsys):
    for options in (["-n", "0"], ["--draft-tokens", "0"], ["--temperature", "-1"], ["--draft", str(talker / "none")]):
        assert main(["chat", str(talker), *options]) == 1
        assert "minillm chat:" in capsys.readouterr().err
