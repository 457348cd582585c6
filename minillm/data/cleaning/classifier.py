"""A linear text classifier over hashed n-grams, trained on two sets of texts: for quality, toxicity, a topic.

    features   every word and pair of neighbouring words, lower case, hashed to one of `buckets` numbers
    logits     mean over the features of their rows of `weight` (buckets, 2), plus bias
    loss       cross-entropy; AdamW. Both are the ops that train the language model.

That is fastText's classifier (Joulin et al. 2016, arXiv 1607.01759) with the embedding and the output matrix multiplied
out, since two classes need no more. Of word order it sees bigrams: "not good", and no sentence.
"""
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from ...ops import adamw_update, cross_entropy_backward, cross_entropy_forward
from ...storage.atomic import AnyPath
from ...storage.safetensors import read_safetensors, write_safetensors

WORD = re.compile(r"\w+|[^\w\s]")
FILE = "classifier.safetensors"
BATCH = 64


class Classifier:
    """`score(text)` is the probability that the text is of the positive class."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray) -> None:
        """weight (buckets, 2), bias (2,), float32."""
        self.weight, self.bias = weight, bias

    @classmethod
    def train(cls, positive: Iterable[str], negative: Iterable[str], buckets: int = 2 ** 18, epochs: int = 5,
              lr: float = 0.05, seed: int = 0, progress: Callable | None = None) -> "Classifier":
        """Learn from texts of two classes, each weighing as much as the other. Raises ValueError if one has no text."""
        texts = [[text for text in group if text.strip()] for group in (positive, negative)]
        for name, group in zip(("positive", "negative"), texts):
            if not group:
                raise ValueError(f"{name} must hold at least one text")
        found = [features(text, buckets) for group in texts for text in group]
        labels = np.repeat([1, 0], list(map(len, texts)))                         # (texts,)
        weights = np.where(labels == 1, 0.5 / len(texts[0]), 0.5 / len(texts[1])) * len(labels)
        self = cls(np.zeros((buckets, 2), np.float32), np.zeros(2, np.float32))
        moments, steps, rng = [np.zeros(2 * buckets + 2, np.float32) for _ in range(3)], 0, np.random.default_rng(seed)
        for epoch in range(epochs):
            order = rng.permutation(len(found))
            for start in range(0, len(order), BATCH):
                chosen = order[start:start + BATCH]
                steps += 1
                self.update([found[i] for i in chosen], labels[chosen], weights[chosen], moments, steps, lr)
                if progress:
                    progress(epoch * len(order) + start + len(chosen), epochs * len(order), "")
        return self

    def update(self, batch: list[np.ndarray], labels: np.ndarray, weights: np.ndarray, moments: list[np.ndarray],
               step: int, lr: float) -> None:
        """One step of AdamW on the mean weighted loss of a batch. moments: gradient buffer, m and v."""
        grad, m, v = moments
        _, cache = cross_entropy_forward(self.logits(batch), labels)
        dlogits = cross_entropy_backward((weights / len(batch)).astype(np.float32), cache)       # (batch, 2)
        grad[:] = 0
        dweight, dbias = grad[:-2].reshape(-1, 2), grad[-2:]
        for row, d in zip(batch, dlogits):
            np.add.at(dweight, row, d / len(row))
        dbias += dlogits.sum(0)
        flat = np.concatenate([self.weight.ravel(), self.bias])
        adamw_update(flat, grad, m, v, step, lr, 0.9, 0.999, 1e-8, 0.0, 0, 1.0)
        self.weight, self.bias = flat[:-2].reshape(-1, 2), flat[-2:]

    def logits(self, batch: list[np.ndarray]) -> np.ndarray:
        """Features of several texts -> (texts, 2)."""
        return np.stack([self.weight[row].mean(0) for row in batch]) + self.bias

    def score(self, text: str) -> float:
        """Probability of the positive class; 0.5 for a text without words."""
        no, yes = self.logits([features(text, len(self.weight))])[0].astype(np.float64)
        return float(1 / (1 + np.exp(min(700.0, no - yes))))

    def save(self, directory: AnyPath) -> None:
        Path(directory).mkdir(parents=True, exist_ok=True)
        write_safetensors(Path(directory) / FILE, {"weight": self.weight, "bias": self.bias}, {"format": "minillm"})

    @classmethod
    def load(cls, directory: AnyPath) -> "Classifier":
        """Raises FileNotFoundError, or ValueError naming the file."""
        tensors, _ = read_safetensors(Path(directory) / FILE)
        weight, bias = tensors.get("weight"), tensors.get("bias")
        if weight is None or bias is None or weight.ndim != 2 or weight.shape[1] != 2 or bias.shape != (2,):
            raise ValueError(f"{directory}/{FILE}: expected weight (buckets, 2) and bias (2,)")
        return cls(np.array(weight), np.array(bias))


def features(text: str, buckets: int) -> np.ndarray:
    """(features,) int64: the bucket of every word and pair of words, at least one."""
    words = WORD.findall(text.lower())
    grams = [*words, *map(" ".join, zip(words, words[1:]))] or [""]
    return np.array([bucket(gram, buckets) for gram in grams])


def bucket(gram: str, buckets: int) -> int:
    """A hash that is the same on every machine and in every run (Python's own is not)."""
    return int.from_bytes(hashlib.blake2b(gram.encode(), digest_size=8).digest(), "little") % buckets


def quality_of(classifier: Classifier, texts: list[str], labels: Sequence[int]) -> tuple[float, float]:
    """(accuracy, area under the ROC curve): the chance that a positive text scores above a negative one."""
    scores, positive = np.array([classifier.score(text) for text in texts]), np.asarray(labels, bool)
    ranks = np.argsort(np.argsort(scores, kind="stable"), kind="stable") + 1.0
    for value in np.unique(scores):                                               # equal scores share their rank
        ranks[scores == value] = ranks[scores == value].mean()
    n, m = positive.sum(), (~positive).sum()
    area = (ranks[positive].sum() - n * (n + 1) / 2) / (n * m) if n and m else float("nan")
    return float(((scores > 0.5) == positive).mean()), float(area)
