import torch

torch.set_num_threads(
    1
)  # the tests' tensors are tiny: a second thread would only wait, and on a busy machine wait long
