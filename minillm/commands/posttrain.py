"""`minillm sft`, `minillm dpo`, `minillm grpo`: supervised fine-tuning, preference optimization, rewards."""
from argparse import ArgumentParser, Namespace

from ..config import TrainConfig, check_heeded, parse_setting
from . import Commands, add_json, add_resume, main_command, print_json, printer
from .generation_options import add_adapter
from .lora_options import add_lora, lora_of

DEFAULTS = {"sft": {"steps": 300, "lr": 1e-4, "min_lr": 1e-5, "warmup": 10, "eval_every": 50, "weight_decay": 0.01},
            "dpo": {"steps": 200, "lr": 2e-5, "min_lr": 2e-6, "warmup": 10, "eval_every": 25, "weight_decay": 0.0},
            "grpo": {"steps": 200, "lr": 2e-4, "min_lr": 2e-5, "warmup": 5, "eval_every": 25, "weight_decay": 0.0}}
GRPO_EXAMPLE = """\
minillm train --data README.md --out runs/blank --vocab-size 257 --set n_layer=2 --set n_head=2 \\
  --set n_embd=64 --set block_size=16 --set train.steps=1        # a small model that knows nothing
minillm sft runs/blank --data addition-careless --out runs/sums --set train.steps=400 --set train.lr=2e-3 \\
  --set train.batch_size=32                                      # its teacher gets half of the sums wrong
minillm grpo runs/sums --task addition --out runs/rewarded -n 4 --set train.lr=5e-4
(a minute or two. A model must be right now and then before rewards can teach it anything: one that always fails, or
never, has groups of answers that are all alike.)"""


def sft(args: Namespace) -> None:
    from ..posttrain import finetune
    print_json(args, finetune.sft(args.base, args.data, args.out, config_of(args), lora_of(args), args.resume,
                                  printer(args.json), args.too_long))


def dpo(args: Namespace) -> None:
    from ..posttrain import finetune
    print_json(args, finetune.prefer(args.base, args.data, args.out, config_of(args), args.pairs, args.beta,
                                     args.label_smoothing, args.reference_free, args.nll_weight, lora_of(args),
                                     args.resume, printer(args.json)))


def grpo(args: Namespace) -> None:
    from ..posttrain import finetune
    print_json(args, finetune.reward(args.base, args.task, args.out, config_of(args), args.prompts, args.group,
                                     args.max_new_tokens, args.clip, args.beta, args.resume, printer(args.json),
                                     lora_of(args), args.adapter))


def config_of(args: Namespace) -> TrainConfig:
    """This command's defaults, then --set."""
    settings: dict = dict(DEFAULTS[args.command])
    for setting in args.set:
        table, key, value = parse_setting(setting)
        if table != "train":
            raise ValueError(f"--set {setting}: the model's shape is that of the base; only train.* can be set")
        check_heeded(args.command, table, key, f"--set {setting}: ")
        settings[key] = value
    return TrainConfig(**settings)


def add(commands: Commands) -> None:
    add_sft(commands)
    add_dpo(commands)
    add_grpo(commands)


def add_sft(commands: Commands) -> None:
    p = main_command(commands, "sft", sft, "minillm sft runs/mine --data chats.jsonl --out runs/chat")
    add_shared(p)
    add_lora(p)
    add_init_adapter(p)
    p.add_argument("--data", required=True, metavar="FILE",
                   help=".jsonl, .json or .parquet with records of any of these forms: messages (also with tools), "
                   "ShareGPT's conversations, Alpaca's instruction and output, prompt and completion, pairs (the "
                   "chosen answers); or a task of grpo, such as addition, whose answers are right, or "
                   "addition-careless, of whose half are random")
    p.add_argument("--too-long", choices=["cut", "drop"], default="cut", help="conversations beyond the context "
                   "length: cut them (an answer cut short learns no end token), or leave them out")


def add_dpo(commands: Commands) -> None:
    p = main_command(commands, "dpo", dpo, "minillm dpo runs/chat --data pairs.jsonl --out runs/aligned")
    add_shared(p)
    add_lora(p)
    add_init_adapter(p)
    p.add_argument("--data", required=True, metavar="FILE", help=".jsonl, .json or .parquet with pairs: prompt, "
                   "chosen and rejected (text or messages), or the transcripts of Anthropic's HH")
    p.add_argument("--pairs", type=int, default=8, help="pairs in a micro-batch, of which train.accumulate make a step")
    p.add_argument("--beta", type=float, default=0.1, help="KL penalty against the reference")
    p.add_argument("--label-smoothing", type=float, default=0.0, help="share of labels that may be wrong, below 0.5")
    p.add_argument("--reference-free", action="store_true", help="no reference model (default: the base)")
    p.add_argument("--nll-weight", type=float, default=0.0, help="of the chosen answer's own loss, so that it "
                   "does not become less likely along with the other")


def add_grpo(commands: Commands) -> None:
    p = main_command(commands, "grpo", grpo, GRPO_EXAMPLE)
    add_shared(p)
    add_adapter(p)
    add_lora(p)
    add_init_adapter(p)
    p.add_argument("--task", default="addition", help="addition, or addition-2-digits")
    p.add_argument("--prompts", type=int, default=16, help="problems in a step")
    p.add_argument("--group", type=int, default=8, help="answers sampled for each problem")
    p.add_argument("-n", "--max-new-tokens", type=int, default=8, help="of an answer")
    p.add_argument("--clip", type=float, default=0.2, help="of probability ratios to 1 +- CLIP")
    p.add_argument("--beta", type=float, default=0.04, help="KL penalty against the base")


def add_shared(p: ArgumentParser) -> None:
    p.add_argument("base", help="run directory of the model to start from")
    add_resume(p)
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="such as train.lr=3e-5; repeatable")
    add_json(p)


def add_init_adapter(p: ArgumentParser) -> None:
    p.add_argument("--init-adapter", metavar="DIR", help="go on with this LoRA adapter of the base, as PEFT or "
                   "--lora-rank wrote it")
