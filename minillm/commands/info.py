"""`minillm info`: versions, the CPU, what is built, what is not and why; or what a model's directory holds."""
import json
import math
from argparse import Namespace

from . import Commands, add_json, main_command


def info(args: Namespace) -> None:
    from ..kernels.info import info_page, installation
    if args.model:
        found = of_model(args.model)
        print(json.dumps(found) if args.json else
              "{model}: {family}, {parameters:,} parameters, context length {block_size:,}, {vocab_size:,} tokens; "
              "{weights}".format(**found))
        return
    print(json.dumps(installation(), indent=1) if args.json else info_page(installation()))


def of_model(directory: str) -> dict:
    """A few facts by its config.json, or the head of its GGUF file."""
    from ..models.load import described, is_gguf
    from ..models.quantized import arithmetic_of
    family, c, shapes = described(directory)
    weights = "weights as llama.cpp stores them" if is_gguf(directory) else arithmetic_of(directory) or "float weights"
    return {"model": directory, "family": family, "parameters": sum(map(math.prod, shapes.values())),
            "block_size": c.block_size, "vocab_size": c.vocab_size, "weights": weights}


def add(commands: Commands) -> None:
    p = main_command(commands, "info", info, "minillm info")
    p.add_argument("model", nargs="?", help="a model's directory: its shape, and what multiplies its weights")
    add_json(p)
