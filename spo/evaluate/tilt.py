"""The tilted family of a tabular policy, exactly: pi_beta over K actions per context, its KL, and beta for a KL.

    f'(pi_b / pi_ref) = (zeta/b) f'(pi / pi_ref) + lambda_b(x), lambda_b(x) such that pi_b sums to 1          (MATH C1)
    log pi_b(k | x) = (1 - zeta/b) log pi_ref(k | x) + (zeta/b) log pi(k | x) - log Z_b(x)       (KL; MATH C1, C10)

It maximises zeta E_p[f'(pi/pi_ref)] - b D_f(p || pi_ref) over p. Where the divergence clamps log-ratios, f'(pi/pi_ref)
is the clamped index term that was trained.

Shapes: R replicate axes, n contexts, K actions; log_pi and log_ref are normalised log-probabilities (*R, n, K).
beta and orientation zeta: scalars or (*R,); beta = inf is the reference, beta = 1 with zeta = 1 the policy.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from spo.divergence.base import Divergence
from spo.errors import ConfigError

_ROOT_STEPS = 100  # of the normaliser's root, at most: 8 are usual, chi-square of many or sharp actions takes 20 to 60
_ROUNDING = 8  # eps: a log-mass nearer to 0 is 0


def require_power_tilt(divergence: Divergence) -> None:
    """Raises ConfigError where the tilt of this divergence is not the power tilt: KL's is never used in its place."""
    if not divergence.tilts_by_power:
        raise ConfigError(
            f"evaluate=tilt is not available for the divergence {type(divergence).__name__}: its tilted policy is no "
            "power of pi/pi_ref, and its normaliser needs every response of a prompt. Give evaluate=none, or "
            "divergence=kl"
        )


def tabular_tilt(
    divergence: Divergence, log_pi: Tensor, log_ref: Tensor, beta: Tensor | float, orientation: Tensor | int = 1
) -> Tensor:
    """log pi_b (*R, n, K); -inf where the divergence gives an action probability 0."""
    power = torch.as_tensor(orientation, dtype=log_pi.dtype, device=log_pi.device) / beta
    return tilt_by(divergence, log_pi, log_ref, power)


def tilt_by(divergence: Divergence, log_pi: Tensor, log_ref: Tensor, power: Tensor) -> Tensor:
    """The tilt of power c = zeta / beta, (*R,) or scalar; for KL log (ref^(1-c) pi^c / Z)."""
    log_ratio, power = log_pi - log_ref, power[..., None, None]
    return optimal_policy(divergence, power * divergence.index_term(log_ratio), log_ref.expand_as(log_ratio))


def optimal_policy(divergence: Divergence, term: Tensor, log_ref: Tensor) -> Tensor:
    """log p with f'(p/ref) = term + lambda(x), sum_k p = 1: the maximiser of E_p[term] - D_f(p || ref) in each context.

    The unknown is q, the log-ratio of the action with the largest term: f'(p_k/ref_k) = f'(exp q) - (largest - term_k).
    At q = 0 no p_k exceeds ref_k, at q = -log ref that action alone has p = 1, and the mass rises between.
    """
    if divergence.tilts_by_power:
        return _normalised(log_ref + term)
    largest, which = term.max(-1, keepdim=True)
    behind = largest - term

    def log_ratio(q: Tensor) -> Tensor:
        return divergence.inverse_index_term(divergence.index_term(q) - behind)

    def log_mass(q: Tensor) -> Tensor:
        return (log_ref + log_ratio(q)).logsumexp(-1, keepdim=True)

    high = -log_ref.gather(-1, which)
    q = _root(log_mass, torch.zeros_like(high), high)
    return _normalised(log_ref + log_ratio(q))


def _normalised(logits: Tensor) -> Tensor:
    """log_softmax over the last axis: torch's own takes three times as long over a few actions."""
    return logits - logits.logsumexp(-1, keepdim=True)


