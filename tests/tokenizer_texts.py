"""Texts that tokenizers are tested on, and strategies that draw more of them."""
import pydoc_data.topics

import pytest
from hypothesis import settings
from hypothesis import strategies as st

from minillm.tokenizer import fast

core = fast.load_extension()
needs_core = pytest.mark.skipif(core is None, reason="the C++ tokenizer is not built")
BUILT_IN = ("gpt2", "cl100k", "o200k", "llama3", "qwen2", "qwen3.5", "smollm", "deepseek")
SPECIALS = ["<|endoftext|>", "<|user|>", "<|user|><|again|>"]
MIXED = ("Don't they've 'll I'D  end.\n\n\tdef f(x):\r\n    return x**2 + 12345.678\n  \n"
         "naïve café Ünïcödé 中文，没有空格。日本語テキスト русский текст עברית हिन्दी 😀👩‍👩‍👧 "
         "\u3000 \x85 \x1c 'ſ a\u0301 ")
ENGLISH = "\n".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics))[:300_000]

# Letters, blanks and apostrophes that patterns care about, then any character that has been in Unicode for long.
fussy = st.sampled_from(list("aBstl'12 .,-\n\r\t\u3000\u00e9中ſ😀") + ["'s", "'LL", "  ", "\n\n", "the", " of", "123"])
characters = st.characters(exclude_categories=("Cs", "Cn", "Co"))
texts = st.lists(fussy | characters, max_size=30).map("".join)
seldom = settings(derandomize=True, deadline=None, max_examples=60)
often = settings(derandomize=True, deadline=None, max_examples=200)
awkward = st.sampled_from(["'s", "'S", "'ſ", "'ll", "'Re", "\u0301", "ǅ", "ʰ", "\u00a0", "\u3000", "\u2028",
                           "\r", "\n", " ", "  ",
                           "/", "A", "bc", "1234", "٣", "中", "É", "é", "😀", "<|", "\x1c", "\x85"])
fussy_texts = st.lists(fussy | awkward | characters, max_size=40).map("".join)
blanks = st.sampled_from(["\u2581", " ", "the", " cat", "<s>", "</s>", "<unk>", "<extra>", "<sep>", "mat", "ab", "é",
                          "日", "🙂", "<0x0A>"])
blank_texts = st.lists(blanks | fussy_texts, max_size=12).map("".join)       # for vocabularies of SentencePiece's kind
