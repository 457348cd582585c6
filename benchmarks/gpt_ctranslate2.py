"""CTranslate2's side of the decoding benchmark: its Generator, on what its converter makes of transformers' model."""
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import ctranslate2
import numpy as np

from . import gpt_transformers


class Converter(ctranslate2.converters.TransformersConverter):
    """A model without a tokenizer: the token of id i is called "i"."""

    def load_tokenizer(self, tokenizer_class, path, **more):
        ids = map(str, range(self.vocab_size))
        return SimpleNamespace(get_vocab=lambda: {text: int(text) for text in ids}, bos_token="0", eos_token="0",
                               unk_token="0")


def model_of(job):
    """A Generator with the job's weights, in the job's dtype."""
    with TemporaryDirectory() as folder:
        theirs, converted = Path(folder, "transformers"), str(Path(folder, "ctranslate2"))
        gpt_transformers.model_of(job | {"dtype": "float32"}).save_pretrained(theirs)
        converter = Converter(str(theirs))
        converter.vocab_size = job["config"]["vocab_size"]
        converter.convert(converted)
        return ctranslate2.Generator(converted, compute_type=job["dtype"], intra_threads=job["threads"])


def logits_of(model, tokens, positions):
    """The first logits of the first sequence, at some positions, by one pass over the whole."""
    return np.array(model.forward_batch(tokens))[0, positions, :64].tolist()


def decode(job):
    """() -> (first logits of each of the job's steps, seconds): it chooses its tokens itself, after the job's context,
    so the logits are those of a pass over the job's tokens, and the time is counted from the first token on."""
    model, tokens, steps = model_of(job), job["tokens"], job["steps"]
    context = len(tokens[0]) - steps
    logits = logits_of(model, tokens, slice(context, None))
    prompts = [list(map(str, row[:context])) for row in tokens]

    def run():
        times = []
        model.generate_batch(prompts, max_length=steps + 1, min_length=steps + 1, include_prompt_in_result=False,
                             callback=lambda step: times.append(time.perf_counter()))
        return logits, times[-1] - times[len(tokens) - 1]

    return run


def prefill(job):
    """() -> first logits after the job's prompt; the time of the first token of an answer."""
    model, tokens = model_of(job), job["tokens"]
    logits, prompts = logits_of(model, tokens, slice(-1, None)), [list(map(str, row)) for row in tokens]

    def run():
        model.generate_batch(prompts, max_length=1, include_prompt_in_result=False)
        return logits

    return run
