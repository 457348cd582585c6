"""`minillm data`: from raw text to shards."""
import argparse
import json
import re
from argparse import Namespace
from typing import Any

from ..progress import Progress
from . import add_json, command, main_command, print_json, printer

EXAMPLE = "minillm data dedup crawl/ -o kept.jsonl --threshold 0.8"
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def data_clean(args: Namespace) -> None:
    from ..data.cleaning.pipeline import clean
    from ..data.cleaning.report import clean_page
    progress = Progress("cleaning", unit="document")
    report = clean(args.inputs, args.output, clean_options(args), progress)
    progress.close()
    printer(args.json)(clean_page(report, args.output))
    print_json(args, report)


def clean_options(args: Namespace) -> Any:
    from ..data.cleaning.document import CleanOptions
    families = tuple(filter(None, args.rules.split(",")))
    return CleanOptions(families, dict(map(parse_bound, args.bound)), args.c4_lines, args.repair, tuple(args.language),
                        args.language_probability, args.tokenizer, args.max_tokens_per_word,
                        dict(map(parse_bound, args.classifier)), args.toxicity, not args.keep_pii, args.processes,
                        args.field, args.scheduler, args.all_text)


def parse_bound(text: str) -> tuple[str, tuple[float, float]]:
    """"words=20:" -> ("words", (20.0, inf)). Raises ValueError."""
    name, equals, bounds = text.rpartition("=")
    low, colon, high = bounds.partition(":")
    try:
        if not (equals and colon):
            raise ValueError
        return name, (float(low or "-inf"), float(high or "inf"))
    except ValueError:
        raise ValueError(f"expected NAME=LOW:HIGH, either may be left out, such as words=20: (got {text!r})") from None


def data_train_classifier(args: Namespace) -> None:
    from ..data.batches import json_line
    from ..data.cleaning.classifier import Classifier, quality_of
    from ..data.sources.files import read_documents
    groups = [[text for _, text in read_documents(paths)] for paths in (args.positive, args.negative)]
    learned, held_out = ([[text for i, text in enumerate(group) if (i % 5 == 0) == last] for group in groups]
                         for last in (False, True))                     # every fifth text is to test on
    progress = Progress("classifier", unit="text")
    classifier = Classifier.train(learned[0], learned[1], epochs=args.epochs, seed=args.seed, progress=progress)
    progress.close()
    texts, labels = sum(held_out, []), [1] * len(held_out[0]) + [0] * len(held_out[1])
    accuracy, area = quality_of(classifier, texts, labels)
    classifier.save(args.out)
    results: dict = {"learned": list(map(len, learned)), "held_out": list(map(len, held_out)),
                     "accuracy": accuracy, "auc": area}
    print(json_line(results).rstrip() if args.json else
          f"learned from {sum(results['learned']):,} texts; on {len(texts):,} others: accuracy {accuracy:.1%}, area "
          f"under the ROC curve {area:.3f}\nuse it: minillm data clean IN -o OUT.jsonl --classifier {args.out}=0.5:")


def data_tokenize(args: Namespace) -> None:
    from ..data.shards.tokenize import tokenize
    from ..data.sources.report import Report
    from ..tokenizer import Tokenizer
    progress = Progress("tokenizing", unit="B")
    meta = tokenize(list(map(parse_source, args.inputs)), Tokenizer.from_pretrained(args.tokenizer), args.output,
                    args.val_fraction, args.seed, args.llmc, args.threads, args.field, scheduler=args.scheduler,
                    progress=progress, all_text=args.all_text)
    progress.close()
    for name, split in meta["splits"].items():
        printer(args.json)(f"{name:<8}{split['documents']:>12,} documents {split['bytes'] / 1e6:>12,.2f} MB "
                           f"{split['tokens']:>14,} tokens in {len(split['files'])} files")
    read = Report(**meta["source"])
    if read.skipped:
        printer(args.json)(read.skipped_in_words())
    print(json.dumps(meta)) if args.json else print(f"next: minillm train --data {args.output} --out runs/mine")


def parse_source(text: str) -> tuple[list[str], float]:
    """"books/*2" -> (["books/"], 2.0): read twice. Without *, once."""
    path, star, weight = text.rpartition("*")
    try:
        return ([path], float(weight)) if star and path else ([text], 1.0)
    except ValueError:
        return [text], 1.0


