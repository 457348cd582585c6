"""Saving and resuming while any one call to the system fails (disk full, interrupted, any error), or is the process's
last: what is found then is whole, the old or the new, and what is raised is one OSError or ValueError."""
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COMPILER = shutil.which("gcc") or shutil.which("cc")
pytestmark = pytest.mark.skipif(not COMPILER or not sys.platform.startswith("linux") or "LD_PRELOAD" in os.environ,
                                reason="no C compiler, or not Linux")

SCRIPT = """if True:
    import ctypes, errno, os, sys, traceback
    from pathlib import Path
    from some_params import save_run
    from minillm import GPT, GPTConfig, Tokenizer
    from minillm.data.shards.format import open_shards
    from minillm.data.shards.prepare import prepare, tokenizer_of
    from minillm.storage.directories import replace_directory
    from minillm.storage.lock import exclusive
    from minillm.train import checkpoint
    from minillm.train.optim import AdamW

    FAULTS = {"full disk": (errno.ENOSPC, 1), "interrupted": (errno.EINTR, 2), "kill": (0, 4), "error": (errno.EIO, 15)}
    calls = ctypes.CDLL(sys.argv[1])
    folder, operation = Path(sys.argv[2]), sys.argv[3]

    def checkpoint_of(run):
        "Save with a number that all of it shows; resume."
        model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=4, vocab_size=256), 0)
        optimizer = AdamW(model.params)
        state = {"step": 0, "seed": 0, "data": "x", "best": {"step": 0}, "settings": {}}
        run.mkdir(exist_ok=True)
        tokenizer = Tokenizer.train(["a text"], 256, special_tokens=[])
        tokenizer.save(run)

        def save(number):
            model.params.flat[:] = optimizer.m.flat[:] = optimizer.v.flat[:] = number
            with exclusive(run):
                checkpoint.save(run, model, optimizer, state | {"step": number}, None)

        def find():
            if not checkpoint.checkpoint_exists(run):
                return None
            restored = checkpoint.restore(run, model, optimizer, state, say=lambda text: None)["step"]
            numbers = {restored, *model.params.flat.tolist(), *optimizer.m.flat.tolist(), *optimizer.v.flat.tolist()}
            assert len(numbers) == 1, numbers
            assert Tokenizer.from_pretrained(run / "last").vocab_size == 256
            return restored
        return save, find

    def resume_of(run):
        "Reading, under the lock: whatever fails, the checkpoint is as it was."
        save, find = checkpoint_of(run)
        save(0)

        def resume(number):
            with exclusive(run):
                assert find() == 0
        return resume, find

    def vocabulary_of(run):
        tokenizers = [Tokenizer.train(["some text " * 5], 256 + 1 + n, stop_early=False) for n in range(2)]

        def find():
            return Tokenizer.from_pretrained(run).vocab_size - 257 if (run / "tokenizer.json").exists() else None
        return lambda number: tokenizers[number % 2].save(run), find

    def shards_of(run):
        "The old or the new, or none: what is not finished is known as such, and made again."
        def save(number):
            documents = [(str(i), f"document {i} of {number} " * 3) for i in range(20)]
            prepare(lambda: documents, run, vocab_size=260, source=str(number))

        def find():
            if not (run / "data" / "source.txt").exists():
                return None
            tokenizer_of(run, open_shards(run / "data"))
            return int((run / "data" / "source.txt").read_text())
        return save, find

    operations = {"checkpoint": checkpoint_of, "resume": resume_of, "tokenizer": vocabulary_of, "shards": shards_of}
    save, find = operations[operation](folder / "run")

    def child(number, at, error, kinds):
        "Exit code: 0 saved, 3 refused, 9 neither; and 10 more if the call was never reached."
        try:
            calls.arm(at, error, kinds)
            save(number)
            code = 0
        except (OSError, ValueError) as failure:
            code = 3 if str(failure).strip() else 9
        except BaseException:
            calls.arm(0, 0, 0)
            traceback.print_exc()
            code = 9
        reached = calls.calls() >= at
        calls.arm(0, 0, 0)
        os._exit(code + 10 * (not reached))

    number = total = 0
    save(0)
    found = find()
    for name, (error, kinds) in FAULTS.items():
        for at in range(1, 2000):
            old, number = found, 1 - number
            process = os.fork()
            if not process:
                child(number, at, error, kinds)
            code, found = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), find()
            what = f"{operation}: {name} at call {at}: exit code {code}, {old} -> {found}, not {number}"
            assert code in (0, 3, 10, 13, -9), what
            expected = {"resume": [0], "shards": [old, number, None]}.get(operation, [old, number])
            assert found in ([number] if code in (0, 10) and operation != "resume" else expected), what
            total += 1
            if code >= 10:
                break
        save(number)
        found = find()
        left = [str(path) for path in folder.rglob("*") if path.name.endswith((".tmp", ".old"))]
        assert not left, left
    print(total)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    built = tmp_path_factory.mktemp("preload") / "failing.so"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-o", built, HERE / "failing_calls.c", "-ldl"], check=True)
    return built


@pytest.fixture
def folder(tmp_path):
    """Where fsync costs nothing, if there is such a place."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.mark.parametrize("operation", ["checkpoint", "resume", "tokenizer", "shards"])
def test_any_call_may_fail(library, folder, operation):
    paths = os.pathsep.join(map(str, (HERE.parents[1], HERE.parent)))
    settings = {"LD_PRELOAD": str(library), "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT, library, folder, operation],
                          env=os.environ | settings, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 30, done.stdout
