"""Wrong solutions of `accumulation`: (what is wrong, text of the reference, its replacement, words of the
diagnosis)."""
SUMS = "            loss_sum += count * loss\n            grad_sum = grad_sum + count * grad\n"
RETURN = "return loss_sum / tokens, grad_sum / tokens"
WRONG = [
    ("mean of the micro-batches' means", SUMS + "            tokens += count",
     "            loss_sum += loss\n            grad_sum = grad_sum + grad\n            tokens += 1",
     "must weigh micro-batches by their tokens"),
    ("only the loss is weighed", RETURN,
     "n = len(micro_batches)\n    return loss_sum / tokens, sum(loss_and_grad(item)[1].copy() for item in "
     "micro_batches) / n", "must weigh micro-batches by their tokens: the gradient, too"),
    ("a sum, not a mean", SUMS + "            tokens += count",
     "            loss_sum += loss\n            grad_sum = grad_sum + grad\n            tokens = 1", "not their sum"),
    ("a sum over tokens", RETURN, "return loss_sum, grad_sum", "its own loss"),
    ("the last gradient only", "grad_sum = grad_sum + count * grad", "grad_sum = count * grad", "the last one alone"),
    ("keeps the buffer", SUMS + "            tokens += count",
     "            kept = kept + [(count, loss, grad)] if tokens else [(count, loss, grad)]\n"
     "            tokens += count\n    loss_sum = sum(c * x for c, x, _ in kept)\n"
     "    grad_sum = sum(c * g for c, _, g in kept)", "written again by the next call"),
    ("0 times NaN", "        if count:\n", "        if True:\n", "0 * NaN is NaN"),
    ("two calls for each", "        loss, grad, count = loss_and_grad(item)",
     "        loss, count = loss_and_grad(item)[::2]\n        grad = loss_and_grad(item)[1]", "once for each"),
    ("returns the buffer", RETURN,
     "if len(micro_batches) == 1:\n        return loss, grad\n    return loss_sum / tokens, grad_sum / tokens",
     "not the buffer"),
]
