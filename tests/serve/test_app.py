"""The server's HTTP side over real HTTP: names, the API key, health and metrics."""
import hmac
import re
from types import SimpleNamespace

import pytest
from serving import NAME, model, running, server, tokenizer  # noqa: F401  (fixtures)

from minillm.serve import app
from minillm.serve.errors import ApiError


def test_names_with_a_slash_and_paths_with_one_too_many(model, tokenizer):
    with running(model, tokenizer, name="org/tiny") as server:
        get = server.client.get
        (entry,) = get("/v1/models").json()["data"]
        assert get("/v1/models/org/tiny").json() == get("/v1/models/org%2Ftiny").json() == entry
        assert get("/health/").status_code == 404 and "message" in get("/health/").json()["error"]
        assert get("/health", headers={"host": "LocalHost:80"}).status_code == 200
        long = server.client.post("/v1/completions", json={"model": "x" * 5000, "prompt": "x"})
        assert long.status_code == 404 and len(long.text) < 400


def test_api_key(model, tokenizer):
    with running(model, tokenizer, api_key="sésame") as server:
        for key, status in (("", 401), ("Bearer wrong", 401), ("Bearer s", 401), ("Bearer sésame", 200)):
            answer = server.client.get("/v1/models", headers={"authorization": key.encode()})
            assert answer.status_code == status
        assert answer.json()["data"][0]["id"] == NAME
        for path in ("/metrics", "/v1/models/" + NAME):
            assert server.client.get(path).status_code == 401
            assert server.client.get(path, headers={"authorization": "Bearer sésame".encode()}).status_code == 200
        assert server.client.get("/health", headers={"host": "evil.example"}).status_code == 403
        refused = server.client.post("/v1/completions", json={"prompt": "x"})
        assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key"
        assert server.client.get("/health").status_code == 200 == server.client.get("/").status_code


@pytest.mark.parametrize("sent", ["", "s", "Bearer wrong", "Bearer key-and-more", "Bearer the-ke", "Bearer the-key"])
def test_keys_are_compared_in_constant_time(monkeypatch, sent):
    """Whatever is sent goes through compare_digest, whole: a comparison that ends early tells how much is right."""
    seen = []

    def compare_digest(given, right):
        seen.append((given, right))
        return hmac.compare_digest(given, right)
    monkeypatch.setattr(app, "hmac", SimpleNamespace(compare_digest=compare_digest))
    request = SimpleNamespace(headers={"authorization": sent})
    if sent == "Bearer the-key":
        app.authorize("the-key", request)
    else:
        with pytest.raises(ApiError, match="Incorrect API key"):
            app.authorize("the-key", request)
    assert seen == [(sent.removeprefix("Bearer ").encode(), b"the-key")]


@pytest.mark.parametrize("host, name", [
    ("localhost", "localhost"), ("LocalHost:80", "localhost"), ("127.0.0.1:8000", "127.0.0.1"), ("[::1]:80", "::1"),
    ("[::1]", "::1"), ("localhost:", "localhost"), ("localhost.evil.com", "localhost.evil.com"),
    ("localhostevil", "localhostevil"), ("127.0.0.1.evil.com:80", "127.0.0.1.evil.com"), ("evil.com", "evil.com"),
    ("localhost:80@evil.com", None), ("localhost@evil.com", None), ("localhost:80:90", None), ("localhost:evil", None),
    ("[::1]evil.com", None), ("[::1", None), ("::1", None), ("", None), (" localhost", None), ("localhost/x", None),
    ("localhost\n", None), ("[localhost]", None)])
def test_the_host_is_one_of_ours_whole(host, name):
    """Not one that begins or ends like ours, nor anything that a parser may take for ours."""
    assert app.host_name(host) == name
    refused = app.refusal([(b"host", host.encode())], app.LOOPBACK)
    assert (refused is None) == (name in ("localhost", "127.0.0.1", "::1"))
    assert refused is None or refused.status == 403
    assert app.refusal([(b"host", host.encode())], None) is None


def test_names_that_were_allowed(model, tokenizer):
    """A reverse proxy's, beside the loopback's; with a key or without."""
    for key in (None, "key"):
        with running(model, tokenizer, names=("my.site",), api_key=key) as server:
            for host, status in (("my.site", 200), ("My.Site:443", 200), ("localhost", 200), ("not.my.site", 403)):
                assert server.client.get("/health", headers={"host": host}).status_code == status


def test_health_and_metrics(server):
    server.client.post("/v1/completions", json={"prompt": "x", "max_tokens": 3})
    assert server.client.get("/health").json() == {"status": "ok"}
    lines = server.client.get("/metrics").text.splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert all(re.fullmatch(r'[a-z_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})?', name) for name in samples)
    assert float(samples["minillm_generated_tokens_total"]) >= 3 and samples["minillm_requests_running"] == "0"
    assert float(samples['minillm_http_requests_total{route="/v1/completions",status="200"}']) >= 1
    buckets = [float(v) for name, v in samples.items() if name.startswith("minillm_queue_seconds_bucket")]
    assert buckets == sorted(buckets) and buckets[-1] == float(samples["minillm_queue_seconds_count"])


def test_metrics_are_read_by_prometheus(server):
    """By its own parser; a counter's family is called without its _total."""
    parser = pytest.importorskip("prometheus_client.parser")
    server.client.post("/v1/completions", json={"prompt": "x", "max_tokens": 3})
    families = {f.name: f for f in parser.text_string_to_metric_families(server.client.get("/metrics").text)}
    assert {f.type for f in families.values()} == {"gauge", "counter", "histogram"}
    assert families["minillm_generated_tokens"].samples[0].value >= 3
    buckets = [sample.value for sample in families["minillm_step_seconds"].samples if "le" in sample.labels]
    assert buckets == sorted(buckets) and len(buckets) == 16
