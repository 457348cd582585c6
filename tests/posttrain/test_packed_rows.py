"""Everybody who packs documents into a row gets what the documents give one by one, for one document as for nine."""
import numpy as np
import pytest
from chats import CHAT, small_model, talk
from tolerances import assert_close

from minillm.data.sources.conversations import Preference
from minillm.evaluate import perplexity
from minillm.posttrain.dpo import logps
from minillm.posttrain.grpo import packed_answers
from minillm.posttrain.sft import packed
from minillm.tokenizer import chat_template as chat

documents = pytest.mark.parametrize("count", range(1, 10))


def examples(count):
    """Conversations of different lengths."""
    return [chat.encode_messages(CHAT, talk(f"{'why ' * (i % 3)}{i}?", "cluck" * (i % 4 + 1))) for i in range(count)]


def losses_of(model, batch):
    return model.losses(batch.tokens, batch.targets, lengths=batch.lengths)[0]


@documents
def test_conversations(count):
    model, batch = small_model(), packed(examples(count))
    alone = [model.losses(tokens[None], targets[None])[0] for tokens, targets in (e.arrays() for e in examples(count))]
    assert batch.lengths == [len(part) for part in alone]
    assert_close("losses", losses_of(model, batch), np.concatenate(alone), "same model")


@documents
def test_preferences(count):
    model, pairs = small_model(), [Preference(*examples(i + 2)[-2:]) for i in range(count)]
    alone = [logps(model, [pair])[0] for pair in pairs]
    assert_close("logps", logps(model, pairs)[0], np.concatenate(alone), "same model")
    by_hand = [-losses_of(model, packed([example])).sum() for pair in pairs for example in pair]
    assert_close("by hand", np.concatenate(alone), by_hand, "same model")


@documents
def test_answers(count):
    rng, model = np.random.default_rng(count), small_model()
    prompts, answers = ([rng.integers(0, CHAT.vocab_size, rng.integers(1, 9)).tolist() for _ in range(count)]
                        for _ in range(2))
    losses, alone = losses_of(model, packed_answers(prompts, answers)), []
    for prompt, answer in zip(prompts, answers):
        ids = np.array([prompt + answer])
        part = model.losses(ids[:, :-1], ids[:, 1:])[0]
        alone += [*np.zeros(len(prompt) - 1), *part[len(prompt) - 1:]]
    assert_close("losses", losses, alone, "same model")


@pytest.mark.parametrize("length", [33, 40, 65, 100, 200, 300])
def test_windows_of_a_long_text(monkeypatch, length):
    model, ids = small_model(), np.random.default_rng(0).integers(0, CHAT.vocab_size, length).tolist()
    together = next(perplexity.losses_of(model, [ids]))
    monkeypatch.setattr(perplexity, "BATCH_TOKENS", 1)
    assert_close("losses", together, next(perplexity.losses_of(model, [ids])), "same model")
