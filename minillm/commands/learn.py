"""`minillm learn`: exercises that judge: write the backward, the optimizer, the sampler yourself."""
import json
import sys
from argparse import Namespace
from pathlib import Path
from textwrap import fill

from . import Commands, add_json, check_at_least, main_command


def learn(args: Namespace) -> int:
    """Without words the path; with a NAME its file; else one of ACTIONS."""
    action, *rest = args.words or [""]
    if action in ACTIONS:
        if len(rest) != 1:
            raise ValueError(f"{action} takes one {ACTIONS[action][1]}: minillm learn {action} {ACTIONS[action][1]}")
        return ACTIONS[action][0](args, rest[0])
    if rest:
        raise ValueError(f"the first word must be an exercise or one of {', '.join(ACTIONS)}: got {action!r}")
    return begin(args, action) if action else listed(args)


def listed(args: Namespace) -> int:
    """The path, with what is solved."""
    from ..study.learn.path import exercises
    from ..study.learn.progress import NAME, progress_of, status
    folder = Path(args.folder)
    progress = progress_of(folder)
    rows = [{"name": e.name, "title": e.title, "needs": list(e.needs), **progress.get(e.name, {
        "passed": "", "tries": 0, "hints": 0})} for e in exercises()]
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    for number, row in enumerate(rows, 1):
        print(f"{number:>3} {row['name']:<24} {status(row):<18} {row['title']}")
    print(f"\n{outlook(folder)}\nprogress is kept in {folder / NAME}")
    return 0


def begin(args: Namespace, name: str) -> int:
    """Write the file to fill in."""
    from ..study.learn.path import exercise_called
    from ..study.learn.progress import progress_of
    exercise = exercise_called(Path(name).stem)
    path = target(args, f"{exercise.name}{exercise.suffix}")
    write_text(path, exercise.template())
    print(f"wrote {path}; fill it in, then: minillm learn check {path}")
    progress = progress_of(path.parent)
    if missing := [need for need in exercise.needs if not progress.get(need, {}).get("passed")]:
        print(f"it builds on {', '.join(missing)}, not solved in this folder yet")
    return 0


def target(args: Namespace, name: str) -> Path:
    """Where to write: -o, or the name in --folder. Never over a file, unless forced."""
    path = Path(args.out) if args.out else Path(args.folder) / name
    path = path / name if path.is_dir() else path
    if path.exists() and not args.force:
        raise ValueError(f"{path} exists already; nothing was written (--force overwrites it, -o names another)")
    return path


def write_text(path: Path, text: str) -> None:
    from ..storage.atomic import atomic_write
    with atomic_write(path) as file:
        file.write(text)


def check(args: Namespace, file: str) -> int:
    """0: passed, 1: refused, 2: not to be judged."""
    from ..study.learn.path import exercise_of
    from ..study.learn.process import judged
    path = Path(file)
    try:
        if not path.is_file():
            raise ValueError(f"FILE must be an existing file: got {file}")
        exercise = exercise_of(path)
    except ValueError as error:
        print(f"minillm learn check: {error}", file=sys.stderr)
        return 2
    stages = []
    for stage in judged(exercise, path, args.seconds):
        stages.append(stage)
        if not args.json:
            print(stage, flush=True)
    passed = stages[-1].passed
    where = noted(path.parent, exercise.name, tries=1, passed=passed)
    if args.json:
        print(json.dumps({"exercise": exercise.name, "file": file, "passed": passed,
                          "stages": [vars(stage) for stage in stages]}, indent=1))
    else:
        print(f"\n{exercise.name}: " + (f"solved. {outlook(path.parent)}" if passed else
                                        f"not yet. One step of the way: minillm learn hint {exercise.name}") + where)
    return int(not passed)


def noted(folder: Path, name: str, **changes: int) -> str:
    """Keep the progress; where that cannot be, say so and go on."""
    from ..study.learn.progress import note
    try:
        note(folder, name, **changes)
    except (OSError, ValueError) as error:
        return f" (progress is not kept: {error})"
    return ""


def outlook(folder: Path) -> str:
    """How many are solved, and what comes next."""
    from ..study.learn.path import PATH
    from ..study.learn.progress import next_exercise, progress_of
    progress = progress_of(folder)
    solved = sum(bool(progress.get(name, {}).get("passed")) for name in PATH)
    following = next_exercise(progress)
    return f"{solved} of {len(PATH)} solved; " + (f"next: minillm learn {following}" if following else "that was all")


def hint(args: Namespace, name: str) -> int:
    """One more step at each call."""
    from ..study.learn.path import exercise_called
    from ..study.learn.progress import progress_of
    check_at_least(args, step=1)
    exercise, folder = exercise_called(Path(name).stem), Path(args.folder)
    name = exercise.name
    count, given = len(exercise.hints), progress_of(folder).get(name, {}).get("hints", 0)
    if args.step and args.step > count:
        raise ValueError(f"--step must be at most {count}, the steps of {name}: got {args.step}")
    step = args.step or min(given + 1, count)
    steps = range(1, count + 1) if args.all else [step]
    if args.json:
        print(json.dumps([{"step": i, "of": count, "hint": exercise.hints[i - 1]} for i in steps], indent=1))
    else:
        print(*(fill(f"step {i} of {count}: {exercise.hints[i - 1]}", 100, subsequent_indent="    ",
                     break_on_hyphens=False) for i in steps), sep="\n")
    where = noted(folder, name, hints=max(given, *steps))
    if not args.json and steps[-1] == count:
        print(f"that was the last step; the whole: minillm learn solution {name}{where}")
    return 0


def solution(args: Namespace, name: str) -> int:
    """The steps and the reference, as a file that passes."""
    from ..study.learn.path import exercise_called
    exercise = exercise_called(Path(name).stem)
    if args.out:
        write_text(target(args, f"{exercise.name}{exercise.suffix}"), exercise.solution())
    else:
        print(exercise.solution(), end="")
    return 0


def graded(args: Namespace, folder: str) -> int:
    from ..progress import Progress
    from ..study.learn.grade import grade, grade_csv, grade_page
    progress = Progress("judging", "file")
    rows = grade(Path(folder), args.seconds, progress)
    progress.close()
    print(json.dumps(rows, indent=1) if args.json else grade_csv(rows) if args.csv else grade_page(rows))
    return 0


ACTIONS = {"check": (check, "FILE"), "hint": (hint, "NAME"), "solution": (solution, "NAME"),
           "grade": (graded, "FOLDER")}


def add(commands: Commands) -> None:
    p = main_command(commands, "learn", learn, "minillm learn linear_backward -o my_linear.py\n"
                     "example: minillm learn hint linear_backward")
    p.add_argument("words", nargs="*", metavar="NAME | check FILE | hint NAME | solution NAME | grade FOLDER",
                   help="an exercise, or what to do with one")
    p.add_argument("-o", "--out", metavar="FILE", help="where the file is written (default: NAME.py in --folder)")
    p.add_argument("--force", action="store_true", help="overwrite a file that exists")
    p.add_argument("--folder", default=".", help="where your files are; progress is kept there, in minillm-learn.json")
    p.add_argument("--step", type=int, metavar="N", help="hint: this step")
    p.add_argument("--all", action="store_true", help="hint: all steps")
    p.add_argument("--seconds", type=float, default=60.0, help="check, grade: the time limit of a file")
    p.add_argument("--csv", action="store_true", help="grade: a line a student, a column an exercise")
    add_json(p)
