"""Gradient accumulation: a large batch in small pieces.

A batch that does not fit into memory is cut into micro-batches, whose gradients are added up before the one step of
the optimizer. The result must be that of the large batch, whose loss is the mean over all its tokens. Micro-batches
differ in how many tokens they predict (padding and prompts are not learned from), and this is where it goes wrong.

Write accumulate(micro_batches, loss_and_grad). For each item of micro_batches,

    loss, grad, count = loss_and_grad(item)

gives the mean loss over the count tokens of this micro-batch, and the gradient (P,) of that mean. Return the mean loss
over the tokens of all micro-batches and its gradient, a float and an array (P,). Known about loss_and_grad:

    grad is a buffer    the next call writes its gradient into the same memory
    count may be 0      then there is nothing to take a mean of: loss and grad are NaN

Some micro-batch has tokens.

Source: the chain rule. That several training frameworks left the weights out was found in 2024 (D. and M. Han,
unsloth.ai/blog/gradient).
"""
import numpy as np

from ....ops.losses.cross_entropy import cross_entropy_backward, cross_entropy_forward
from ..exercise import Exercise
from ..rules import blame, by_cases


def accumulate(micro_batches, loss_and_grad):
    """(mean loss over all tokens, its gradient (P,)) of micro-batches, each weighed by its tokens."""
    loss_sum, grad_sum, tokens = 0.0, 0.0, 0
    for item in micro_batches:
        loss, grad, count = loss_and_grad(item)
        if count:
            loss_sum += count * loss
            grad_sum = grad_sum + count * grad
            tokens += count
    return loss_sum / tokens, grad_sum / tokens


class _Table:
    """The smallest language model, a table of logits (V, V), one row for each token before: its loss and gradient.

    loss_and_grad((tokens, targets)) does as the task says; `calls` counts.
    """

    def __init__(self, size=4):
        self.logits = np.random.default_rng(1).standard_normal((size, size))
        self.buffer, self.calls = np.empty(size * size), 0

    def loss_and_grad(self, item):
        tokens, targets = item
        losses, cache = cross_entropy_forward(self.logits[tokens], targets)
        count, dlogits = int((targets != -1).sum()), np.zeros_like(self.logits)
        np.add.at(dlogits, tokens, cross_entropy_backward(np.ones(len(tokens)), cache))
        with np.errstate(invalid="ignore"):
            self.buffer[:] = dlogits.ravel() / np.float64(count)
            self.calls += 1
            return float(losses.sum() / np.float64(count)), self.buffer, count

    def mean(self, items):
        """What is right: all micro-batches as one batch."""
        loss, grad, _ = self.loss_and_grad(tuple(np.concatenate(parts) for parts in zip(*items)))
        return loss, grad.copy()


def _cases(yours):
    """Against the large batch: equal micro-batches, then unequal ones, then one without tokens."""
    def item(tokens, targets):
        return np.array(tokens), np.array(targets)

    def case(rule, items, which):
        return rule, yours.accumulate(items, _Table().loss_and_grad)[which], _Table().mean(items)[which]

    alone = [item([0, 1, 2], [1, 2, 3])]
    equal = [*alone, item([3, 3, 1], [0, 2, 2])]
    unequal = [item([0], [1]), item([1, 2, 3, 0, 1, 1], [2, 3, 3, -1, 0, 2])]
    yield case("one micro-batch alone must give its own loss", alone, 0)
    yield case("one micro-batch alone must give its own gradient", alone, 1)
    yield case("of equal micro-batches the loss is their mean, not their sum", equal, 0)
    got, want = yours.accumulate(equal, _Table().loss_and_grad)[1], _Table().mean(equal)[1]
    last = _Table().mean(equal[-1:])[1]
    alone_counts = ("every micro-batch counts: this is the gradient of the last one alone (the buffer is written again "
                    "by the next call: add its numbers up, do not keep it)")
    yield blame(got / np.linalg.norm(got), {alone_counts: last / np.linalg.norm(last)},
                "of equal micro-batches the gradient is their mean, not their sum"), got, want
    yield case("accumulation must weigh micro-batches by their tokens: the loss is a mean over tokens, not over "
               "micro-batches", unequal, 0)
    yield case("accumulation must weigh micro-batches by their tokens: the gradient, too", unequal, 1)
    hollow = [item([0, 1], [-1, -1]), *unequal]
    yield case("a micro-batch without tokens must be left out: its mean is NaN, and 0 * NaN is NaN, too", hollow, 0)
    yield case("a micro-batch without tokens must be left out of the gradient: 0 * NaN is NaN", hollow, 1)
    model = _Table()
    yours.accumulate(unequal, model.loss_and_grad)
    yield "loss_and_grad must be called once for each micro-batch: it is what takes the time", model.calls, 2
    model = _Table()
    grad = yours.accumulate(alone, model.loss_and_grad)[1]
    want = grad.copy()
    model.loss_and_grad(unequal[1])
    yield "the gradient must be an array of your own, not the buffer, which the next call writes", grad, want


EXERCISE = Exercise(
    __file__, solve=("accumulate",), needs=("clipping",), checks=by_cases(_cases),
    hints=("The large batch's loss is (sum of all tokens' losses) / (number of all tokens).",
           "A micro-batch's sum of losses is count * loss; so the loss is sum(count * loss) / sum(count).",
           "The gradient is linear: sum(count * grad) / sum(count), by the same weights.",
           "Where count is 0, skip the item: `if count:`.",
           "grad_sum = grad_sum + count * grad makes a new array; grad_sum = grad keeps the buffer."))
