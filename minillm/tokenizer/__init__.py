"""Text to token ids and back: byte-level byte-pair encoding, trained and applied in readable Python."""
from .bpe import Tokenizer

__all__ = ["Tokenizer"]
