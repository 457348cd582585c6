"""Lines of source: which line of the model makes a call, and which line of an op's file computes a result."""
import ast
import inspect
import linecache
import sys
from functools import cache
from pathlib import Path

from ...ops.table import REFERENCE

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def calling_line() -> dict:
    """The line that is running, the first outside of this folder."""
    frame = sys._getframe(1)
    while Path(frame.f_code.co_filename).parent == HERE and frame.f_back:
        frame = frame.f_back
    return line(frame.f_code.co_filename, frame.f_lineno)


def line(path: str, number: int) -> dict:
    """A statement as data: it may go on for several lines."""
    text = linecache.getline(path, number).strip()
    while text.count("(") > text.count(")") and (more := linecache.getline(path, number + text.count("\n") + 1)):
        text += "\n" + more.rstrip()
    return {"file": shown(path), "line": number, "text": text.partition("   #")[0].rstrip()}


def shown(path: str) -> str:
    """minillm/ops/linear.py; a file elsewhere by its name."""
    return Path(path).relative_to(ROOT).as_posix() if Path(path).is_relative_to(ROOT) else Path(path).name


@cache
def line_of_result(function: str, result: str | int) -> dict:
    """The line of the reference that computes a result: of a forward by its place, of a backward by its name.

    That is the last statement that writes it (a matmul if there is one), or the return.
    """
    source, first = inspect.getsourcelines(REFERENCE[function])
    tree = ast.parse("".join(source)).body[0]
    back = next(node for node in ast.walk(tree) if isinstance(node, ast.Return))
    name = result if isinstance(result, str) else name_of(back.value, result)
    writing = [node for node in ast.walk(tree) if isinstance(node, ast.stmt) and name in written(node)]
    writing.sort(key=lambda node: (any(isinstance(part, ast.MatMult) for part in ast.walk(node)), node.lineno))
    chosen = writing[-1] if writing else back
    return line(inspect.getsourcefile(REFERENCE[function]) or "", first + chosen.lineno - 1)


def name_of(returned: ast.expr | None, place: int) -> str:
    """The variable that is returned first (or in this place of the first), "" for an expression."""
    out = returned.elts[0] if isinstance(returned, ast.Tuple) else returned
    out = out.elts[place] if isinstance(out, ast.Tuple) else out
    out = out.func.value if isinstance(out, ast.Call) and isinstance(out.func, ast.Attribute) else out
    return out.id if isinstance(out, ast.Name) else ""


def written(node: ast.stmt) -> set[str]:
    """The variables that a statement writes, whole or in part."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign) else []
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and "add.at" in ast.unparse(node.value.func):
        targets = node.value.args[:1]
    names = [part for target in targets for part in ast.walk(target)]
    return {part.id for part in names if isinstance(part, ast.Name)} - {
        part.id for target in targets for sub in ast.walk(target) if isinstance(sub, ast.Subscript)
        for part in ast.walk(sub.slice) if isinstance(part, ast.Name)}
