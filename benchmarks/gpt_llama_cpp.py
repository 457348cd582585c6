"""llama.cpp's side of the decoding benchmark, by llama-cpp-python, on the file that `minillm export --gguf` writes."""
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from llama_cpp import Llama

from minillm.models.gguf import write_gguf
from minillm.tokenizer import Tokenizer

from . import gpt_minillm

FORMS = {"float32": "f32", "bfloat16": "bf16", "int8": "q8_0", "int4": "q4_0"}


def model_of(job):
    """A Llama with the job's weights, in the job's form."""
    length = len(job["tokens"][0])
    with TemporaryDirectory() as folder:
        path = str(Path(folder, "model.gguf"))
        tokenizer = Tokenizer.train(["aaaa"], 257, special_tokens=())             # it refuses one without a merge
        write_gguf(path, gpt_minillm.model_of(job | {"backend": "numpy"}), tokenizer, FORMS[job["dtype"]])
        return Llama(path, n_ctx=length, n_batch=length, n_ubatch=length, n_threads=job["threads"],
                     n_threads_batch=job["threads"], verbose=False)


def logits_of(model):
    """The first logits after the last token that was read."""
    return np.ctypeslib.as_array(model._ctx.get_logits_ith(-1), (64,)).tolist()


def decode(job):
    """() -> first logits of each of the job's steps, one token each, after its context."""
    model, (tokens,), steps = model_of(job), job["tokens"], job["steps"]
    context = len(tokens) - steps
    model.eval(tokens[:context])

    def run():
        model.n_tokens, found = context, []
        for token in tokens[context:]:
            model.eval([token])
            found.append(logits_of(model))
        return found

    return run


def prefill(job):
    """() -> first logits after the job's prompt, read at once into an empty cache."""
    model, (tokens,) = model_of(job), job["tokens"]

    def run():
        model.n_tokens = 0
        model.eval(tokens)
        return [logits_of(model)]

    return run
