import pytest
import torch

torch.set_num_threads(
    1
)  # the tests' tensors are tiny: a second thread would only wait, and on a busy machine wait long


@pytest.fixture(autouse=True)
def seeded():
    """A test draws the same numbers whichever ran before it."""
    torch.manual_seed(0)
