"""The first look at a learner's file, without running it: is everything written, and by oneself?"""
import ast
from collections.abc import Iterator
from pathlib import Path

from .exercise import Exercise, Wrong

FOR_ONE = {"minillm", "torch", "tensorflow", "jax", "autograd", "keras", "transformers"}      # would do the exercise


def read(exercise: Exercise, path: Path) -> str:
    """The evidence that the file is complete. Raises Wrong for what is missing."""
    tree = parsed(path)
    check_imports(tree, ast.parse(exercise.template()))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    wanted = {node.name: node for node in ast.parse(exercise.reference()).body if isinstance(node, ast.FunctionDef)}
    for name in exercise.solve:
        if name not in functions:
            raise Wrong(f"there is no function {name}: the template has {', '.join(exercise.solve)}")
        check_written(functions[name])
        check_parameters(functions[name], wanted[name])
    lines = sum((functions[name].end_lineno or 0) - functions[name].body[0].lineno for name in exercise.solve) + 1
    return f"{', '.join(exercise.solve)} written, {lines} lines"


def parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes())
    except SyntaxError as error:
        shown = f": {error.text.strip()}" if error.text else ""
        where = f"line {error.lineno}: " if error.lineno else ""
        raise Wrong(f"{where}no Python ({error.msg}){shown}") from None
    except (ValueError, RecursionError) as error:               # no UTF-8, a zero byte, brackets without end
        raise Wrong(f"the file cannot be read as Python: {error}") from None


def check_imports(tree: ast.Module, template: ast.Module) -> None:
    """Who imports what does the exercise has not done it."""
    given = set(imported(template))
    for name, line in imported(tree):
        if name.split(".")[0] in FOR_ONE and name not in {known for known, _ in given}:
            raise Wrong(f"line {line}: imports {name}, which would do the exercise for you: write it with NumPy")


def imported(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module or ''}.{alias.name}", node.lineno) for alias in node.names)


def check_written(function: ast.FunctionDef) -> None:
    """No `...` as a statement or a value (an index x[..., 0] is none), and something that runs."""
    for node in ast.walk(function):
        if isinstance(node, (ast.Expr, ast.Assign, ast.Return)) and has_dots(node.value):
            raise Wrong(f"line {node.lineno} in {function.name}: `...` still stands there: write what belongs in its "
                        "place")
    if all(isinstance(node, ast.Pass) or isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
           for node in function.body):
        raise Wrong(f"line {function.lineno}: {function.name} has no body yet")


def has_dots(value: ast.expr | None) -> bool:
    """Whether a value is `...`, or a tuple that holds it."""
    if isinstance(value, ast.Tuple):
        return any(map(has_dots, value.elts))
    return isinstance(value, ast.Constant) and value.value is Ellipsis


def check_parameters(function: ast.FunctionDef, wanted: ast.FunctionDef) -> None:
    """As many can be given as the template's function takes."""
    mine, theirs = function.args, wanted.args
    most = len(mine.posonlyargs) + len(mine.args)
    count = len(theirs.args)
    if not (most - len(mine.defaults) <= count - len(theirs.defaults) and count <= most or mine.vararg):
        names = ", ".join(a.arg for a in theirs.args)
        raise Wrong(f"line {function.lineno}: {function.name} must take ({names}), as in the template: got "
                    f"({', '.join(a.arg for a in (*mine.posonlyargs, *mine.args))})")
