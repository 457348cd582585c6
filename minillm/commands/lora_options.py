"""Options that `train`, `sft`, `dpo` and `grpo` share: low-rank adapters."""
from argparse import ArgumentParser, Namespace


def lora_of(args: Namespace) -> dict | None:
    """Settings of models.adapted.LoraModel, or the adapter to begin from; None without --lora-rank."""
    if getattr(args, "init_adapter", None):
        if args.lora_rank is not None or args.lora_alpha is not None or args.lora_dropout or args.lora_targets:
            raise ValueError("--init-adapter has its rank, alpha, dropout and targets: leave out the --lora options")
        return {"adapter": args.init_adapter}
    if args.lora_rank is None:
        if args.lora_alpha is not None or args.lora_dropout or args.lora_targets is not None:
            raise ValueError("--lora-alpha, --lora-dropout and --lora-targets need --lora-rank: without it all weights "
                             "learn")
        return None
    alpha = 2.0 * args.lora_rank if args.lora_alpha is None else args.lora_alpha
    return {"rank": args.lora_rank, "alpha": alpha, "dropout": args.lora_dropout,
            "targets": args.lora_targets and args.lora_targets.split(",")}


def add_lora(p: ArgumentParser) -> None:
    p.add_argument("--lora-rank", type=int, metavar="R", help="train low-rank adapters only (default: all weights)")
    p.add_argument("--lora-alpha", type=float, help="adapters are scaled by alpha / rank (default: twice the rank)")
    p.add_argument("--lora-dropout", type=float, default=0.0, help="of the adapters' inputs")
    p.add_argument("--lora-targets", metavar="NAMES", help="ends of the adapted layers' names, by commas, such as "
                   "attn.c_attn or q_proj,v_proj (default: every linear layer of a block)")
