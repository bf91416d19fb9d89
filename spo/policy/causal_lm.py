"""A Hugging Face causal language model: LoRA adapters on frozen weights, or every weight trained.

Shapes: B rows, T tokens, N = 2B sequences, D hidden size, V vocabulary.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from spo.errors import ConfigError
from spo.hashing import digest
from spo.logprob import sequence_log_prob
from spo.policy.base import Policy
from spo.policy.loading import decoder_blocks, load_transformer, with_adapters
from spo.policy.lora import LoRA
from spo.policy.packing import Packing, pack
from spo.policy.trials import check_head, try_packing
from spo.policy.weights import locate
from spo.types import ActionPairs, TokenPairs

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ATTENTION = ("sdpa", "eager", "flash_attention_2")
PACKING = ("auto", "never")


class CausalLM(Policy):
    """log pi(y | x) = sum over the tokens of y, end of turn included, of log softmax(head(hidden)).

    path: see spo.policy.weights. dtype: of the model's weights (adapters stay float32). attn_implementation:
    sdpa | eager | flash_attention_2. lora: the adapters, None to train every weight (Adam then keeps 12 bytes a
    weight beside its 4). head_chunk: response tokens whose logits exist at one time. gradient_checkpointing:
    recompute activations in the backward pass, for memory. packing: auto runs a batch without padding and what the
    two sides of a pair share once (spo.policy.packing), where the attention is sdpa, the model passes a trial and it
    saves a tenth of the tokens; never runs padded rows. compile: torch.compile each decoder block, shapes dynamic.
    seed: of the adapters' initial weights. Code that comes with a model is never run (trust_remote_code off). Dropout
    of the base model is set to 0; the adapters' own is `lora.dropout`.
    """

    starts_at_reference = True

    def __init__(
        self,
        *,
        path: str,
        dtype: str,
        attn_implementation: str,
        lora: LoRA | None,
        head_chunk: int,
        gradient_checkpointing: bool,
        packing: str,
        compile: bool,
        seed: int,
    ) -> None:
        super().__init__()
        if dtype not in DTYPES:
            raise ConfigError(f"dtype is {dtype}: give one of {', '.join(DTYPES)}")
        if attn_implementation not in ATTENTION:
            raise ConfigError(f"attn_implementation is {attn_implementation}: give one of {', '.join(ATTENTION)}")
        if packing not in PACKING:
            raise ConfigError(f"packing is {packing}: give one of {', '.join(PACKING)}")
        if head_chunk < 1:
            raise ConfigError(f"head_chunk is {head_chunk}: give a number of tokens >= 1")
        self.source = locate(path)
        self.dtype = DTYPES[dtype]
        self.attn_implementation = attn_implementation
        self.lora = lora
        self.head_chunk = head_chunk
        self.gradient_checkpointing = gradient_checkpointing
        self.packing = packing
        self.compile_blocks = compile
        self.packs = False  # True where the built model may run packed
        self.seed = seed
        self.model: nn.Module | None = None  # the transformers model, in peft's where there are adapters; set by build

    @cached_property
    def tokenizer(self) -> Any:
        """The transformers tokenizer; loads no weights (a GGUF file is converted first, once)."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.source.folder())

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end a response: the tokenizer's eos and those of the model's generation config."""
        from transformers import GenerationConfig

        ids = [self.tokenizer.eos_token_id]
        folder = self.source.folder()
        if (folder / "generation_config.json").is_file():
            more = GenerationConfig.from_pretrained(folder).eos_token_id
            ids += more if isinstance(more, list) else [more]
        return frozenset(i for i in ids if i is not None)

    @cached_property
    def context_length(self) -> int | None:
        """Tokens that the model was made for, prompt and response together; None where its config names no limit."""
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(self.source.folder()).get_text_config()
        return getattr(config, "max_position_embeddings", None)

    def meet(self, data: Any) -> None:
        """ConfigError where a row is longer than the context: of learned positions there are no more, and with rotary
        ones the model was never trained there. Of a stream it is asked about what has been read."""
        context, longest = self.context_length, data.report.length_max
        if context is not None and longest > context:
            raise ConfigError(
                f"the longest row has {longest} tokens, and the model's context {context}: give data.max_length="
                f"{context} or less (data.truncation says what becomes of longer rows), or a model with a longer one"
            )

    def fingerprint(self) -> str:
        return digest([self.source.fingerprint(), str(self.dtype)])

    def check_training(self, precision: str) -> None:
        if self.lora is not None:
            return
        for key, value, low in (("policy.dtype", self.dtype, torch.bfloat16), ("precision", precision, "bf16-true")):
            if value == low:
                raise ConfigError(
                    f"{key} is {str(value).removeprefix('torch.')} and every weight is trained: steps smaller than "
                    "bfloat16's rounding, 0.4% of a weight, would be lost. Give policy.dtype=float32 with "
                    "hardware.precision=bf16-mixed, or adapters"
                )

    def build(self) -> None:
        if self.model is not None:
            return
        model = self._load()
        if self.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            if self.lora is not None:  # frozen embeddings: the first block's input must carry a gradient all the same
                model.enable_input_require_grads()
        self.model = model if self.lora is None else with_adapters(model, self.lora, self.seed)
        self.model.train()
        check_head(self)
        if self.packing == "auto" and self.attn_implementation == "sdpa":
            self.packs = try_packing(self)
            if not self.packs:
                print(f"{self.source.given}: its attention cannot be packed; rows are padded", file=sys.stderr)
        if self.compile_blocks:
            for block in decoder_blocks(self.transformer):
                block.compile(dynamic=True)

    def _load(self) -> Any:
        return load_transformer(self.source.folder(), dtype=self.dtype, attn_implementation=self.attn_implementation)

    def bare(self, **changed: Any) -> "CausalLM":
        """The model that this policy starts from, without adapters, not built. changed: arguments of its own."""
        names = {value: name for name, value in DTYPES.items()}
        options: dict[str, Any] = {
            "path": self.source.given,
            "dtype": names[self.dtype],
            "attn_implementation": self.attn_implementation,
            "lora": None,
            "head_chunk": self.head_chunk,
            "gradient_checkpointing": False,
            "packing": self.packing,
            "compile": self.compile_blocks,
            "seed": self.seed,
        }
        return CausalLM(**{**options, **changed})

    def shard(self, mesh: DeviceMesh) -> None:
        """Each decoder block is a unit; embeddings, last norm and head are the root's, unsharded inside `forward`."""
        for block in decoder_blocks(self.transformer):
            fully_shard(block, mesh=mesh)
        # The default leaves the root whole after a forward pass without a backward one, and its weights in a checkpoint
        # would not be the optimizer's: after a validation, for example.
        fully_shard(self, mesh=mesh, reshard_after_forward=True)

    @property
    def network(self) -> Any:
        """The built model: peft's where there are adapters, else transformers' own."""
        if self.model is None:
            raise RuntimeError("CausalLM.build() has not been called")
        return self.model

    @property
    def transformer(self) -> Any:
        """The transformers model, adapters inside: `.base_model` is its decoder."""
        return self.network if self.lora is None else self.network.get_base_model()

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def head(self) -> tuple[Tensor, Tensor | None]:
        """The LM head's weight (V, D) and bias (V,) or None."""
        head = self.transformer.get_output_embeddings()
        return head.weight, getattr(head, "bias", None)

    def hidden(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Last hidden states (N, T, D) of sequences padded on either side; positions count real tokens."""
        decoded = self.transformer.base_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=positions(attention_mask),
            use_cache=False,
        )
        hidden: Tensor = decoded.last_hidden_state
        return hidden

    def hidden_packed(self, packed: Packing) -> Tensor:
        """Last hidden states (1, P, D) of a packed batch."""
        decoded = self.transformer.base_model(
            input_ids=packed.input_ids,
            attention_mask=packed.input_ids.new_zeros(1, 1, 1, 1),  # four axes: made already, by `packed_attention`
            position_ids=packed.positions,
            use_cache=False,
            packing=packed,
        )
        hidden: Tensor = decoded.last_hidden_state
        return hidden

    def log_prob(self, pair: TokenPairs | ActionPairs) -> Tensor:
        if not isinstance(pair, TokenPairs):
            raise TypeError("a CausalLM scores TokenPairs")
        ids, mask = pair.input_ids.flatten(0, 1), pair.attention_mask.flatten(0, 1)
        packed = pack(pair.input_ids, pair.attention_mask) if self.packs else None
        hidden = self.hidden(ids, mask) if packed is None else self.hidden_packed(packed)
        if torch.is_grad_enabled():
            self.tokens_computed += hidden.shape[0] * hidden.shape[1]
        weight, bias = self.head()
        total = sequence_log_prob(
            hidden,
            weight,
            ids,
            pair.response_mask.flatten(0, 1),
            places_NT=None if packed is None else packed.places,
            bias_V=bias,
            chunk=self.head_chunk,
        )
        return torch.stack((total[0::2], total[1::2]), -1)  # no view: FSDP2 hooks on to what a forward returns

    @torch.no_grad()
    def reference_log_prob(self, pair: TokenPairs | ActionPairs) -> Tensor:
        with self.as_reference():
            total: Tensor = self(pair)  # through `forward`, so that a sharded model is whole inside
            return total

    @property
    def has_adapter_reference(self) -> bool:
        return self.lora is not None

    @contextmanager
    def as_reference(self) -> Iterator[None]:
        """The model that the policy started from, inside this context.

        With adapters at the price of one attribute a layer: peft's own disable_adapter also flips requires_grad and
        collects a status of every layer, which costs more than a decoding step and confuses a sharded model; its
        forward asks only for this flag. Without adapters the first weights, a second copy, take the places of the
        trained ones.
        """
        if self.lora is None:
            with self._first_weights_in_place():
                yield
            return
        layers = self._adapter_layers
        for layer in layers:
            layer._disable_adapters = True
        try:
            yield
        finally:
            for layer in layers:
                layer._disable_adapters = False

    @cached_property
    def _adapter_layers(self) -> list[Any]:
        from peft.tuners.tuners_utils import BaseTunerLayer

        return [m for m in self.network.modules() if isinstance(m, BaseTunerLayer)]

    @contextmanager
    def _first_weights_in_place(self) -> Iterator[None]:
        own = dict(self.transformer.named_parameters())
        trained = {name: p.data for name, p in own.items()}
        for name, p in own.items():
            p.data = self._first_weights[name]
        try:
            yield
        finally:
            for name, p in own.items():
                p.data = trained[name]

    @cached_property
    def _first_weights(self) -> dict[str, Tensor]:
        return {name: p.detach().to(self.device) for name, p in self._load().named_parameters()}


def positions(attention_mask: Tensor) -> Tensor:
    """Position of each real token in its sequence, whatever side the padding is on; 0 on padding before it."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def pick_device(name: str) -> torch.device:
    """auto: the first GPU where there is one, else the CPU."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda, but torch sees no GPU: give device=cpu or device=auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
