"""Every plot, for notebooks and report alike: one style, one colour a name, one function a picture.

A function takes a results table (`results.load`, `sweep.run`) or plain arrays and returns a matplotlib Figure, closed
for pyplot: as a cell's last value it is shown once. What is missing or NaN is not drawn, and its legend entry says so.
Accuracies are drawn in per cent; with several seeds a point is their mean and its bar one standard deviation (n - 1).

    >>> label("nce+rce"), label("nce+nnce"), label("eps-ce+mae"), label("s4d")
    ('NCE+RCE', 'ANL-CE', 'ε-CE+MAE', 'S4D')
"""

from saidl.figures.accuracy import (
    accuracy_by_rate,
    bars,
    by_cell,
    cell_title,
    class_accuracy,
    classes_over_epochs,
    history,
    losses_of,
    memorisation,
    over_epochs,
    published,
)
from saidl.figures.asymmetry import (
    class_groups,
    continuum,
    dynamics,
    foretold,
    likelihoods,
    matched,
    past_the_bound,
    rank_intervals,
)
from saidl.figures.drawing import STYLE, figure, legend, look, panels, save, style
from saidl.figures.labels import confusion, image_grid, matrices, transition
from saidl.figures.robustness import label_sums, loss_curves, loss_gradients, pull, risk_bound, risks
from saidl.figures.sequences import (
    METHOD_COLOURS,
    by_length,
    by_method,
    by_model,
    curves,
    growth,
    learning,
    minutes,
    spectrum,
    stability,
)
from saidl.names import COLOURS, DEFAULT_METHOD, in_order, label, rule_name
