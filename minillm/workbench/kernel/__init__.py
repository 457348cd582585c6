"""The bench for kernels of one's own: checked by value and gradient, timed so that nobody can cheat.

In reading order: workload.py (inputs and what is right for them), memory.py (arrays that two processes share, with
guard pages), child.py (the process that runs somebody else's code), process.py (its keeper), runner.py (a
kernel's calls there), check.py (the verdicts), bench.py (the time), template.py (a file to begin with), exchange.py
(other benches' JSON).
"""
