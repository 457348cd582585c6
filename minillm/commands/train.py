"""`minillm train`: a model on one's own text."""
from argparse import Namespace
from typing import Any

from ..config import ModelConfig, TrainConfig, check_heeded, load_mix, load_toml, parse_setting
from . import Commands, add_json, add_resume, main_command, print_json, printer
from .lora_options import add_lora, lora_of


def train(args: Namespace) -> None:
    from ..recipes.train_on_files import train_on_files
    common: dict[str, Any] = {"tokenizer": args.tokenizer, "vocab_size": args.vocab_size, "resume": args.resume,
                              "say": printer(args.json)}
    lora = lora_of(args)
    if lora and not args.init:
        raise ValueError("--lora-rank trains adapters of a model that is there: name it with --init")
    mix = args.mix or (load_mix(args.config) if args.config else None)
    if args.hours is not None:
        from ..recipes.in_hours import train_for_hours
        if args.init or mix:
            raise ValueError("--hours chooses a model for one source of text: it goes with neither --init nor --mix")
        results = train_for_hours(args.data, args.out, args.hours, *given(args, {}), **common)
    else:
        results = train_on_files(args.data, args.out, *settings(args), **common, init=args.init, mix=mix,
                                 lora=lora)
    print_json(args, results)


def settings(args: Namespace) -> tuple[ModelConfig, TrainConfig]:
    """The model and train tables: defaults for one's own text, then the TOML file, then --set."""
    from ..models.load import fresh_config
    from ..recipes.initial_model import continued_config
    from ..recipes.train_on_files import SMALL_MODEL
    model, trained = given(args, {} if args.config or args.init else SMALL_MODEL)
    return continued_config(args.init, model) if args.init else fresh_config(model), TrainConfig(**trained)


def given(args: Namespace, defaults: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """({setting of the model: value}, of the training) of the TOML file, then --set; defaults: of the model."""
    model, trained = load_toml(args.config) if args.config else ({}, {})
    for key in model:
        check_heeded("train", "model", key, f"{args.config}: ")
    model = defaults | model
    for setting in args.set:
        table, key, value = parse_setting(setting)
        check_heeded("train", table, key, f"--set {setting}: ")
        (model if table == "model" else trained)[key] = value
    return model, trained


def add(commands: Commands) -> None:
    p = main_command(commands, "train", train,
                     "minillm train --data my_texts/ --out runs/mine --set model.n_layer=6 --set train.steps=5000")
    p.add_argument("config", nargs="?", help="TOML file with tables [model], [train] and "
                   "[data], whose mix = [0.7, 0.3] is --mix")
    p.add_argument("--data", nargs="+", required=True, metavar="PATH",
                   help="folders and files: .txt .md .py .jsonl .deb ..., or token files of nanoGPT and llm.c (.bin)")
    p.add_argument("--mix", nargs="+", metavar="WEIGHT", help="a weight for each path of --data, such as 0.7 0.2 0.1: "
                   "the share of the rows that is drawn from it")
    p.add_argument("--init", metavar="DIR", help="go on from a model, GPT-2 or of the Llama family, with its tokenizer "
                   "(--set model.block_size and a larger --tokenizer make it grow)")
    add_lora(p)
    add_resume(p)
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                   help="such as train.lr=3e-4, model.family=qwen3 or train.optimizer=muon; repeatable. With "
                   "train.ema=0.999 a mean of the weights is validated and saved as the run's model; OUT/last has the "
                   "weights themselves, to go on from")
    p.add_argument("--hours", type=float, help="train for so long: a size, a batch and a rate that suit the time, the "
                   "text and this machine are chosen, but for what --set says; a run that is there gets so much more")
    p.add_argument("--tokenizer", help="directory with tokenizer.json (default: train one on the data)")
    p.add_argument("--vocab-size", type=int, default=8192, help="of the tokenizer to train")
    add_json(p)
