"""A server that filters its answers gives no token away."""
from functools import partial

import pytest
from small_models import TOK, model

from minillm.generation.output_filter import FilteredText


def test_the_server_filters_and_refuses_to_give_tokens_away():
    """Whoever asks for logprobs hears that they do not go with the filter, as in `minillm generate`."""
    pytest.importorskip("starlette")
    testclient = pytest.importorskip("starlette.testclient")
    from minillm.serve import app
    from minillm.serve.engine import Engine
    engine = Engine(model(block_size=64), TOK, new_text=partial(FilteredText, check=lambda text: text.upper()))
    engine.start()
    try:
        client = testclient.TestClient(app.create_app(engine, "small"), base_url="http://localhost")
        body = {"model": "small", "prompt": "the hen", "max_tokens": 12, "seed": 1}
        choice = client.post("/v1/completions", json=body).json()["choices"][0]
        assert choice["text"] == choice["text"].upper() and choice["text"].strip() and choice["logprobs"] is None
        assert client.get("/v1/models").json()["data"][0]["filtered"]
        for extra in ({"logprobs": 2}, {"logprobs": 0}, {"logprobs": 0, "echo": True, "stream": True}):
            answer = client.post("/v1/completions", json=body | extra)
            assert answer.status_code == 400 and "this server filters" in answer.json()["error"]["message"]
            assert answer.json()["error"]["param"] == "logprobs"
        body = {"messages": [{"role": "user", "content": "hen"}], "logprobs": True}
        assert client.post("/v1/chat/completions", json=body).status_code == 400
    finally:
        engine.close()
