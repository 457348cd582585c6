"""GPT-2s of every kind that transformers knows: its logits, autograd's gradients, its greedy answers, both ways."""
import numpy as np
import pytest

from minillm import GPT, generate, load_model
from minillm.models.quantized import dequantized_model, quantize

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

KINDS = {
    "gelu": {"activation_function": "gelu"}, "gelu_fast": {"activation_function": "gelu_fast"},
    "relu": {"activation_function": "relu"},
    "narrow": {"n_inner": 20}, "unscaled": {"scale_attn_weights": False},
    "by layer": {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True},
    "untied": {"tie_word_embeddings": False},
    "all": {"activation_function": "gelu_python", "n_inner": 40, "scale_attn_weights": False,
            "tie_word_embeddings": False, "scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True}}
TOKENS = np.random.default_rng(0).integers(0, 61, (3, 12))


@pytest.fixture(scope="module", params=KINDS)
def theirs(request, tmp_path_factory):
    """A random model of transformers in float64, and the directory where it is saved."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_layer=3, n_head=2, n_embd=16, n_positions=24, vocab_size=61, bos_token_id=0,
                                     eos_token_id=0, initializer_range=0.3, **KINDS[request.param])
    model = transformers.GPT2LMHeadModel(config).double().eval()
    directory = tmp_path_factory.mktemp("theirs")
    model.save_pretrained(directory)
    return model, directory


def logits_of(model):
    with torch.no_grad():
        return model(torch.from_numpy(TOKENS)).logits.numpy()


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 2e-5), (np.float64, 1e-10)], ids=["float32", "float64"])
def test_logits(theirs, dtype, tolerance):
    model, directory = theirs
    ours, want = load_model(directory, dtype=dtype).forward(TOKENS)[0], logits_of(model)
    assert ours.dtype == dtype and np.abs(want).max() > 1
    np.testing.assert_allclose(ours, want, rtol=0, atol=tolerance * max(1, np.abs(want).max() / 10))


def test_the_loss_and_every_gradient(theirs):
    model, directory = theirs
    ours = load_model(directory, dtype=np.float64)
    loss, grads = ours.loss_and_grads(TOKENS[:, :-1], TOKENS[:, 1:])
    model.zero_grad()
    logits = model(torch.from_numpy(TOKENS[:, :-1])).logits
    want = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(TOKENS[:, 1:]).flatten())
    want.backward()
    assert abs(loss - want.item()) < 1e-10 * want.item()
    parameters = {name.removeprefix("transformer."): p.grad.numpy() for name, p in model.named_parameters()}
    assert parameters.keys() == set(grads)
    for name, gradient in parameters.items():
        assert np.abs(grads[name] - gradient).max() <= 1e-6 * np.abs(gradient).max(), name


def test_saved_again_transformers_reads_it_equal(theirs, tmp_path):
    model, directory = theirs
    load_model(directory, dtype=np.float64).save_pretrained(tmp_path)
    again, report = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, dtype=torch.float64,
                                                                 output_loading_info=True)
    assert not any(report.values())
    np.testing.assert_allclose(logits_of(again), logits_of(model), rtol=0, atol=1e-10)   # gelu_fast rounds 2 / pi


def test_greedy_answers(theirs):
    model, directory = theirs
    prompt = TOKENS[:1, :5]
    want = model.float().generate(torch.from_numpy(prompt), max_new_tokens=15, do_sample=False, eos_token_id=60,
                                  pad_token_id=60)[0].numpy()[5:]
    model.double()
    ours = load_model(directory)
    assert [*generate(ours, prompt[0], len(want), temperature=0.0)][-len(want):] == [*want]


def test_int8_and_bfloat16_stand_for_weights_that_give_their_logits(theirs):
    ours = load_model(theirs[1])
    for weights in ("int8", "bfloat16"):
        stored = quantize(ours, weights, arithmetic="float")
        assert np.array_equal(stored.forward(TOKENS)[0], dequantized_model(stored).forward(TOKENS)[0])
    assert isinstance(ours, GPT)
