"""Every formula of the package is set by Typst and by MathML, as a textbook would set it."""
import ast
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest

import minillm
from minillm.study.formulas import NOTATION, formulas_of, to_mathml, to_typst

PACKAGE = Path(minillm.__file__).parent


@cache
def all_texts():
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))]
    nodes = [node for tree in trees for node in ast.walk(tree)
             if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef))]
    return [formula.text for node in nodes for formula in formulas_of(ast.get_docstring(node))] + [
        text for text, _ in NOTATION]


def test_typst_compiles_all_formulas():
    typst = pytest.importorskip("typst")
    lines = [f"$ {to_typst(text)} $ in a line ${to_typst(text, display=False)}$" for text in all_texts()]
    assert len(lines) > 180
    assert typst.compile("\n\n".join(lines).encode(), format="pdf").startswith(b"%PDF")


def test_mathml_is_well_formed():
    for text in all_texts():
        for display in (True, False):
            tree = ElementTree.fromstring(to_mathml(text, display))
            assert tree.tag == "math" and (tree.get("display") == "block") == display
            counts = {"mfrac": 2, "msub": 2, "msup": 2, "msubsup": 3, "munder": 2, "mover": 2}
            assert all(len(node) == counts.get(node.tag, len(node)) for node in tree.iter())


def words(text, display=True):
    """What a reader of the MathML sees, without its structure."""
    return "".join(ElementTree.fromstring(to_mathml(text, display)).itertext())


def test_a_hostile_formula_stays_text():
    """Nothing that is written in a formula becomes markup."""
    assert words("1[a < b]") == "1[a<b]"
    for text in ("<b>", 'x"y', "a $ b", "#read(1)", "x & y", "a \\ b"):
        with pytest.raises(ValueError, match="formula"):
            to_typst(text)


TYPST = {
    "a / b": "frac(a, b)", "x.T": "attach(x, t: upright(⊤))", "x[i]^2": "attach(x, b: i, t: 2)",
    "(a + b) / (c * d)": "frac(a+b, c d)", "xhat": "hat(x)", "beta1": "attach(β, b: 1)",
    "dweight": 'upright(d)italic("weight")', "dout/dx": 'frac(upright(∂)italic("out"), upright(∂)x)',
    "dout / n": 'frac(upright(d)italic("out"), n)', "1[i = j]": "bold(1)\\[i=j\\]", "x / 2h": "frac(x, 2 h)",
    "2 * 3": "2⋅3", "exp(a, b)": 'upright("exp")\\(a\\,b\\)', "sqrt(x)": "sqrt(x)", "1e-5": "attach(10, t: −5)"}


@pytest.mark.parametrize("text", TYPST)
def test_typst(text):
    assert to_typst(text) == TYPST[text]


READ = {
    "log a * b": "loga⋅b", "a * -b": "a(−b)", "a - (b - c)": "a−(b−c)", "(a * b) . c": "(ab)⋅c", "2 a * 3": "2a⋅3",
    "xhat * weight": "x^⊙weight", "scale * weight": "scaleweight", "rstd * (g - mean(g))": "rstd(g−mean(g))",
    "x @ wte.T": "xwte⊤", "q[t] . k[s]": "qt⋅ks", "m <- beta1 * m": "m←β1m", "dwte += x": "dwte←dwte+x",
    "Phi(x) ~ t": "Φ(x)≈t", "KL(P || Q)": "KL(P∥Q)", "ref_logp": "logpref", "lr": "η",
    "norm(g)": "‖g‖", "|x|": "|x|"}


@pytest.mark.parametrize("text", READ)
def test_signs(text):
    assert words(text) == READ[text]


def test_a_slash_divides_no_more_than_it_should():
    inline = {"a / b * c": "a/b⋅c", "a / (b * c)": "a/(bc)", "x / 2h": "x/(2h)", "a / b / c": "a/b/c",
              "(a + b) / c": "(a+b)/c"}
    assert {text: words(text, display=False) for text in inline} == inline


def test_the_notation_says_nothing_twice():
    assert len({text for text, _ in NOTATION}) == len(NOTATION)
