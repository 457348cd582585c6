"""What is fuzzed, by name.

A target is a function of an empty folder that makes what it needs and returns a function of a random.Random: this draws
a case, (bytes of the input, a function that runs it). `errors` are those that the documentation names for bad input;
the runner (__main__.py) says what else is a fault. An answer that differs from its twin's is an AssertionError.
"""


class Missing(Exception):
    """Something that a target needs is not here."""


def target(*errors):
    def register(make):
        make.errors = errors
        TARGETS[make.__name__] = make
        return make
    return register


TARGETS: dict = {}

from . import file_targets, http_target, op_targets, reader_targets, text_targets  # noqa: E402, F401
