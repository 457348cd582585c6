"""`minillm serve`: an OpenAI-compatible server with a chat page."""
import os
import signal
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from . import Commands, add_backend, check_at_least, main_command
from .generation_options import add_adapter, add_drafts, add_filter, add_kv_cache, generator_of, text_maker

if TYPE_CHECKING:
    from ..serve.engine import Engine

EXAMPLE = "minillm serve runs/mine --port 8000"
KEY = "MINILLM_API_KEY"


def serve(args: Namespace) -> None:
    from ..serve import app, listen
    app.need_starlette(), listen.need_uvicorn()         # before a large model is read
    engine = load_engine(args)
    name = args.name or "+".join(Path(part).resolve().name for part in (args.model, args.adapter) if part)
    key = args.api_key or os.environ.get(KEY) or None
    if args.host not in app.LOOPBACK and key is None:
        print(f"minillm serve: anyone who reaches {args.host} may use this server: consider --api-key", file=sys.stderr)
    before = signal.signal(signal.SIGTERM, lambda *_: None)        # the server raises it again once it has stopped
    try:
        listen.serve(engine, name, args.host, args.port, key, args.grace,
                     ready=lambda url: print(f"{name} is served at {url} (API at {url}/v1); Ctrl-C stops", flush=True),
                     names=tuple(name.lower() for name in args.allow_host))
    finally:
        signal.signal(signal.SIGTERM, before)


def load_engine(args: Namespace) -> "Engine":
    """The engine with its model and tokenizer, not started."""
    from ..serve.engine import Engine
    from ..tokenizer.chat_template import check_template
    check_at_least(args, rows=1, queue=0, grace=0, draft_tokens=1)
    if args.api_key == "":
        raise ValueError("--api-key must not be empty: leave it out for a server without a key")
    if not 0 <= args.port < 65536:
        raise ValueError(f"--port must be from 0 to 65535: got {args.port}")
    generator = generator_of(args)
    check_template(generator.tokenizer)
    return Engine(generator.model, generator.tokenizer, args.rows, args.queue, draft=generator.draft,
                  k=args.draft_tokens, new_text=text_maker(args))


def add(commands: Commands) -> None:
    p = main_command(commands, "serve", serve, EXAMPLE)
    p.add_argument("model", help="run directory, or one as transformers writes it, whose chat template is used")
    add_adapter(p)
    p.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    p.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: %(default)s)")
    p.add_argument("--name", help="the model's name in the API (default: the directory's, and +ADAPTER's)")
    p.add_argument("--rows", type=int, default=8, help="slots: sequences decoded concurrently (default: %(default)s)")
    p.add_argument("--queue", type=int, default=64, help="requests that may wait; beyond it 429 (default: %(default)s)")
    p.add_argument("--api-key", help=f"demand this key (better: the variable {KEY}, which ps does not show)")
    p.add_argument("--allow-host", metavar="NAME", action="append", default=[],
                   help="answer to this name in the Host header, too (for a reverse proxy; repeat for more)")
    p.add_argument("--grace", type=float, default=10.0,
                   help="seconds that running answers get to finish at SIGTERM (default: %(default)s)")
    add_drafts(p, " for a request that comes alone")
    add_kv_cache(p)
    add_filter(p)
    add_backend(p)
