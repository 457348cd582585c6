"""`minillm serve` as a user starts and stops it."""
import json
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving import command, httpx, model, tokenizer, wait_until  # noqa: F401  (fixtures)

from minillm import GPT, GPTConfig
from minillm.__main__ import main
from minillm.serve import listen


@pytest.fixture(scope="module")
def run(model, tokenizer, tmp_path_factory):
    """A run directory whose model takes seconds for its longest answer."""
    directory = tmp_path_factory.mktemp("runs") / "long"
    long = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=20_000, vocab_size=tokenizer.vocab_size), seed=0)
    long.save_pretrained(directory)
    tokenizer.save(directory)
    return directory


def test_sigterm_cuts_what_runs_and_exits_cleanly(run):
    """Within the grace the stream ends as streams end; what still waited is told; the exit code is 0."""
    with command(run, "--grace", "0.5", "--rows", "1") as (process, url), ThreadPoolExecutor(1) as pool:
        body = {"prompt": "the", "max_tokens": 19_000, "temperature": 0, "stop": "\0"}
        with httpx.stream("POST", url + "/v1/completions", json=body | {"stream": True}, timeout=60) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: ")
            waiting = pool.submit(httpx.post, url + "/v1/completions", json=body, timeout=60)
            wait_until(lambda: "requests_waiting 1" in httpx.get(url + "/metrics").text)
            process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
        assert waiting.result().status_code == 503
        assert process.wait(30) == 0, process.stderr.read()
        with pytest.raises(httpx.ConnectError):
            httpx.get(url + "/health")


def test_the_command_refuses_what_cannot_work(run, capsys):
    sock = listen.listening_socket("127.0.0.1", 0)
    port = str(sock.getsockname()[1])
    for options, words in ((["--port", port], "cannot listen"), (["--rows", "0"], "--rows"),
                           (["--queue", "-1"], "--queue"), (["--api-key", ""], "--api-key"),
                           (["--port", "65536"], "--port")):
        assert main(["serve", str(run), *options]) == 1
        assert words in capsys.readouterr().err
    assert main(["serve", str(run / "nowhere")]) == 1


def test_a_server_in_this_process_leaves_the_signals_as_they_were(run, monkeypatch):
    """A handler that stays would keep children from ending at SIGTERM."""
    monkeypatch.setattr(listen, "serve", lambda *args, **more: None)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["serve", str(run), "--port", "0"]) == 0
    assert signal.getsignal(signal.SIGTERM) is before
