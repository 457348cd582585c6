"""One exercise a file: its docstring is the task, its functions the reference solution, EXERCISE the rest."""
