"""Sequence log-probability: the only log-softmax over response tokens in the project.

Shapes: N sequences, T tokens, D hidden size, V vocabulary, M response tokens of the whole batch.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def sequence_log_prob(
    hidden_NTD: Tensor,
    weight_VD: Tensor,
    target_NT: Tensor,
    mask_NT: Tensor,
    *,
    places_NT: Tensor | None = None,
    bias_V: Tensor | None = None,
    chunk: int = 1024,
) -> Tensor:
    """log pi(y|x) = sum over response tokens k of log softmax(W h_{k-1} + b)[y_k], in nats.

    hidden_NTD: last hidden states; weight_VD, bias_V: the LM head; target_NT: int64 token ids;
    mask_NT: True where token k is a response token (a target). Position 0 has no predecessor and is refused.
    places_NT: where the hidden state of each token lies among all of `hidden`, whose leading axes are then free; None:
    in its own place.
    chunk: response tokens whose logits exist at one time; memory is chunk x V, not N x T x V.
    Returns float32 (N,), whatever the dtype of the model; a row without response tokens gives 0.
    """
    if bool(mask_NT[:, 0].any()):
        raise ValueError("mask_NT marks token 0 as a response token, but nothing predicts it")
    row, position = mask_NT.nonzero(as_tuple=True)
    before = position - 1  # the state that predicts a token
    places_M = row * mask_NT.shape[1] + before if places_NT is None else places_NT[row, before]
    hidden_MD = hidden_NTD.flatten(0, -2)[places_M]
    target_M = target_NT[row, position]
    token_M: Tensor = _TokenLogProb.apply(hidden_MD, weight_VD, bias_V, target_M, chunk)  # type: ignore[no-untyped-call]
    total_N = torch.zeros(mask_NT.shape[0], dtype=torch.float32, device=hidden_NTD.device)
    return total_N.index_add(0, row, token_M)


class _TokenLogProb(torch.autograd.Function):
    """log softmax(W h + b)[y] for M tokens, in chunks, so that no more than chunk x V logits exist.

    With a frozen head (LoRA) the gradient in h is W[y] - softmax(logits) W, known up to a factor per token
    already in the forward pass: it is computed there and the logits are never needed again. With a trainable
    head, backward computes each chunk's logits a second time.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_MD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, target_M: Tensor, chunk: int
    ) -> Tensor:
        head_needs_grad = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        early = ctx.needs_input_grad[0] and not head_needs_grad
        token_M = torch.empty(len(target_M), dtype=torch.float32, device=hidden_MD.device)
        grad_MD = torch.empty_like(hidden_MD) if early else None
        for part in _chunks(len(target_M), chunk):
            logits = _logits(hidden_MD[part], weight_VD, bias_V)
            log_norm = logits.logsumexp(-1)
            token_M[part] = logits.gather(-1, target_M[part, None]).squeeze(-1) - log_norm
            if grad_MD is not None:
                probs = logits.sub_(log_norm[:, None]).exp_().to(weight_VD.dtype)
                grad_MD[part] = weight_VD[target_M[part]] - probs @ weight_VD
        ctx.chunk = chunk
        ctx.early = early
        if early:
            ctx.save_for_backward(grad_MD)
        else:
            ctx.save_for_backward(hidden_MD, weight_VD, bias_V, target_M)
        return token_M

    @staticmethod
    def backward(ctx: Any, grad_token_M: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.early:
            (grad_MD,) = ctx.saved_tensors
            return (grad_token_M[:, None] * grad_MD).to(grad_MD.dtype), None, None, None, None
        hidden_MD, weight_VD, bias_V, target_M = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden_MD)
        grad_weight = torch.zeros_like(weight_VD, dtype=torch.float32)
        grad_bias = None if bias_V is None else torch.zeros_like(bias_V, dtype=torch.float32)
        for part in _chunks(len(target_M), ctx.chunk):
            # d token / d logits = onehot(y) - softmax(logits)
            grad_logits = -_logits(hidden_MD[part], weight_VD, bias_V).softmax(-1)
            grad_logits.scatter_add_(-1, target_M[part, None], torch.ones_like(grad_logits[:, :1]))
            grad_logits *= grad_token_M[part, None]
            if grad_bias is not None:
                grad_bias += grad_logits.sum(0)
            grad_logits = grad_logits.to(weight_VD.dtype)
            grad_hidden[part] = grad_logits @ weight_VD
            grad_weight += grad_logits.T @ hidden_MD[part]
        return (
            grad_hidden,
            grad_weight.to(weight_VD.dtype),
            None if grad_bias is None or bias_V is None else grad_bias.to(bias_V.dtype),
            None,
            None,
        )


def _chunks(total: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, total, size))


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """float32 logits, whatever the dtype of the model."""
    logits = (hidden @ weight.T).float()
    return logits if bias is None else logits + bias.float()
