"""As scalar.pyi, compiled for another instruction set."""
from .scalar import *
