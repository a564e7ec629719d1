"""The GPU's benchmark on the CPU, small: its rows are made, and the layer it compares with is the same layer."""

import torch

from saidl import ssm
from tests.benchmarks import bench_gpu, harness


def test_rows_are_made():
    rate = bench_gpu.matrix_rate("cpu", 64)
    rows = [
        rate,
        *bench_gpu.image_rows("cpu", rate, 128, repeats=1),
        *bench_gpu.sequence_rows("cpu", rate, 8, 64, {"d_model": 8, "n_layers": 1, "dropout": 0.1}, repeats=1),
    ]
    assert all(row["ours_ms"] > 0 for row in rows)
    assert "images/s" in harness.table([rows[1]])
    assert "of the matrix rate" in harness.table([rows[1]])
    assert "steps/s" in harness.table([rows[3]])


def test_flops_are_those_of_the_convolutions():
    """3 x 3 convolutions of a x b channels at H x W: 2 * 9 a b H W, three times with the backward pass, less the first's input."""
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 4, 3, padding=1))
    first, second = 2 * 9 * 3 * 8 * 256, 2 * 9 * 8 * 4 * 256
    assert bench_gpu.flops(net, torch.zeros(1, 3, 16, 16)) == 2 * first + 3 * second


def test_the_reference_layer_is_the_layer():
    torch.manual_seed(0)
    layer = ssm.S4D(8, 16, init="lin")
    other = bench_gpu.ReferenceS4D(8, 16, init="lin")
    other.load_state_dict(layer.state_dict())
    u = torch.randn(2, 50, 8)
    torch.testing.assert_close(layer(u), other(u), rtol=1e-4, atol=1e-4)
