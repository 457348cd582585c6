"""The openai client's view of the server: the library's own answers, whole and streamed."""
import numpy as np
import pytest
from serving import NAME, PROMPTS, alone, model, server, tokenizer  # noqa: F401  (fixtures)

from minillm.generation.sampling import Sampling


@pytest.fixture(scope="module")
def client(server):
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def test_openai_lists_the_model(client):
    assert [model.id for model in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).id == NAME


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("options", [{"temperature": 0}, {"seed": 7}, {"seed": -1, "top_p": 0.8, "temperature": 1.7},
                                     {"seed": 3, "extra_body": {"top_k": 9, "min_p": 0.01, "repetition_penalty": 1.3}}])
def test_openai_completions_are_those_of_the_library(client, model, tokenizer, prompt, options):
    """Whole and streamed, and each equal to what `steps` writes without a server."""
    named = {k: v for k, v in options.items() if k != "extra_body"} | options.get("extra_body", {})
    sampling = Sampling(**named | {"seed": named.get("seed", 0) % 2**64})
    expected, reason, count = alone(model, tokenizer, prompt, 24, sampling)
    whole = client.completions.create(model=NAME, prompt=prompt, max_tokens=24, **options)
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == (expected, reason)
    assert whole.usage.completion_tokens == count and whole.usage.prompt_tokens == len(tokenizer.encode(prompt))
    chunks = list(client.completions.create(model=NAME, prompt=prompt, max_tokens=24, stream=True,
                                            stream_options={"include_usage": True}, **options))
    assert "".join(c.choices[0].text for c in chunks[:-1]) == expected
    assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 2) + [reason]
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage and not any(c.usage for c in chunks[:-1])


def test_openai_chat_whole_and_streamed(client, tokenizer):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "the ☃?"}]
    whole = client.chat.completions.create(model=NAME, messages=messages, max_tokens=30, seed=5, logprobs=True,
                                           top_logprobs=3)
    choice = whole.choices[0]
    assert choice.message.role == "assistant" and whole.usage.completion_tokens >= len(choice.logprobs.content) > 0
    data = bytes(byte for entry in choice.logprobs.content for byte in entry.bytes)
    assert data.decode(errors="replace").startswith(choice.message.content)
    for entry in choice.logprobs.content:
        assert len(entry.top_logprobs) == 3 and entry.logprob <= entry.top_logprobs[0].logprob + 1e-6 <= 1e-6
    chunks = list(client.chat.completions.create(model=NAME, messages=messages, max_tokens=30, seed=5, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == choice.message.content
    assert chunks[-1].choices[0].finish_reason == choice.finish_reason and len({c.id for c in chunks}) == 1


def test_openai_n_answers_and_lists_of_prompts(client, model, tokenizer):
    """Choice 0 is the answer of n = 1; the others differ from it; prompts may be ids; echo repeats them."""
    answers = client.completions.create(model=NAME, prompt=PROMPTS[:2], n=3, max_tokens=12, seed=1, echo=True)
    assert [choice.index for choice in answers.choices] == list(range(6))
    for i, prompt in enumerate(PROMPTS[:2]):
        texts = [choice.text for choice in answers.choices[3 * i:3 * i + 3]]
        assert texts[0] == prompt + alone(model, tokenizer, prompt, 12, Sampling(seed=1))[0] and len(set(texts)) == 3
        ids = client.completions.create(model=NAME, prompt=tokenizer.encode(prompt), max_tokens=12, seed=1)
        assert prompt + ids.choices[0].text == texts[0]


def test_openai_stop_strings_are_cut_out(client, model, tokenizer):
    """A stop string taken from the middle of the answer ends it there; its tokens and log-probabilities go with it."""
    text = alone(model, tokenizer, "the quick", 40, Sampling(seed=4))[0]
    stop = text[10:13]
    expected = alone(model, tokenizer, "the quick", 40, Sampling(seed=4), (stop,))
    for stream in (False, True):
        answer = client.completions.create(model=NAME, prompt="the quick", max_tokens=40, seed=4, logprobs=1,
                                           stop=[stop, "\0never"], stream=stream)
        choices = [chunk.choices[0] for chunk in answer] if stream else [answer.choices[0]]
        assert ("".join(c.text for c in choices), choices[-1].finish_reason) == expected[:2]
        assert stop not in expected[0] and expected[1] == "stop"
        tokens = [token for c in choices for token in c.logprobs.tokens]
        offsets = [offset for c in choices for offset in c.logprobs.text_offset]
        assert len(tokens) < expected[2] and offsets == sorted(offsets) and offsets[-1] < len(expected[0])


def test_openai_echo_scores_the_prompt(client, model, tokenizer):
    """What evaluation harnesses ask for: the prompt's own log-probabilities, those of a plain forward pass."""
    ids = tokenizer.encode("Naïve ☃ brown fox")
    logits = model.forward(np.array([ids]))[0][0].astype(np.float64)
    right = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for stream in (False, True):
        answer = client.completions.create(model=NAME, prompt=ids, max_tokens=2, logprobs=2, echo=True, temperature=0,
                                           stream=stream)
        choices = [chunk.choices[0] for chunk in answer] if stream else [answer.choices[0]]
        text = "".join(c.text for c in choices)
        found = [(t, p, top, at) for c in choices for t, p, top, at in zip(
            c.logprobs.tokens, c.logprobs.token_logprobs, c.logprobs.top_logprobs, c.logprobs.text_offset)]
        assert text.startswith("Naïve ☃ brown fox") and len(found) == len(ids) + 2
        assert found[0][1:] == (None, None, 0)
        scores = [p for _, p, _, _ in found[1:len(ids)]]
        np.testing.assert_allclose(scores, right[np.arange(len(ids) - 1), ids[1:]], rtol=1e-4)
        for (_, _, top, _), row in zip(found[1:len(ids)], right):
            assert abs(max(top.values()) - row.max()) < 1e-3 and len(top) == 2
        for token, _, _, at in found:
            assert token.startswith("bytes:") or text[at:at + len(token)] == token
    assert client.completions.create(model=NAME, prompt=ids, max_tokens=1, echo=True).choices[0].logprobs is None


def test_openai_errors_have_their_classes(client):
    import openai
    with pytest.raises(openai.NotFoundError) as error:
        client.completions.create(model="gpt-4", prompt="x")
    assert error.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": "x" * 9999}])
    assert (error.value.code, error.value.param) == ("context_length_exceeded", "messages")
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model=NAME, prompt="x", temperature=-1)
    assert error.value.param == "temperature"
