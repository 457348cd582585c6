"""The linear text classifier learns bigrams, is reproducible, and its area under the ROC curve is right."""
import pytest
from tolerances import assert_same_bits

from minillm.data.cleaning.classifier import Classifier, features, quality_of


def test_the_classifier_learns_pairs_of_words(tmp_path):
    good = [f"the film was not bad, number {i}" for i in range(40)]
    bad = [f"the film was bad, not number {i}" for i in range(40)]
    made = Classifier.train(good[:30], bad[:30], epochs=8)
    assert quality_of(made, good[30:] + bad[30:], [1] * 10 + [0] * 10) == (1.0, 1.0)
    made.save(tmp_path)
    assert Classifier.load(tmp_path).score(good[0]) == made.score(good[0]) > 0.5
    again = Classifier.train(good[:30], bad[:30], epochs=8)
    assert_same_bits(again.weight, made.weight)
    with pytest.raises(ValueError, match="negative must hold at least one text"):
        Classifier.train(good, [" "])
    assert len(features("", 16)) == 1


def test_area_under_the_curve_by_hand():
    class Fixed:
        def score(self, text):
            return float(text)
    assert quality_of(Fixed(), ["0.9", "0.4", "0.4", "0.1"], [1, 1, 0, 0])[1] == pytest.approx(3.5 / 4)
