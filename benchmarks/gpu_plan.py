"""Which steps `python -m benchmarks.gpu` takes: section by section, in the order of their worth."""
import importlib.util
import sys

from minillm.kernels import select as registry
from minillm.ops.table import OPS

from . import gpu_check, gpu_cublas, gpu_matmul, gpu_ops, gpu_time, gpu_train
from .gpu_runner import Step

# By value: what decides whether anything else means something comes first. A section may take so many of 100 parts
# of the time; what it leaves goes on to those after it.
SECTIONS = {"device": 4, "conformance": 5, "ops": 17, "step": 12, "bandwidth": 17, "matmul": 8, "attention": 18,
            "correctness": 9, "beside": 3, "sanitizer": 7}
ABOUT = {
    "device": "the GPU, its clocks and power, the copy bandwidth and the fastest matmul that is installed",
    "conformance": "each PTX instruction against its emulated twin",
    "ops": "every op with CUDA kernels, each variant and dtype, against NumPy in float64",
    "step": "a training step of GPT-2 124M: ms, tokens/s, MFU",
    "bandwidth": "every op at the sizes of that step: ms, GB/s beside the copy bandwidth, TFLOP/s",
    "matmul": "linear's GEMMs, TFLOP/s beside cuBLASLt",
    "attention": "attention alone, TFLOP/s beside PyTorch's backends",
    "correctness": "attention at many lengths and head sizes against float64",
    "beside": "attention from NumPy arrays: GPU, CPU kernels and NumPy",
    "sanitizer": "compute-sanitizer on small cases"}
SANITIZERS = ("memcheck", "racecheck", "initcheck")
PEERS = ("torch", "flash-attn", "cublaslt")


def plan(module, emulate, only=()):
    """The steps of the sections (default: all), in their order."""
    chosen = [section for section in SECTIONS if not only or section in only]
    total, passed, steps = sum(SECTIONS[section] for section in chosen), 0, []
    for section in chosen:
        passed += SECTIONS[section]
        for who, items, limit_s in STEPS[section](module, emulate):
            program = (sys.executable, "-m", "benchmarks.gpu_step", section, who, *(["--emulate"] if emulate else []))
            limit_s *= 10 if emulate else 1
            steps.append(Step(f"{section} {who}", program, list(items), limit_s, passed / total))
    return steps


def is_a_peer(step):
    """Another library's; it may fail without a fault of ours."""
    return step.name.split(" ", 1)[1].startswith(PEERS)


def backend(emulate):
    return "cudasim" if emulate else "cuda"


def has(package, emulate):
    return not emulate and importlib.util.find_spec(package) is not None


def with_kernels(emulate):
    """{op: its implementations on the GPU, the best first}, for the ops that have any."""
    prefix = backend(emulate)
    found = {op: sorted((name for name in spec.kernels if name.split("/")[0] == prefix), key=lambda name: "/" in name)
             for op, spec in OPS.items()}
    return {op: names for op, names in found.items() if names}


def without_kernels(emulate):
    return [op for op in OPS if op not in with_kernels(emulate)]


def peers_of(emulate):
    """cuBLASLt and PyTorch, where they are."""
    return ["cublaslt"] * (not emulate and gpu_cublas.find() is not None) + ["torch"] * has("torch", emulate)


# ---- (who, items, seconds an item) of each section ----

def device(_, emulate):
    return [(who, [None], 30) for who in ["gpu", "copy", *peers_of(emulate)]]


def conformance(module, emulate):
    if registry.cuda("cudasim") is None:
        print("conformance: left out, since the emulator is not built", flush=True)
        return []
    return [("all", gpu_check.instructions(module), 20)]


def ops(module, emulate):
    return [(op, gpu_ops.cases(op, choices_here(module, names), emulate), 30)
            for op, names in with_kernels(emulate).items()]


def choices_here(module, names):
    """Without wgmma's where the GPU is not Hopper."""
    return [name for name in names if not name.endswith("wgmma") or module.capability() == 90]


def step(_, emulate):
    return [(who, gpu_train.sizes(emulate), 60) for who in ["minillm", *["torch"] * has("torch", emulate)]]


def bandwidth(module, emulate):
    own = [(op, [[name] for name in choices_here(module, names)], 30) for op, names in with_kernels(emulate).items()]
    peers = [(f"torch {op}", [["torch"]], 30) for op, *_ in own if has("torch", emulate) and OPS[op].torch]
    return own + peers


def matmul(module, emulate):
    names = choices_here(module, with_kernels(emulate).get("linear", []))
    return [(who, gpu_matmul.sizes(emulate), 30) for who in [*names, *peers_of(emulate)]]


def attention(module, emulate):
    names = [name for name in gpu_time.OURS if name.split()[1] in gpu_check.variants(module)]
    names += [*gpu_time.TORCH_BACKENDS] * has("torch", emulate) + ["flash-attn"] * has("flash_attn", emulate)
    return [(name, gpu_time.sizes(emulate), 30) for name in names]


def correctness(module, emulate):
    return [(variant, [case[1:] for case in gpu_check.cases(emulate, [variant])], 30)
            for variant in gpu_check.variants(module)]


def beside(module, emulate):
    prefix, variants = backend(emulate), gpu_check.variants(module)
    names = ["numpy", "cpu", prefix, *(f"{prefix}/{name}" for name in gpu_check.TENSOR_CORES if name in variants)]
    return [(name, [16 if emulate else 1024], 30) for name in names if name in registry.choices("attention")]


def sanitizer(module, emulate):
    """Attention's variants, then the other ops."""
    if emulate:
        return []
    return [(who, [tool], 60) for tool in SANITIZERS
            for who in [*gpu_check.variants(module), *(op for op in with_kernels(emulate) if op != "attention")]]


STEPS = {section.__name__: section for section in (device, conformance, ops, step, bandwidth, matmul, attention,
                                                   correctness, beside, sanitizer)}