def data_card(args: Namespace) -> None:
    from ..data.card import write_card
    licences = dict(pair.partition("=")[::2] for pair in args.license)
    print(write_card(args.output, args.reports, args.title, licences, args.limit))


def data_dedup(args: Namespace) -> None:
    from ..data.dedup.pipeline import dedup
    from ..data.dedup.report import dedup_page
    progress = Progress("dedup", unit="B")
    options = dedup_options(args)
    if args.scheduler:
        from ..data.dedup.on_dask import dedup_on_dask
        report = dedup_on_dask(args.inputs, args.output, options, args.scheduler, progress)
    else:
        report = dedup(args.inputs, args.output, options, progress)
    progress.close()
    printer(args.json)(dedup_page(report, args.output))
    print_json(args, report)


def dedup_options(args: Namespace) -> Any:
    from ..data.dedup import minhash
    from ..data.dedup.table import DedupOptions
    if (args.bands is None) != (args.rows is None):
        raise ValueError("--bands and --rows belong together")
    ngram = (5 if args.unit == "words" else 20) if args.ngram is None else args.ngram
    cut = {"ngram": ngram, "unit": args.unit, "seed": args.seed}
    weight = 0.5 if args.no_verify else minhash.MISS_WEIGHT
    lsh = minhash.Lsh(args.bands, args.rows, **cut) if args.bands is not None else minhash.choose(
        args.threshold, args.permutations, weight, **cut)
    return DedupOptions(None if args.exact_only else lsh, args.threshold, not args.no_verify, args.lines,
                        args.line_characters, memory_size(args.memory), args.threads, args.field, args.line_dedup,
                        args.all_text)


