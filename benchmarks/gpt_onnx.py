"""ONNX Runtime's side of the decoding benchmark: GPT-2 as a graph of ONNX's ops, with a KV cache that is passed in and
out, as exporters write it; at int8 by its own dynamic quantization."""
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

OPSET = 20                      # the first with Gelu


class Graph:
    """Nodes and constants as they come; a call adds a node and returns the name of its output."""

    def __init__(self, weights):
        self.nodes, self.count = [], 0
        self.constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]

    def __call__(self, op, *inputs, outputs=None, **attributes):
        self.count += 1
        outputs = outputs or [f"{op}_{self.count}"]
        self.nodes.append(helper.make_node(op, list(inputs), outputs, **attributes))
        return outputs[0]

    def constant(self, value):
        self.count += 1
        self.constants.append(numpy_helper.from_array(np.array(value), f"constant_{self.count}"))
        return f"constant_{self.count}"


def gpt(config, weights):
    """The model: tokens (B, T), positions (T), mask (T, S + T) and a past of S tokens -> logits of the last token and
    the longer past."""
    add, NH, C, V = Graph(weights), config["n_head"], config["n_embd"], config["vocab_size"]
    split, back = add.constant([0, 0, NH, C // NH]), add.constant([0, 0, C])
    scale = add.constant(np.float32((C // NH) ** -0.5))

    def linear(x, name):
        return add("Add", add("MatMul", x, f"{name}.weight"), f"{name}.bias")

    def norm(x, name):
        return add("LayerNormalization", x, f"{name}.weight", f"{name}.bias", epsilon=config["layer_norm_epsilon"])

    x = add("Add", add("Gather", "wte.weight", "tokens"), add("Gather", "wpe.weight", "positions"))
    for i in range(config["n_layer"]):
        parts = [f"q{i}", f"k{i}", f"v{i}"]
        add("Split", linear(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn"), outputs=parts, axis=-1, num_outputs=3)
        q, k, v = (add("Transpose", add("Reshape", one, split), perm=[0, 2, 1, 3]) for one in parts)
        k = add("Concat", f"past_k{i}", k, axis=2, outputs=[f"now_k{i}"])
        v = add("Concat", f"past_v{i}", v, axis=2, outputs=[f"now_v{i}"])
        scores = add("MatMul", add("Mul", q, scale), add("Transpose", k, perm=[0, 1, 3, 2]))
        a = add("MatMul", add("Softmax", add("Add", scores, "mask"), axis=-1), v)
        a = add("Reshape", add("Transpose", a, perm=[0, 2, 1, 3]), back)
        x = add("Add", x, linear(a, f"h.{i}.attn.c_proj"))
        m = add("Gelu", linear(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc"), approximate="tanh")
        x = add("Add", x, linear(m, f"h.{i}.mlp.c_proj"))
    last = norm(add("Gather", x, add.constant([-1]), axis=1), "ln_f")
    add("MatMul", last, add("Transpose", "wte.weight", perm=[1, 0]), outputs=["logits"])
    pasts = [f"{kind}{i}" for i in range(config["n_layer"]) for kind in "kv"]
    past, now = [NH, "S", C // NH], [NH, "all", C // NH]

    def floats(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    inputs = [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["B", "T"]),
              helper.make_tensor_value_info("positions", TensorProto.INT64, ["T"]), floats("mask", ["T", "all"]),
              *(floats(f"past_{name}", ["B", *past]) for name in pasts)]
    outputs = [floats("logits", ["B", 1, V]), *(floats(f"now_{name}", ["B", *now]) for name in pasts)]
    graph = helper.make_graph(add.nodes, "gpt", inputs, outputs, add.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)


def session_of(job):
    """A session with the job's weights, in the job's dtype."""
    flat, weights, start = np.fromfile(job["weights"], np.float32), {}, 0
    for name, shape in job["shapes"]:
        size = int(np.prod(shape))
        weights[name] = flat[start:start + size].reshape(shape)
        start += size
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = job["threads"], 1
    with TemporaryDirectory() as folder:
        path, small = str(Path(folder, "model.onnx")), str(Path(folder, "int8.onnx"))
        onnx.save(gpt(job["config"], weights), path)
        if job["dtype"] == "int8":
            quantize_dynamic(path, small, weight_type=QuantType.QInt8)
            path = small
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def pass_over(session, tokens, past):
    """(logits of the last token (B, 1, V), the past with these tokens)."""
    S, T = past[0].shape[2], tokens.shape[1]
    mask = np.where(np.arange(S + T) <= np.arange(S, S + T)[:, None], 0, -np.inf).astype(np.float32)
    names = [one.name for one in session.get_inputs()]
    feeds = dict(zip(names, [tokens, np.arange(S, S + T), mask, *past]))
    logits, *past = session.run(None, feeds)
    return logits, past


def empty(job):
    c = job["config"]
    return [np.zeros((len(job["tokens"]), c["n_head"], 0, c["n_embd"] // c["n_head"]), np.float32)] * 2 * c["n_layer"]


def decode(job):
    """() -> first logits of each of the job's steps, one token a sequence each, after its context."""
    session, tokens, steps = session_of(job), np.array(job["tokens"]), job["steps"]
    context = tokens.shape[1] - steps
    _, past = pass_over(session, tokens[:, :context], empty(job))

    def run():
        found, grown = [], past
        for t in range(context, context + steps):
            logits, grown = pass_over(session, tokens[:, t:t + 1], grown)
            found.append(logits[0, 0, :64].tolist())
        return found

    return run


def prefill(job):
    """() -> first logits after the job's prompt, read at once into an empty past."""
    session, tokens = session_of(job), np.array(job["tokens"])
    return lambda: [pass_over(session, tokens, empty(job))[0][0, 0, :64].tolist()]
