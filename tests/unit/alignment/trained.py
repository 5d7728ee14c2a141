"""Tokenizers of the kinds that models have, trained on the spot on a few lines."""

from __future__ import annotations

import json
from functools import cache

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

LINES = ["the quick brown fox jumps over the lazy dog 12+34=46;46-9=37", "été naïve café 日本語 русский Ünïcödé 🎉"] * 40
END = "<end>"


@cache
def byte_level(size: int = 320, regex: bool = True) -> Tokenizer:
    """As GPT-2, Llama 3 and Qwen: merges over the 256 bytes."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    options = {"special_tokens": [END], "initial_alphabet": alphabet, "show_progress": False}
    made.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=size, **options))
    return made


@cache
def byte_fallback(size: int = 420) -> Tokenizer:
    """As Llama 2, Mistral and Gemma: characters, with a mark for spaces, and a token for each byte of any other character."""
    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    names = ["<unk>", END, *(f"<0x{byte:02X}>" for byte in range(256))]
    made.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=size, special_tokens=names, show_progress=False))
    spec = json.loads(made.to_str())
    spec["added_tokens"] = spec["added_tokens"][:2]  # the trainer adds bytes as special tokens, which no published one does
    return Tokenizer.from_str(json.dumps(spec))


@cache
def unigram(size: int = 90) -> Tokenizer:
    """As T5: no bytes, so that other characters are one unknown token."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    options = {"special_tokens": ["<unk>", END], "unk_token": "<unk>", "show_progress": False}
    made.train_from_iterator(LINES, trainers.UnigramTrainer(vocab_size=size, **options))
    return made


def normalised(made: Tokenizer, normalizer: normalizers.Normalizer) -> Tokenizer:
    """A copy that changes a text before it cuts it."""
    copy = Tokenizer.from_str(made.to_str())
    copy.normalizer = normalizer
    return copy
