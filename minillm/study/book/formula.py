"""Formulas in plain notation, for the PDF and for HTML."""


def typst(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def mathml(text: str) -> str:
    return text
