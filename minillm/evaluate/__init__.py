"""How good is a model: on running text, on questions with choices, on answers; and is the difference real."""
