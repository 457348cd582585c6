"""CUDA C++ as people write it, made into C++ that a C++ compiler takes with the emulator's headers.

In reading order: tokens.py (the tokens of a source), launches.py, shared.py, bounds.py and assembly.py (what each kind
of CUDA syntax becomes), rewrite.py (a file and the headers beside it), host.py (which functions of it can be called).

"""
