"""HiPPO-LegS and what is derived from it, against the definition and against each other."""

import math

import pytest
import torch

from saidl import ssm


@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_legs_is_its_definition_entry_by_entry(n):
    A, B = ssm.hippo_legs(n)
    for i in range(n):
        assert B[i] == pytest.approx(math.sqrt(2 * i + 1))
        for k in range(n):
            below = -math.sqrt(2 * i + 1) * math.sqrt(2 * k + 1)
            assert A[i, k] == pytest.approx(below if i > k else -(i + 1) if i == k else 0)
    assert A.dtype == B.dtype == torch.float64


def test_legs_state_holds_the_legendre_coefficients_of_the_past():
    """t c' = A c + B f for f(s) = s, which on [0, t] is t/2 + t/(2 sqrt 3) times the first Legendre polynomial."""
    A, B = ssm.hippo_legs(6)
    c = torch.tensor([0.5, 0.5 / math.sqrt(3), 0, 0, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(A @ c + B, c)  # c(t) = t c, so t c = A t c + B t


@pytest.mark.parametrize("n", [2, 8, 64])
def test_normal_plus_low_rank_puts_legs_together_again(n):
    A, B = ssm.hippo_legs(n)
    Lambda, P, Bv, V = ssm.normal_plus_low_rank(n)
    both = lambda x: torch.cat([x, x.conj()], -1)  # noqa: E731
    Lambda, P, Bv, V = both(Lambda), both(P), both(Bv), both(V)
    torch.testing.assert_close(V.mH @ V, torch.eye(n, dtype=V.dtype))
    torch.testing.assert_close(
        V @ (torch.diag(Lambda) - torch.outer(P, P.conj())) @ V.mH, A.to(V), rtol=1e-10, atol=1e-9
    )
    torch.testing.assert_close(V @ Bv, B.to(V))
    assert (Lambda.real == -0.5).all()


@pytest.mark.parametrize("name", ssm.INITS)
def test_inits_are_stable_pairs(name):
    A = ssm.INITS[name](16)
    assert A.shape == (8,)
    assert A.dtype == torch.complex128
    assert (A.real < 0).all()
    assert (A.imag >= 0).all()


def test_inits_follow_the_paper():
    torch.testing.assert_close(ssm.INITS["lin"](6).imag, math.pi * torch.arange(3, dtype=torch.float64))
    inv = ssm.INITS["inv"](6)
    assert inv[1].imag == pytest.approx(6 / math.pi * (6 / 3 - 1))
    torch.testing.assert_close(ssm.INITS["real"](6).real, -torch.arange(1, 4, dtype=torch.float64))
    # "Inv" approximates the spectrum of LegS (S4D, figure 2): the largest frequencies agree to a few per cent
    legs = ssm.INITS["legs"](64).imag.max()
    assert ssm.INITS["inv"](64).imag.max() == pytest.approx(legs.item(), rel=0.1)


@pytest.mark.parametrize("n", [0, -2, 2.5, 2.0, math.nan, True])
def test_bad_size(n):
    with pytest.raises(ValueError, match=f"n must be .*{n}"):
        ssm.hippo_legs(n)


@pytest.mark.parametrize("n", [0, 1, 7, 4.0, math.nan])
def test_pairs_need_an_even_state(n):
    with pytest.raises(ValueError, match=f"n must be (even|a whole number).*{n}"):
        ssm.normal_plus_low_rank(n)
    for init in ssm.INITS.values():
        with pytest.raises(ValueError, match="n must be"):
            init(n)
