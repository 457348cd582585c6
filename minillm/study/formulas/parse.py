"""Parse a formula of a docstring, such as `dx = rstd * (g - mean(g) - xhat * mean(g * xhat))`, into a syntax tree.

The grammar, from what binds least to what binds most:

    formula    relation, perhaps with `for` and its conditions after it
    relation   sums with signs between them: =  <-  +=  <  <=  >  >=  !=  ~
    choice     a sum, perhaps with `if condition else choice` after it
    sum        terms with + or - between them
    term       factors with * / @ between them, ` . ` (dot product), or nothing but a space: a product, too
    factor     power, perhaps with a minus before it; `2h` and `3x` are one factor
    power      operand ^ factor
    operand    number, name, (sum), |sum|, 1[relation], f(arguments), f operand, x[indices], x.T,
               `sum over i, j of term` and so with mean, max, min and product

A space tells a product from a call: `s(z)` applies s to z, `r (I + J)` multiplies.
"""
import re
from typing import Any, NamedTuple

from . import trees

RELATIONS = ("=", "<-", "+=", "<=", ">=", "<", ">", "!=", "~")
BIG = ("sum", "mean", "max", "min", "product")              # what runs over an index
PREFIX = ("exp", "log", "ln", "sqrt", "tanh", "mean", "std")            # functions that need no brackets
RESERVED = ("over", "of", "if", "else", "for")
TOKEN = re.compile(r"(?P<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?)|(?P<name>[A-Za-z]\w*)|(?P<sign>\|\||<-(?=\s)|\+=|<=|>=|!=|"
                   r"[-+*/@^=<>~.,:()[\]|])")


class Token(NamedTuple):
    kind: str
    text: str
    glued: bool             # no space before it
    column: int


def tokens_of(text: str) -> list[Token]:
    """The tokens of a formula. Raises ValueError for a character that begins none."""
    tokens, end, place = [], 0, 0
    text = text.rstrip()
    while place < len(text):
        if text[place].isspace():
            place += 1
            continue
        found = TOKEN.match(text, place)
        if not found:
            raise ValueError(f"formula {text!r}: nothing begins with {text[place]!r}, at column {place + 1}")
        tokens.append(Token(str(found.lastgroup), found[0], place == end, place))
        place = end = found.end()
    return tokens


def parse(text: str) -> Any:
    """The syntax tree of a formula. Raises ValueError, which names the formula and the column, where it is none."""
    parser = Parser(text)
    tree = parser.formula()
    if parser.place < len(parser.tokens):
        raise parser.error("an operator or the end")
    return tree