def _root(function: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """Where a rising function is 0, entry by entry; function(low) <= 0 <= function(high).

    Regula falsi of Anderson and Bjoerck (1973): where an end stays for a second time, its value is lowered by the share
    other end's fell by (halved where that is none). An entry that is found stays, so that its root does not depend on
    how long the others take.
    """
    at_low, at_high = function(low), function(high)
    stayed = torch.zeros_like(low)  # -1: the low end stayed in the last step, 1: the high end
    root, found, number = high, torch.zeros_like(low, dtype=torch.bool), torch.finfo(low.dtype)
    for _ in range(_ROOT_STEPS):
        x = high - (high - low) * at_high / (at_high - at_low).clamp_min(number.tiny)
        x = torch.clamp(x, low, high)  # rounding of a root at an end
        at_x = function(x)
        root, found = torch.where(found, root, x), found | (at_x.abs() <= _ROUNDING * number.eps)
        if bool(found.all()):
            break
        above = at_x >= 0
        share = 1 - at_x / torch.where(above, at_high, at_low)
        share = torch.where(share > 0, share, 0.5)
        at_low = torch.where(above, torch.where(stayed < 0, at_low * share, at_low), at_x)
        at_high = torch.where(above, at_x, torch.where(stayed > 0, at_high * share, at_high))
        low, high = torch.where(above, low, x), torch.where(above, x, high)
        stayed = torch.where(above, -1.0, 1.0).to(low.dtype)
    return root


def kl(log_p: Tensor, log_ref: Tensor) -> Tensor:
    """Mean over contexts of sum_k p (log p - log ref): (*R, n, K) -> (*R,), nats."""
    p = log_p.exp()
    return (p * torch.where(p > 0, log_p - log_ref, 0.0)).sum(-1).mean(-1)


def budget(divergence: Divergence, log_p: Tensor, log_ref: Tensor) -> Tensor:
    """Mean over contexts of D_f(p || ref) = sum_k ref f(p/ref): (*R, n, K) -> (*R,); for KL this is `kl`."""
    return (log_ref.exp() * divergence.f((log_p - log_ref).exp())).sum(-1).mean(-1)


def mean_value(log_p: Tensor, value: Tensor) -> Tensor:
    """Mean over contexts of sum_k p(k | x) value(x, k): the exact expected reward, (*R,)."""
    return (log_p.exp() * value).sum(-1).mean(-1)


def beta_for_kl(
    divergence: Divergence,
    log_pi: Tensor,
    log_ref: Tensor,
    kappa: Tensor | float,
    orientation: Tensor | int = 1,
    *,
    steps: int = 100,
) -> Tensor:
    """The beta at which KL(pi_b || ref) = kappa nats, per replicate: (*R,).

    kappa: nats, one number or (*R,); inf where it is 0, nan where it is nan. Whatever the divergence, KL rises with
    c = 1/beta: dKL/dc is a covariance, under weights ref / f''(pi_b/ref), of f'(pi/ref) with log pi_b/ref, which rises
    in it. nan where even the sharpest tilt (1/beta = 2^40) has a smaller KL: the policy equals the reference, or its
    best actions are not rarer than e^-kappa.
    Cost: 5 to 8 tilts where the tilt is a power, by Newton's steps; else `steps` (at most), by bisection.
    """
    zeta = torch.as_tensor(orientation, dtype=log_pi.dtype, device=log_pi.device)
    log_ratio, log_ref = zeta[..., None, None] * (log_pi - log_ref), log_ref.expand_as(log_pi)
    kappa = torch.as_tensor(kappa, dtype=log_pi.dtype, device=log_pi.device).expand(log_pi.shape[:-2])

    def at(log_power: Tensor) -> tuple[Tensor, Tensor | None]:
        power = torch.exp(log_power)
        if divergence.tilts_by_power:
            return _power_tilt_kl(log_ratio, log_ref, power)
        return kl(tilt_by(divergence, log_pi, log_ref, zeta * power), log_ref), None

    high = torch.full_like(kappa, _SHARPEST)
    reached = at(high)[0] >= kappa
    log_power = _increasing_root(at, kappa, high, steps, ~reached)
    return torch.where(kappa <= 0, torch.inf, torch.where(reached, torch.exp(-log_power), torch.nan))


_SHARPEST = 40 * math.log(2)  # log of the largest 1/beta
_NEARLY_FLAT = -8 * math.log(2)  # where the search begins: there KL ~ c^2, so that the first step goes far
_CLOSE, _ROUNDED = 1e-11, 1e-14  # KL is found where it is kappa (1 ± _CLOSE) ± _ROUNDED nats


def _increasing_root(
    at: Callable[[Tensor], tuple[Tensor, Tensor | None]], kappa: Tensor, high: Tensor, steps: int, found: Tensor
) -> Tensor:
    """x in [-high, high] with KL(x) = kappa, entry by entry; at: x -> KL and dKL/dx, None where it is not known.
    found: bool, entries that are not looked for.

    Newton's steps for log KL, in which it is nearly a line (KL ~ c^2 for small c), inside a bracket that every step
    narrows; its middle where a step leaves it, or where there is no slope. An entry that is found stays.
    """
    low, x = -high, torch.full_like(high, _NEARLY_FLAT)
    for _ in range(steps):
        value, slope = at(x)
        found = found | ((value - kappa).abs() <= _CLOSE * kappa + _ROUNDED)
        if bool(found.all()):
            break
        above = value >= kappa
        low, high = torch.where(above, low, x), torch.where(above, x, high)
        middle = (low + high) / 2
        step = middle if slope is None else x - (value / kappa).log() * value / slope
        inside = (low < step) & (step < high)  # False of nan too
        x = torch.where(found, x, torch.where(inside, step, middle))
    return x


def _power_tilt_kl(log_ratio: Tensor, log_ref: Tensor, power: Tensor) -> tuple[Tensor, Tensor]:
    """KL(p || ref) of p ~ ref exp(c a), a = log_ratio, and c dKL/dc = c^2 E_x Var_p(a): both (*R,)."""
    c = power[..., None, None]
    logits = log_ref + c * log_ratio
    below = logits - logits.amax(-1, keepdim=True)  # not c a itself, which is huge where c is
    mass = below.exp()
    total = mass.sum(-1)
    value = (mass * (below - log_ref)).sum(-1) / total - total.log()
    mass = mass * log_ratio
    mean, square = mass.sum(-1) / total, (mass * log_ratio).sum(-1) / total
    return value.mean(-1), (power.square() * (square - mean.square()).mean(-1))
