"""`minillm book`: the book, as a PDF and as HTML."""
from argparse import Namespace

from . import Commands, main_command, printer


def book(args: Namespace) -> None:
    from ..progress import Progress
    from ..study.book.build import build
    progress = Progress("book", "chapter")
    build(args.out or (None if args.html else "minillm.pdf"), args.html, args.live, printer(False), progress)
    progress.close()


def add(commands: Commands) -> None:
    p = main_command(commands, "book", book, "minillm book --html book")
    p.add_argument("-o", "--out", metavar="FILE.pdf", help="the PDF (default: minillm.pdf, unless --html is given)")
    p.add_argument("--html", metavar="DIR", help="write HTML there, a page for each chapter")
    p.add_argument("--live", action="store_true", help="measure the kernels on this machine again (minutes) instead "
                                                       "of taking the newest committed results")
