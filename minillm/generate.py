"""Generation, under its public name: see generation/."""
from .generation.decode import Context, Step, generate, steps, stream
from .generation.text import TextStream

__all__ = ["Context", "Step", "TextStream", "generate", "steps", "stream"]
