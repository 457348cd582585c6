"""A path of exercises: write the ops, the optimizer, the sampler and the rest yourself, and have them judged.

    path.py         the order of the exercises
    exercise.py     the record of one, its template and its solution, made from one file
    exercises/      the files: the task as a docstring, the reference solution, an EXERCISE
    judge.py        the stages of a judgement, with verdict.py (what a stage says) and reading.py (is all written?)
    pair.py         the stages of a forward and a backward
    rules.py        those of plain functions, by cases that each try one rule; cases.py by the reference's results alone
    native.py       those of a kernel in C
    compare.py      results beside the right ones; mistakes.py: beside those of known mistakes; memory.py: what is held
    process.py      a learner's file in a child process with limits
    progress.py     what a learner has solved
    grade.py        a folder of many learners' files
"""
