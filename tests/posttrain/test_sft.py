"""Supervised fine-tuning: packed rows of conversations, accumulation by learned tokens, resume."""
import numpy as np
import pytest
from chats import CHAT, chat_data, small_model, talk
from tolerances import assert_close, assert_same_bits

from minillm import TrainConfig
from minillm.posttrain.sft import ChatData, packed, rows
from minillm.tokenizer import chat_template as chat
from minillm.train.log import read_log
from minillm.train.loop import train


def test_an_epoch_holds_every_example_once():
    data = chat_data()
    for epoch in range(3):
        cut = data.rows_of_epoch(epoch)
        assert sorted(i for row in cut for i in row) == list(range(27))
        assert all(sum(len(data.examples[i].ids) - 1 for i in row) <= 64 for row in cut)
    assert data.rows_of_epoch(0) != data.rows_of_epoch(1)
    steps = len(data.rows_of_epoch(0))
    first = [data.batch(step)[0].tolist() for step in range(steps + 1)]
    assert first[steps] == packed([data.examples[i] for i in data.rows_of_epoch(1)[0]])[0].tolist()
    assert [chat_data().batch(step)[0].tolist() for step in (steps, 0)] == [first[steps], first[0]]     # in any order


def test_rows_are_filled_but_not_over():
    assert rows([0, 1, 2, 3], [3, 4, 9, 1], 7) == [[0, 1], [2], [3]]


def test_accumulation_weighs_by_learned_tokens(tmp_path):
    """Two micro-batches of very different size give the gradient of the one large batch."""
    data, model = chat_data(row_tokens=40), small_model()
    batches = [data.batch(0), data.batch(1)]
    count = sum(int((targets != -1).sum()) for _, targets, _ in batches)
    apart = model.params.zeros_like()
    for tokens, targets, lengths in batches:
        model.loss_and_grads(tokens, targets, grads=apart, count=count, lengths=lengths)
    tokens, targets, lengths = (np.concatenate(part, -1) for part in zip(*batches))
    _, together = model.loss_and_grads(tokens, targets, lengths=lengths.tolist())
    for name in together:
        assert_close(name, apart[name], together[name], "same model")


def test_examples_without_room_are_dropped_and_counted():
    long = chat.encode_messages(CHAT, talk("what " * 40, "no"))
    fine = chat.encode_messages(CHAT, talk())
    data = ChatData([long, fine, fine], CHAT, 32, 64)
    assert (data.dropped, data.cut) == (1, 0) and len(data.examples) + len(data.held_out) == 2
    with pytest.raises(ValueError, match="at least 2 records"):
        ChatData([long, fine], CHAT, 32, 64)


def test_long_answers_are_counted_and_cut_or_dropped():
    long = chat.encode_messages(CHAT, talk(answer="a bird that says cluck " * 8))
    fine = chat.encode_messages(CHAT, talk())
    end = CHAT.special_tokens[chat.END]
    cut = ChatData([long] * 3 + [fine] * 2, CHAT, 32, 64)
    assert (cut.cut, cut.dropped) == (3, 0) and sorted(len(e.ids) for e in cut.examples + cut.held_out)[-3:] == [33] * 3
    assert sum(e.ids[-1] != end for e in cut.examples + cut.held_out) == 3                  # whose ends are not learned
    dropped = ChatData([long] * 3 + [fine] * 2, CHAT, 32, 64, too_long="drop")
    assert (dropped.cut, dropped.dropped) == (0, 3) and dropped.examples == dropped.held_out == [fine]
    with pytest.raises(ValueError, match="too_long must be one of cut, drop: got 'keep'"):
        ChatData([fine] * 2, CHAT, 32, 64, too_long="keep")


def test_an_answer_cut_short_learns_no_end_and_the_one_before_it_does():
    """The rule, at every place where the context may end: an end token is learned where all of an answer is, and
    nowhere else."""
    end, talks = CHAT.special_tokens[chat.END], [*talk(answer="cluck cluck"), *talk("says?", "a hen")]
    whole = chat.encode_messages(CHAT, talks)
    ends = [i for i, (id, wanted) in enumerate(zip(whole.ids, whole.learned)) if wanted and id == end]
    begins = [i for i in range(len(whole.ids)) if whole.learned[i] and not whole.learned[i - 1]]
    for size in range(1, len(whole.ids) + 1):
        data = ChatData([whole] * 2, CHAT, size, 99) if size > begins[0] - 1 else None
        if size <= begins[0] - 1:
            with pytest.raises(ValueError, match="at least 2 records"):
                ChatData([whole] * 2, CHAT, size, 99)
            continue
        (example,) = data.examples
        tokens, targets = example.arrays()
        assert (targets == end).sum() == sum(place <= size for place in ends)
        assert len(tokens) == min(size, len(whole.ids) - 1)
        state = ["whole" if last <= size else "cut" if first <= size else "lost" for first, last in zip(begins, ends)]
        assert (data.answers_cut, data.answers_lost) == (2 * state.count("cut"), 2 * state.count("lost"))


def test_fine_tuning_repeats_and_resumes_bit_by_bit(tmp_path):
    config = TrainConfig(steps=6, lr=1e-2, warmup=1, eval_every=3, save_every=2, log_every=1)
    models = [small_model(dtype=np.float32) for _ in range(2)]
    train(models[0], chat_data(), config, tmp_path / "whole")
    train(models[1], chat_data(), config, tmp_path / "parts", deadline=0.0)              # one step, then the rest
    train(models[1], chat_data(), config, tmp_path / "parts")
    assert_same_bits(*(model.params.flat for model in models))
    assert read_log(tmp_path / "whole")[-1]["val_loss"] < read_log(tmp_path / "whole")[2]["val_loss"]
