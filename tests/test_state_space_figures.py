"""The state-space figures draw what they are given; the stability pictures are the rules' closed forms."""

import numpy as np
import pandas as pd

from saidl import figures, ssm


def test_curves_draw_each_line_once_with_the_truth_first():
    x = np.arange(5)
    named = {
        "one": {"exact": (x, x), "zoh": (x, 2 * x), "zoh, late": (x, 3 * x)},
        "two": {"exact": (x, -x), "bilinear": (x, x**2)},
    }
    fig = figures.curves(named, dots=("bilinear",), xlabel="t")
    for ax, (title, lines) in zip(fig.axes, named.items(), strict=True):
        assert (ax.get_title(), ax.get_xlabel()) == (title, "t")
        assert [line.get_label() for line in ax.lines] == list(lines)
        for line, (_, y) in zip(ax.lines, lines.values(), strict=True):
            np.testing.assert_array_equal(line.get_ydata(), y)
    one, two = (ax.lines for ax in fig.axes)
    assert one[0].get_linewidth() > one[1].get_linewidth()
    assert one[1].get_color() == one[2].get_color() == figures.METHOD_COLOURS["zoh"]
    assert [line.get_linestyle() for line in (one[1], one[2], two[1])] == ["-", "--", "None"]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["exact", "zoh", "zoh, late", "bilinear"]


def test_stability_shows_the_size_of_the_closed_forms():
    closed = {
        "zoh": np.exp,
        "bilinear": lambda z: (1 + z / 2) / (1 - z / 2),
        "forward-euler": lambda z: 1 + z,
        "backward-euler": lambda z: 1 / (1 - z),
    }
    fig = figures.stability({name: {"method": name} for name in closed}, reach=3.0, points=20)
    side = np.linspace(-3, 3, 20)
    z = side[None] + 1j * side[:, None]  # real part along the columns
    for ax, rule in zip(fig.axes, closed.values(), strict=False):
        np.testing.assert_allclose(ax.images[0].get_array(), np.log10(np.maximum(abs(rule(z)), 1e-3)), atol=1e-12)


def test_stability_marks_the_modes_that_fit():
    modes = 0.1 * ssm.hippo.lin(64).numpy()
    ax = figures.stability({"zoh": {"method": "zoh"}}, modes, reach=2.0, points=20).axes[0]
    drawn = ax.lines[-1].get_ydata()
    np.testing.assert_array_equal(drawn, modes.imag[modes.imag < 2])


def test_spectrum_has_every_eigenvalue_on_the_plane():
    named = {"real": np.array([-1.0, -2.0, -3.0]), "lin": ssm.hippo.lin(16).numpy()}
    plane, by_frequency = figures.spectrum(named).axes
    for line, values in zip(plane.lines, named.values(), strict=True):
        np.testing.assert_array_equal(line.get_xdata() + 1j * line.get_ydata(), values)
    assert len(by_frequency.lines) == 1  # a real spectrum has no frequencies


def test_by_method_averages_the_seeds_of_each_rule():
    rules = [{"method": "bilinear"}, {}, {"method": "gbt", "alpha": 0.75}]
    rows = [{"model": "s4d", "model_options": rule, "test_accuracy": 0.5 + 0.1 * i + 0.01 * s, "status": "done"}
            for i, rule in enumerate(rules) for s in range(3)]  # fmt: skip
    ax = figures.by_method(pd.DataFrame([*rows, rows[0] | {"status": "failed", "test_accuracy": np.nan}])).axes[0]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["bilinear", "zoh", "gbt 0.75"]
    means = [line.get_xdata().item() for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(means, [51, 61, 71])
    points = [line.get_xdata() for line in ax.lines if line.get_marker() == "|" and len(line.get_xdata()) == 3]
    np.testing.assert_allclose(points[:3], [[50, 51, 52], [60, 61, 62], [70, 71, 72]])
    (name,) = figures.by_method(pd.DataFrame([rows[3] | {"model": "s4"}])).axes[0].get_yticklabels()
    assert name.get_text() == "bilinear"


def test_a_layers_own_rule_is_the_layers_default():
    layers = {"s4d": ssm.S4D, "s4": ssm.S4}
    assert {name: layer(2, 2).method for name, layer in layers.items()} == figures.DEFAULT_METHOD


def test_a_bench_is_drawn_against_length_where_it_has_lengths():
    rows = [
        {"kind": "s4d-kernel", "length": length, "ours_ms": 0.01 * length, "peak_mb": memory}
        for length, memory in ((4096, 8.0), (1024, 0))  # no memory taken
    ]
    rows += [{"kind": "full-kernel", "length": 1024, "ours_ms": 30.0}, {"name": "CNN8 epoch", "ours_ms": 5.0}]
    time, memory, network = figures.by_length(rows).axes
    assert [line.get_label() for line in time.lines] == ["S4D", "full table"]
    np.testing.assert_allclose(time.lines[0].get_xydata(), [[1024, 10.24], [4096, 40.96]])
    np.testing.assert_allclose(memory.lines[0].get_xydata(), [[4096, 8.0]])
    assert not network.lines
