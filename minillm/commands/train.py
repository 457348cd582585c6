"""`minillm train`: a model on one's own text."""
from argparse import Namespace

from ..config import ModelConfig, TrainConfig, check_heeded, load_toml, parse_setting
from . import Commands, add_json, add_resume, command, print_json, printer


def train(args: Namespace) -> None:
    from ..recipes.train_on_files import train_on_files
    results = train_on_files(args.data, args.out, *settings(args), tokenizer=args.tokenizer, vocab_size=args.vocab_size,
                             resume=args.resume, say=printer(args.json), init=args.init, mix=args.mix)
    print_json(args, results)


def settings(args: Namespace) -> tuple[ModelConfig, TrainConfig]:
    """The model and train tables: defaults for one's own text, then the TOML file, then --set."""
    from ..models.load import fresh_config
    from ..recipes.initial_model import continued_config
    from ..recipes.train_on_files import SMALL_MODEL
    model, trained = load_toml(args.config) if args.config else ({}, {})
    for key in model:
        check_heeded("train", "model", key, f"{args.config}: ")
    model = SMALL_MODEL | model if not args.config and not args.init else model
    for setting in args.set:
        table, key, value = parse_setting(setting)
        check_heeded("train", table, key, f"--set {setting}: ")
        (model if table == "model" else trained)[key] = value
    return continued_config(args.init, model) if args.init else fresh_config(model), TrainConfig(**trained)


def add(commands: Commands) -> None:
    p = command(commands, "train", train, "train a model on your own text",
                "minillm train --data my_texts/ --out runs/mine --set model.n_layer=6 --set train.steps=5000")
    p.add_argument("config", nargs="?", help="TOML file with tables [model] and [train]")
    p.add_argument("--data", nargs="+", required=True, metavar="PATH",
                   help="folders and files: .txt .md .py .jsonl, or token files of nanoGPT and llm.c (.bin)")
    p.add_argument("--mix", nargs="+", metavar="WEIGHT", help="a weight for each path of --data, such as 0.7 0.2 0.1: "
                   "the share of the rows that is drawn from it")
    p.add_argument("--init", metavar="DIR", help="go on from a model, GPT-2 or of the Llama family, with its tokenizer "
                   "(--set model.block_size and a larger --tokenizer make it grow)")
    add_resume(p)
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                   help="such as train.lr=3e-4, model.family=qwen3 or train.optimizer=muon; repeatable. With "
                   "train.ema=0.999 a mean of the weights is validated and saved as the run's model; OUT/last has the "
                   "weights themselves, to go on from")
    p.add_argument("--tokenizer", help="directory with tokenizer.json (default: train one on the data)")
    p.add_argument("--vocab-size", type=int, default=8192, help="of the tokenizer to train")
    add_json(p)