def memory_size(text: str) -> int:
    """"2G" -> 2 * 2**30. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found:
        raise ValueError(f"--memory must be a size such as 512M or 4G: got {text!r}")
    return int(float(found[1]) * UNITS[found[2].upper()])


def add(commands: Any) -> None:
    p = main_command(commands, "data", None, EXAMPLE)
    actions = p.add_subparsers(dest="action", required=True, metavar="ACTION")
    add_clean(actions)
    add_dedup(actions)
    add_train_classifier(actions)
    add_tokenize(actions)
    add_card(actions)


def add_clean(actions: Any) -> None:
    p = command(actions, "clean", data_clean, "drop bad documents and say why, mask personal data",
                "minillm data clean crawl/ -o clean.jsonl --rules gopher,repetition,c4 --language en")
    p.add_argument("inputs", nargs="+", metavar="IN", help="folders, files: .txt .md .html .jsonl .parquet .warc ...")
    p.add_argument("-o", "--output", required=True, metavar="OUT.jsonl", help="kept records; the reports go beside it")
    p.add_argument("--rules", default="gopher,repetition", help="of gopher, repetition, c4")
    p.add_argument("--bound", action="append", default=[], metavar="SCORE=LOW:HIGH",
                   help="other bounds for a score, such as words=20: ; repeatable")
    p.add_argument("--c4-lines", action="store_true", help="keep only lines that end like a sentence, no headings")
    p.add_argument("--repair", action=argparse.BooleanOptionalAction,
                   help="repair wrongly decoded text (default: if ftfy is there)")
    p.add_argument("--language", action="append", default=[], metavar="CODE", help="keep this, such as en; repeatable")
    p.add_argument("--language-probability", type=float, default=0.5, metavar="P", help="at least")
    p.add_argument("--tokenizer", metavar="DIR", help="drop what it cuts into too many tokens a word")
    p.add_argument("--max-tokens-per-word", type=float, default=4.0, metavar="N", help="default: %(default)s")
    p.add_argument("--classifier", action="append", default=[], metavar="DIR=LOW:HIGH",
                   help="of train-classifier, and the scores to keep; repeatable")
    p.add_argument("--toxicity", type=float, metavar="P", help="drop above this probability (English; extra toxicity)")
    p.add_argument("--keep-pii", action="store_true",
                   help="do not mask e-mail, phone, IP, card and account numbers, keys")
    p.add_argument("--processes", type=int, metavar="N", help="default: one a core; the result is the same")
    add_reading(p)
    add_json(p)


def add_train_classifier(actions: Any) -> None:
    p = command(actions, "train-classifier", data_train_classifier, "learn to tell two kinds of text apart",
                "minillm data train-classifier --positive good/ --negative bad/ --out classifiers/quality")
    p.add_argument("--positive", nargs="+", required=True, metavar="PATH", help="texts that are to score near 1")
    p.add_argument("--negative", nargs="+", required=True, metavar="PATH", help="texts that are to score near 0")
    p.add_argument("--out", required=True, metavar="DIR", help="where to save it")
    p.add_argument("--epochs", type=int, default=5, help="default: %(default)s")
    p.add_argument("--seed", type=int, default=0)
    add_json(p)


def add_tokenize(actions: Any) -> None:
    p = command(actions, "tokenize", data_tokenize, "write token shards to train from; goes on where a killed run was",
                "minillm data tokenize web.jsonl 'books.jsonl*2' --tokenizer my_tokenizer -o shards/")
    p.add_argument("inputs", nargs="+", metavar="IN[*WEIGHT]",
                   help="files and folders; 'books*2' is read twice, *0.5 in half")
    p.add_argument("-o", "--output", required=True, metavar="DIR", help="for shards, shards.json, tokenizer.json")
    p.add_argument("--tokenizer", required=True, metavar="DIR",
                   help="with tokenizer.json, or vocab.json and merges.txt")
    p.add_argument("--val-fraction", type=float, default=0.05, metavar="P", help="of documents")
    p.add_argument("--llmc", action="store_true", help="begin each file with the header that llm.c expects")
    add_reading(p)
    p.add_argument("--threads", type=int, metavar="N", help="default: all cores; the result is the same")
    p.add_argument("--seed", type=int, default=0, help="of the split and the weights")
    add_json(p)


def add_card(actions: Any) -> None:
    p = command(actions, "card", data_card, "write a data card from the reports of clean, dedup and tokenize",
                "minillm data card clean.report.json kept.report.json shards/shards.json -o DATA_CARD.md "
                "--license web=CC-BY-4.0")
    p.add_argument("reports", nargs="+", metavar="REPORT.json", help="of clean, dedup, and shards.json, in order")
    p.add_argument("-o", "--output", required=True, metavar="FILE.md")
    p.add_argument("--title", default="Data card", help="default: %(default)s")
    p.add_argument("--license", action="append", default=[], metavar="SOURCE=LICENCE",
                   help="as given by the source; repeatable")
    p.add_argument("--limit", action="append", default=[], metavar="TEXT", help="a known limit of the data; repeatable")


def add_dedup(actions: Any) -> None:
    p = command(actions, "dedup", data_dedup, "drop exact and near-duplicate documents, and say which and why", EXAMPLE)
    p.add_argument("inputs", nargs="+", metavar="IN", help="folders and files: .txt .md .py .jsonl, also .gz")
    p.add_argument("-o", "--output", required=True, metavar="OUT.jsonl", help="kept records; the report goes beside it")
    p.add_argument("--threshold", type=float, default=0.8, help="Jaccard similarity of near-duplicates")
    p.add_argument("--unit", choices=["words", "characters"], default="words",
                   help="what shingles are made of (default: words)")
    p.add_argument("--ngram", type=int, metavar="N", help="units in a shingle (default: 5 words, 20 characters)")
    p.add_argument("--permutations", type=int, default=128, metavar="K",
                   help="values of a signature; bands and rows follow from it and the threshold")
    p.add_argument("--bands", type=int, metavar="B", help="instead of the derived ones, with --rows")
    p.add_argument("--rows", type=int, metavar="R", help="values in a band")
    p.add_argument("--no-verify", action="store_true", help="all that share a band are duplicates: no exact comparison")
    p.add_argument("--exact-only", action="store_true", help="no near-duplicates")
    p.add_argument("--lines", type=int, metavar="N", help="also remove lines that stand in more than N kept documents")
    p.add_argument("--line-dedup", action="store_true",
                   help="also keep of each line in the corpus only the first copy, as CCNet and FineWeb do")
    p.add_argument("--line-characters", type=int, default=30, metavar="N", help="shorter lines stay")
    p.add_argument("--memory", default="1G", help="for sorting, such as 512M or 4G")
    p.add_argument("--threads", type=int, metavar="N", help="default: all cores; the result is the same")
    add_reading(p)
    p.add_argument("--seed", type=int, default=0, help="of the permutations")
    add_json(p)


def add_reading(p: Any) -> None:
    p.add_argument("--field", default="text", help="of a .jsonl record that holds the text")
    p.add_argument("--all-text", action="store_true", help="of web pages, not their main text without menus alone")
    p.add_argument("--scheduler", metavar="ADDRESS",
                   help="run on this Dask cluster, or on workers started here for 'local'; the result is the same")
