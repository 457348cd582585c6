"""Every figure draws itself: a well-formed SVG, the same bytes again, soon; and shows what is true."""
import time
import xml.etree.ElementTree as ElementTree
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import minillm.study.book.figures as figures
from minillm.study.book.figures import (
    adam_bias,
    attention_patterns,
    bpe_merges,
    error_against_h,
    init_variance,
    intervals,
    loss_floor,
    measured,
    memory_by_category,
    online_softmax,
    roofline,
    s_curve,
    sampling_cut,
    scaling_law,
    speculative_bias,
    summation_error,
)
from minillm.study.book.figures.stories_run import RECORD, attention_maps, recorded, train
from minillm.study.book.figures.svg import Axes, label, round_ticks
from minillm.study.book.results import runs
from minillm.study.book.tables import planted_errors, step_times

FOLDER = Path(figures.__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if "def draw()" in path.read_text(encoding="utf-8"))
OF_RESULTS = [name for name in NAMES if "from .measured" in (FOLDER / f"{name}.py").read_text(encoding="utf-8")]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_draws_the_same_bytes_again_and_soon(name):
    module, started = import_module(f"minillm.study.book.figures.{name}"), time.process_time()
    drawn = module.draw()
    assert time.process_time() - started < 3
    assert module.draw() == drawn
    root = ElementTree.fromstring(drawn)
    assert root.tag == SVG + "svg" and root[0].tag == SVG + "title" and len(root[0].text) > 20
    assert "nan" not in drawn and "inf" not in drawn.lower().replace("information", "")
    assert not root.findall(".//*[@id]")                           # all figures stand in one HTML page
    width, height = (float(root.get("viewBox").split()[i]) for i in (2, 3))
    for mark in root.iter(SVG + "text"):
        assert 0 <= float(mark.get("x")) <= width and 0 <= float(mark.get("y")) <= height, mark.text


def test_a_newer_run_of_other_sizes_changes_no_figure(monkeypatch):
    committed = runs()
    odd = [{**row, "dims": "tiny", "candidate": "mine"} for run in committed for row in run.rows]
    drawn = [import_module(f"minillm.study.book.figures.{name}").draw for name in OF_RESULTS]
    expected = [draw() for draw in drawn]
    monkeypatch.setattr(measured, "runs", lambda: [committed[0]._replace(date="9999-12-31", rows=odd), *committed])
    assert [draw() for draw in drawn] == expected
    assert len(step_times.rows()) > 2 and planted_errors.rows()[-1][0] == "all"


def test_there_are_enough_figures_and_each_stands_in_a_chapter():
    chapters = "".join(path.read_text(encoding="utf-8") for path in (FOLDER.parent / "chapters").glob("*.md"))
    assert len(NAMES) >= 25
    assert [name for name in NAMES if f"{{figure:{name} " not in chapters] == []


def test_the_loss_of_the_recorded_run_stays_above_the_floor():
    bits = [row["bits_per_byte"] for row in recorded()["curve"]]
    assert all(b > loss_floor.floor() for b in bits) and bits[-1] < 1.1 * loss_floor.floor()


def test_the_recorded_run_is_that_of_the_code():
    """A few steps of it are its beginning; other kernels may differ in the last digits."""
    model, tokenizer, curve = train(steps=1, count=60, unseen=1)
    assert model.params.flat.size == recorded()["parameters"]
    maps = attention_maps(model, [1, 2, 3, 4])
    assert np.shape(maps) == np.shape(recorded()["attention"])[:2] + (4, 4)
    assert RECORD.stat().st_size < 200_000


def test_attention_maps_are_causal_and_sum_to_one():
    maps = np.array(recorded()["attention"])
    assert np.allclose(maps.sum(-1), 1, atol=0.02) and not np.triu(maps, 1).any()
    assert all(layer < maps.shape[0] and head < maps.shape[1] for layer, head in attention_patterns.CHOSEN)


def test_only_the_right_speculative_rule_has_the_targets_distribution():
    distances = [speculative_bias.distance(found) for found in speculative_bias.rules().values()]
    assert distances[0] < 1e-15 and min(distances[1:]) > 0.05
    assert all(abs(found.sum() - 1) < 1e-12 for found in speculative_bias.rules().values())


def test_simulated_minhash_follows_the_s_curve():
    lsh = s_curve.Lsh(16, 8)
    for similarity, share in s_curve.simulated(lsh):
        expected = float(lsh.found(similarity))
        assert abs(share - expected) < 4 * (expected * (1 - expected) / s_curve.PAIRS) ** 0.5 + 0.01


def test_the_error_curve_shows_slopes_and_the_wrong_gradients_level():
    right, wrong, single = error_against_h.curves()
    error = {round(np.log10(row["h"])): row["error"] for row in right}
    assert 50 < error[-1] / error[-2] < 200                       # slope 2
    lowest = [min(row["error"] for row in curve if row["error"]) for curve in (right, wrong, single)]
    assert lowest[0] < 1e-10 and lowest[1] > 1e-7 and lowest[2] > 1e-7


def test_the_online_softmax_ends_with_the_softmax_of_the_row():
    values, states = online_softmax.scores(), online_softmax.online(online_softmax.scores())
    top, total = states[-1]
    assert top == values.max() and abs(total - np.exp(values - top).sum()) < 1e-12


def test_scaled_projections_keep_the_stream_small_and_bias_correction_the_first_step():
    assert init_variance.deviations(True)[-1] < 0.5 * init_variance.deviations(False)[-1]
    assert abs(adam_bias.updates(True)[0] - 1) < 1e-3 and adam_bias.updates(False)[0] > 3


def test_sums_in_pairs_are_the_most_exact_and_all_are_within_their_bounds():
    one, many, pairs = summation_error.errors(65536)
    assert pairs < many < one < 65536 * summation_error.EPS and pairs < 16 * summation_error.EPS


def test_truncations_and_temperature_keep_distributions():
    found = dict(sampling_cut.distributions())
    assert all(abs(p.sum() - 1) < 1e-6 for p in found.values())
    assert (found["top-k 5"] > 0).sum() == 5 and found["T = 0.6"].max() > found["T = 1"].max()


def test_wilsons_interval_covers_where_the_normal_one_does_not():
    assert intervals.coverage(intervals.share_interval, 0.02) > 0.9 > intervals.coverage(intervals.wald, 0.02)


def test_planned_memory_grows_with_the_batch_and_recomputation_lowers_it():
    one, four, eight, again = (sum(parts.values()) for _, parts in memory_by_category.sizes())
    assert one < four < eight and again < four


def test_more_flops_want_more_parameters_and_the_roofline_holds_its_points():
    assert scaling_law.best(1e18)[0] < scaling_law.best(1e20)[0]
    peak = roofline.run().peaks["float32"]["gflops"]
    done = {("linear_cross_entropy", "backward"): 2 / 3}                    # of three products: the logits are kept
    assert all(rate * done.get((op, direction), 1) < 1.05 * peak for op, direction, _, rate in roofline.points())


def test_more_merges_make_longer_tokens():
    sizes, learned, held_out = zip(*bpe_merges.bytes_per_token(*bpe_merges.texts()["stories"]))
    assert list(learned) == sorted(learned) and learned[0] == 1 and held_out[-1] > 2


def test_ticks_are_round_and_labels_short():
    assert round_ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0] and label(1e-5) == "10⁻⁵" and label(2048) == "2,048"
    axes = Axes((0, 10), (0, 1), place=(0, 0, 100, 50))
    assert axes.at(5, 1) == (50, 0) and axes.at(99, -3) == (100, 50)         # moved to the edge
