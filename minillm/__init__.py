"""minillm: a GPT from text to tokens, with every derivative written out."""
__version__ = "0.1.0"
