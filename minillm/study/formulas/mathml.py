"""Formulas in MathML, which browsers set without scripts."""
from html import escape
from typing import Any

from .layout import Big, Cases, Fence, Fraction, Hat, Mark, Root, Row, Script, layout

STYLE = """math { font-family: "New Computer Modern Math", "Latin Modern Math", "STIX Two Math", "Cambria Math",
  "DejaVu Math TeX Gyre", math; }
"""                     # for pages: browsers need a font that is made for formulas, and machines have different ones
NO_RULE = ' linethickness="0"'
WIDTHS = {"thin": "0.1667em", "quad": "1em"}


def to_mathml(text: str, display: bool = True) -> str:
    """A formula such as `out = x @ weight + bias` as a <math> element, on a line of its own or within one.

    Raises ValueError where it does not parse. The plain formula is what is read aloud where MathML is not.
    """
    kind = ' display="block"' if display else ""
    return f'<math{kind} alttext="{escape(text)}">{mathml(layout(text, display))}</math>'


def mathml(box: Any) -> str:
    match box:
        case Mark():
            return mark(box)
        case Row(items):
            return f"<mrow>{''.join(map(mathml, items))}</mrow>"
        case Fraction(top, bottom, rule):
            return f"<mfrac{'' if rule else NO_RULE}>{mathml(top)}{mathml(bottom)}</mfrac>"
        case Script(base, below, above):
            ends = "".join(mathml(end) for end in (below, above) if end is not None)
            tag = "msup" if below is None else "msub" if above is None else "msubsup"
            return f"<{tag}>{mathml(base)}{ends}</{tag}>"
        case Big(sign, under):
            return f'<munder>{mathml(sign).replace("<mo>", """<mo movablelimits="false">""")}{mathml(under)}</munder>'
        case Hat(base):
            return f'<mover accent="true">{mathml(base)}<mo>^</mo></mover>'
        case Root(body):
            return f"<msqrt>{mathml(body)}</msqrt>"
        case Fence(left, body, right):
            grows = str(box.grows()).lower()
            return (f'<mrow><mo form="prefix" fence="true" stretchy="{grows}">{left}</mo>{mathml(body)}'
                    f'<mo form="postfix" fence="true" stretchy="{grows}">{right}</mo></mrow>')
        case Cases(rows):
            cell = '<mtd style="text-align:left">'
            lines = "".join(f"<mtr>{cell}{mathml(value)}</mtd>{cell}{mathml(condition)}</mtd></mtr>"
                            for value, condition in rows)
            return f'<mrow><mo form="prefix" fence="true" stretchy="true">{{</mo><mtable>{lines}</mtable></mrow>'
    raise TypeError(f"no box: {box}")


def mark(box: Mark) -> str:
    if box.kind == "space":
        return f'<mspace width="{WIDTHS[box.text]}"/>'
    text = escape(box.text)
    if box.kind == "word":
        return f'<mi style="font-style:italic">{text}</mi>'
    if box.kind == "bold":
        return f'<mn style="font-weight:bold">{text}</mn>'
    if box.text == "/":
        return '<mo lspace="0" rspace="0">/</mo>'
    tag = {"letter": "mi", "number": "mn", "sign": "mo", "text": "mtext"}.get(box.kind)
    return f"<{tag}>{text}</{tag}>" if tag else f'<mi mathvariant="normal">{text}</mi>'