class Parser:
    """A place in the tokens of one formula; each method reads one line of the grammar."""

    def __init__(self, text: str):
        self.text, self.tokens, self.place = text, tokens_of(text), 0

    def error(self, wanted: str) -> ValueError:
        token = self.look()
        where = f"{token.text!r} at column {token.column + 1}" if token else "the end"
        return ValueError(f"formula {self.text!r}: expected {wanted}, got {where}")

    def look(self, ahead: int = 0) -> Token | None:
        place = self.place + ahead
        return self.tokens[place] if place < len(self.tokens) else None

    def at(self, *texts: str, ahead: int = 0, glued: bool = False) -> bool:
        token = self.look(ahead)
        return token is not None and token.text in texts and (token.glued or not glued)

    def take(self, *texts: str) -> str:
        """The next token's text, which must be one of these."""
        if not self.at(*texts):
            raise self.error(" or ".join(texts))
        self.place += 1
        return self.tokens[self.place - 1].text

    def formula(self) -> Any:
        tree, where = self.relation(), []
        while self.at("for") if not where else self.at(","):
            self.place += 1
            where.append(self.relation())
        if where and not isinstance(tree, trees.Relation):
            tree = trees.Relation((tree,), ())
        return tree._replace(where=tuple(where)) if where else tree

    def relation(self) -> Any:
        sides, signs = [self.choice()], []
        while self.at(*RELATIONS):
            signs.append(self.take(*RELATIONS))
            sides.append(self.choice())
        return trees.Relation(tuple(sides), tuple(signs)) if signs else sides[0]

    def choice(self) -> Any:
        value = self.sum()
        if not self.at("if"):
            return value
        self.place += 1
        condition = self.relation()
        self.take("else")
        return trees.Choice(value, condition, self.choice())

    def sum(self) -> Any:
        tree = self.term()
        while self.at("+", "-"):
            tree = trees.Binary(self.take("+", "-"), tree, self.term())
        return tree

    def term(self) -> Any:
        if self.at("-"):
            self.place += 1
            return trees.Minus(self.term())
        tree = self.factor()
        while True:
            if self.at("*", "/", "@") or self.at(".") and not self.at(".", glued=True):
                tree = trees.Binary(self.take("*", "/", "@", "."), tree, self.factor())
            elif self.begins_operand():
                tree = trees.Binary("", tree, self.power())
            else:
                return tree

    def begins_operand(self) -> bool:
        token = self.look()
        return token is not None and token.text not in RESERVED and (
            token.kind in ("number", "name") or token.text == "(")

    def factor(self) -> Any:
        if self.at("-"):
            self.place += 1
            return trees.Minus(self.factor())
        return self.power()

    def power(self) -> Any:
        base, token = self.operand(), self.look()
        if isinstance(base, trees.Number) and token and token.glued and (token.kind == "name" or token.text == "("):
            return trees.Binary("", base, self.power())            # 2h, which binds more than the / in x / 2h
        if self.at("/", glued=True) and is_difference(base):
            self.place += 1
            return trees.Derivative(base, self.operand())          # dout/dx; with blanks, dout / n is a quotient
        if self.at("^"):
            self.place += 1
            return trees.Power(base, self.factor())
        return base

    def operand(self) -> Any:
        token = self.look()
        if token is None or token.text in RESERVED:
            raise self.error("a number, a name or a bracket")
        self.place += 1
        if token.text in BIG and self.at("over"):
            return self.over(token.text)
        if token.text in ("(", "|"):
            tree: Any = trees.Group(self.sum(), token.text)
            self.take({"(": ")", "|": "|"}[token.text])
        elif token.kind == "name":
            tree = self.named(token)
        elif token.text == "1" and self.at("[", glued=True):
            self.place += 1
            tree = trees.Indicator(self.relation())
            self.take("]")
        elif token.kind == "number":
            tree = trees.Number(token.text)
        else:
            self.place -= 1
            raise self.error("a number, a name or a bracket")
        return self.after(tree)

    def named(self, token: Token) -> Any:
        if self.at("(", glued=True):
            return self.call(token.text)
        if token.text in PREFIX and self.begins_operand():
            return trees.Call(token.text, (self.power(),), brackets=False)
        return trees.Name(token.text)

    def call(self, function: str) -> Any:
        self.place += 1
        arguments, separator = [self.sum()], ","
        while self.at(",", "||"):
            separator = self.take(",", "||")
            arguments.append(self.sum())
        self.take(")")
        return trees.Call(function, tuple(arguments), True, separator)

    def after(self, tree: Any) -> Any:
        """x[indices] and x.T, any number of them."""
        while True:
            if self.at("[", glued=True):
                self.place += 1
                items = [self.item()]
                while self.at(","):
                    self.place += 1
                    items.append(self.item())
                self.take("]")
                tree = trees.Index(tree, tuple(items))
            elif self.at(".", glued=True) and self.at("T", ahead=1, glued=True):
                self.place += 2
                tree = trees.Transposed(tree)
            else:
                return tree

    def item(self) -> Any:
        if self.at(":"):
            self.place += 1
            return None
        return self.sum()

    def over(self, kind: str) -> Any:
        self.place += 1
        indices = [self.relation()]
        while self.at(","):
            self.place += 1
            indices.append(self.relation())
        self.take("of")
        return trees.Over(kind, tuple(indices), self.term())


def is_difference(tree: Any) -> bool:
    """Whether it is written d and a name: dout, dP[s], perhaps over another such, as in dout/dx."""
    name = tree.base if isinstance(tree, trees.Index) else tree
    return isinstance(name, trees.Name) and name.text[0] == "d" and len(name.text) > 1
