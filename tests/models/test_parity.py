"""Our model against PyTorch: transformers' GPT-2 gives the same logits, autograd the same gradients."""
import numpy as np
import pytest

from minillm.config import GPTConfig
from minillm.models.gpt2 import GPT

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CONFIGS = [   # config, (B, T)
    (GPTConfig(n_layer=2, n_head=3, n_embd=24, block_size=17, vocab_size=61, dropout=0.1), (3, 17)),
    (GPTConfig(n_layer=1, n_head=1, n_embd=7, block_size=9, vocab_size=5), (1, 1)),
    (GPTConfig(n_layer=3, n_head=4, n_embd=32, block_size=40, vocab_size=130, layer_norm_epsilon=1e-3), (2, 33)),
]
IDS = ["odd", "one_token", "deep"]


def batch(config, shape, seed=0):
    """Random tokens and targets, a third of the targets ignored (-1) where there is more than one."""
    rng = np.random.default_rng(seed)
    tokens, targets = rng.integers(0, config.vocab_size, (2, *shape))
    if targets.size > 1:
        targets[rng.random(shape) < 1 / 3] = -1
    return tokens, targets


def rough_model(config, dtype):
    """A GPT far from its initialisation: biases and LayerNorms that matter, attention that is not uniform."""
    model = GPT(config, seed=0, dtype=dtype)
    model.params.flat[:] += 0.2 * np.random.default_rng(1).standard_normal(model.params.flat.size)
    return model


def their_logits(theirs, tokens):
    with torch.no_grad():
        return theirs(torch.from_numpy(tokens)).logits.numpy()


@pytest.mark.parametrize("config, shape", CONFIGS, ids=IDS)
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-12)], ids=["float32", "float64"])
def test_transformers_gives_our_logits(tmp_path, config, shape, dtype, tolerance):
    ours, (tokens, _) = rough_model(config, dtype), batch(config, shape)
    ours.save_pretrained(tmp_path)
    theirs, report = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    logits, expected = ours.forward(tokens)[0], their_logits(theirs.eval(), tokens)
    assert logits.dtype == expected.dtype == dtype and np.abs(expected).max() > 0.1
    np.testing.assert_allclose(logits, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("activation", ["gelu_new", "gelu_pytorch_tanh"])
@pytest.mark.parametrize("config, shape", CONFIGS, ids=IDS)
def test_we_give_the_logits_of_transformers(tmp_path, config, shape, activation):
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        n_layer=config.n_layer, n_head=config.n_head, n_embd=config.n_embd, n_positions=config.block_size,
        vocab_size=config.vocab_size, layer_norm_epsilon=config.layer_norm_epsilon, activation_function=activation,
        initializer_range=0.2, bos_token_id=0, eos_token_id=0)).eval()
    theirs.save_pretrained(tmp_path)
    tokens, _ = batch(config, shape)
    logits, expected = GPT.from_pretrained(tmp_path).forward(tokens)[0], their_logits(theirs, tokens)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("config, shape", CONFIGS, ids=IDS)
def test_loss_and_every_gradient_equal_autograd(tmp_path, config, shape):
    ours, (tokens, targets) = rough_model(config, np.float64), batch(config, shape)
    loss, grads = ours.loss_and_grads(tokens, targets, ignore_index=-1)
    ours.save_pretrained(tmp_path)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, dtype=torch.float64).eval()   # eval: no dropout
    logits = theirs(torch.from_numpy(tokens)).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets).flatten(),
                                                 ignore_index=-1)
    expected.backward()
    assert abs(loss - expected.item()) <= 1e-12 * max(1, expected.item())
    parameters = {name.removeprefix("transformer."): p for name, p in theirs.named_parameters()}   # tied: wte once
    assert parameters.keys() == set(grads.keys())
    for name, parameter in parameters.items():
        worst, largest = np.abs(grads[name] - parameter.grad.numpy()).max(), parameter.grad.abs().max().item()
        # Where the exact gradient is zero (attention over one token has no say in its weights), so must ours be.
        assert worst <= max(1e-6 * largest, 1e-15), f"{name}: off by {worst:.1e}, largest gradient {largest:.1e}"
