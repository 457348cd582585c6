"""The plain formulas of docstrings, typeset (Typst, MathML) and evaluated (NumPy): one source for page, book and test.

    from minillm.study.formulas import evaluate, formulas_of, to_mathml, to_typst

A docstring's formulas stand in its indented blocks, several on a line with wide blanks between; what is no formula
stays text. `NOTATION` says what the plain signs mean: the book prints it.
"""
from .evaluate import Step, evaluate, steps
from .find import Formula, formulas_of
from .mathml import STYLE, to_mathml
from .parse import parse
from .typst import to_typst

__all__ = ["NOTATION", "STYLE", "Formula", "Step", "evaluate", "formulas_of", "parse", "steps", "to_mathml", "to_typst"]

NOTATION = (        # (as it is written, what it means)
    ("x[t, s]", "an element of an array, counted from 0; of a matrix x[t] is a row"),
    ("dx", "the gradient of the loss with respect to x, of x's shape; dout comes in, for the op's result"),
    ("dout/dx", "the derivative of out with respect to x (without blanks: dout / n divides a gradient)"),
    ("x @ weight", "matmul"),
    ("x.T", "the transpose"),
    ("xhat * weight", "two arrays multiplied number by number"),
    ("scale * x", "an array, or a number, times a number; a blank alone means the same: beta h"),
    ("q . k", "the dot product of two vectors"),
    ("sum over i of x[i]", "the sum over all i, of what is multiplied behind it"),
    ("sum over s <= t of P[t, s]", "the sum over those s only"),
    ("sum over rows of dout", "the rows of a matrix added up"),
    ("mean(x)", "the mean of a row; so sum, max and min; std(x) is the sample deviation, over n - 1"),
    ("1[i = j]", "1 where the condition holds, 0 elsewhere"),
    ("1 if u >= p else 0", "the first where the condition holds, the second elsewhere"),
    ("m <- beta1 * m", "an update: m is replaced"),
    ("dwte += dlogits.T @ x", "an update: added to what is there"),
    ("Phi(x) ~ (1 + t) / 2", "about equal"),
    ("xhat", "x normalised, or corrected: a hat"),
    ("log x", "the natural logarithm, as ln x"),
    ("logsumexp(z)", "log(sum(exp(z)))"),
    ("sigmoid(z)", "1 / (1 + exp(-z))"),
    ("Phi(x)", "the distribution function of the normal distribution"),
    ("KL(P || Q)", "the Kullback-Leibler divergence of Q from P"),
    ("CE(z, y)", "the cross-entropy of logits z with the right token y"),
    ("norm(x)", "the Euclidean norm"),
    ("ref_logp", "an index says whose: logp under the reference; so old, fc, proj, min, max"),
    ("lr", "the learning rate"),
    ("weight_decay", "the coefficient of weight decay"),
    ("eps", "a small number that keeps a denominator from zero; with u, the unit roundoff"),
    ("B", "sequences in a batch"), ("T", "tokens in a sequence; a temperature where there are logits"),
    ("C", "the width of the model"), ("NH", "heads of attention"), ("HS", "the width of a head"),
    ("V", "the size of the vocabulary"), ("N", "rows of a matrix; parameters in scaling laws"))
