"""HiPPO-LegS and the diagonal state matrices derived from it.

    A[n, k] = -sqrt(2n+1) sqrt(2k+1)  (n > k),   -(n+1)  (n = k),   0  (n < k);      B[n] = sqrt(2n+1)
    A = -1/2 I + S - P P^T,   P[n] = sqrt(n + 1/2),   S skew-symmetric
      = V (diag(Lambda) - (V^H P)(V^H P)^H) V^H,   V unitary,   Re Lambda = -1/2

The state of x' = A x + B u then holds the coefficients of the input's history in Legendre polynomials.
Sources: Gu et al. 2020 (HiPPO), Gu, Goel and Re 2022 (S4), Gu et al. 2022 (S4D).
"""

import math

import torch
from torch import Tensor

from saidl.checks import whole


def hippo_legs(n: int) -> tuple[Tensor, Tensor]:
    """HiPPO-LegS of `n` >= 1 states: A (n, n) and B (n,), float64. Raises ValueError for another n.

    >>> hippo_legs(2)[0]
    tensor([[-1.0000,  0.0000],
            [-1.7321, -2.0000]], dtype=torch.float64)
    """
    whole("n", n, 1)
    B = torch.arange(n, dtype=torch.float64).mul(2).add(1).sqrt()
    A = torch.tril(-torch.outer(B, B), diagonal=-1) - torch.diag(torch.arange(1, n + 1, dtype=torch.float64))
    return A, B


def normal_plus_low_rank(n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Lambda (n/2,), P (n/2,), B (n/2,), V (n, n/2), complex128: one of each conjugate pair, Im Lambda > 0, `n` even.

    With the conjugates put back, A = V (diag(Lambda) - P P^H) V^H and B_legs = V B.
    """
    half = pairs(n, "n")
    A, B = hippo_legs(n)
    P = torch.arange(n, dtype=torch.float64).add(0.5).sqrt()
    S = A + torch.outer(P, P) + 0.5 * torch.eye(n, dtype=torch.float64)
    # -iS is Hermitian: eigh gives real frequencies and a unitary V, where eig on S would give neither exactly
    frequency, V = torch.linalg.eigh(-1j * S)
    frequency, V = frequency[half:], V[:, half:]
    return torch.complex(torch.full_like(frequency, -0.5), frequency), V.mH @ P.to(V), V.mH @ B.to(V), V


def legs(n: int) -> Tensor:
    """S4D-LegS: Lambda of the normal part, (n/2,) complex128."""
    return normal_plus_low_rank(n)[0]


def lin(n: int) -> Tensor:
    """S4D-Lin: -1/2 + i pi k, (n/2,) complex128."""
    k = torch.arange(pairs(n, "n"), dtype=torch.float64)
    return torch.complex(torch.full_like(k, -0.5), math.pi * k)


def inv(n: int) -> Tensor:
    """S4D-Inv: -1/2 + i (n/pi) (n/(2k+1) - 1), (n/2,) complex128."""
    k = torch.arange(pairs(n, "n"), dtype=torch.float64)
    return torch.complex(torch.full_like(k, -0.5), n / math.pi * (n / (2 * k + 1) - 1))


def real(n: int) -> Tensor:
    """S4D-Real: -(k+1), (n/2,) complex128 with no oscillation: what the imaginary part is worth."""
    k = torch.arange(pairs(n, "n"), dtype=torch.float64)
    return torch.complex(-(k + 1), torch.zeros_like(k))


INITS = {"legs": legs, "lin": lin, "inv": inv, "real": real}


def pairs(n: int, name: str = "d_state") -> int:
    whole(name, n, 2)
    if n % 2:
        raise ValueError(f"{name} must be even (conjugate pairs), got {n}")
    return n // 2
