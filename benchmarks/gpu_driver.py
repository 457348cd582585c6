"""Device memory, streams and events of a GPU by its driver alone (libcuda through ctypes): no PyTorch is needed.

`Emulated` has the same methods on the host's memory: the same programs run on the emulator.
"""
import ctypes
import shutil
import subprocess
import time

import numpy as np

NOT_READY = 600                             # CUDA_ERROR_NOT_READY: what an event answers that has not happened yet
CPU_DEVICE, CUDA_DEVICE = 1, 2              # DLPack's
DELAY_BYTES = 256 << 20
COPY_BYTES = 1 << 30                        # of the copy that measures the memory's bandwidth: no cache holds it
ATTRIBUTES = {"multiprocessors": 16, "major": 75, "minor": 76}
QUERIES = ("driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "power.draw", "power.limit", "temperature.gpu",
           "persistence_mode", "ecc.mode.current", "mig.mode.current")
# Datasheets: dense bf16 TFLOP/s, GB/s. The first name that a GPU's begins with; the SXM boards.
DATASHEET = {"NVIDIA H200": (989.4, 4800), "NVIDIA H100 PCIe": (756, 2000), "NVIDIA H100": (989.4, 3350),
             "NVIDIA GH200": (989.4, 4000), "NVIDIA A100": (312, 2039), "NVIDIA L40S": (362, 864),
             "NVIDIA GeForce RTX 4090": (165.2, 1008)}


# ---- DLPack: numbers that NumPy has no name for go in and out by it ----

class Tensor(ctypes.Structure):
    """DLManagedTensor."""

    _fields_ = [("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device", ctypes.c_int32),
                ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8),
                ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
                ("strides", ctypes.POINTER(ctypes.c_int64)), ("offset", ctypes.c_uint64),
                ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


class Bfloat16Array:
    """A C-ordered array of bfloat16 on the device, from its bits (uint16) on the host."""

    def __init__(self, driver, bits):
        self.driver, self.shape = driver, bits.shape
        self.memory = driver.from_host(np.ascontiguousarray(bits))
        self.sizes = (ctypes.c_int64 * bits.ndim)(*bits.shape)
        self.tensor = Tensor(driver.address(self.memory), driver.DEVICE, 0, bits.ndim, 4, 16, 1, self.sizes)

    def __dlpack_device__(self):
        return self.driver.DEVICE, 0

    def __dlpack__(self, **_):
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        return new(ctypes.addressof(self.tensor), b"dltensor", None)


def address_of(array):
    """(address, shape, bits of a number) of anything with `__dlpack__`; whoever calls keeps the array alive."""
    capsule = array.__dlpack__()
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = Tensor.from_address(get(capsule, b"dltensor"))
    return tensor.data + tensor.offset, tuple(tensor.shape[:tensor.ndim]), tensor.bits


# ---- the GPU ----

def clocks():
    """What nvidia-smi says of clocks, power and temperature now, as {query: text}; empty without it."""
    program = shutil.which("nvidia-smi") or "/usr/local/nvidia/bin/nvidia-smi"
    try:
        done = subprocess.run([program, f"--query-gpu={','.join(QUERIES)}", "--format=csv,noheader", "--id=0"],
                              capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(QUERIES, (value.strip() for value in done.stdout.split(","))))


def datasheet(name):
    """(bf16 TFLOP/s, GB/s) that NVIDIA gives for a GPU of this name; (None, None) for one that is not listed."""
    return next((figures for known, figures in DATASHEET.items() if name.startswith(known)), (None, None))


class Driver:
    """GPU 0 in its primary context, which the CUDA runtime and PyTorch share; one stream of its own."""

    DEVICE = CUDA_DEVICE

    def __init__(self, library=None):
        self.library = library or ctypes.CDLL("libcuda.so.1")
        self.call("cuInit", 0)
        context, stream = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        self.call("cuCtxSetCurrent", context)
        self.call("cuStreamCreate", ctypes.byref(stream), 1)            # 1: does not wait for the default stream
        self.stream = stream.value
        self.delaying = self.allocate(DELAY_BYTES)
        self.delay_s = self.seconds_of_delay()

    def call(self, name, *arguments):
        code = getattr(self.library, name)(*arguments)
        if code:
            raise RuntimeError(f"{name} failed with CUDA error {code}")

    def allocate(self, count):
        memory = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(count))
        return memory.value

    def from_host(self, array):
        memory = self.allocate(array.nbytes)
        self.call("cuMemcpyHtoD_v2", ctypes.c_uint64(memory), ctypes.c_void_p(array.ctypes.data),
                  ctypes.c_size_t(array.nbytes))
        self.call("cuCtxSynchronize")                   # the stream does not wait for the default stream's copies
        return memory

    def address(self, memory):
        return memory

    def to_host(self, address, shape, dtype):
        self.synchronize()
        array = np.empty(shape, dtype)
        self.call("cuMemcpyDtoH_v2", ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(address),
                  ctypes.c_size_t(array.nbytes))
        return array

    def synchronize(self):
        self.call("cuStreamSynchronize", ctypes.c_void_p(self.stream))

    def event(self):
        event = ctypes.c_void_p()
        self.call("cuEventCreate", ctypes.byref(event), 0)
        return event

    def record(self, event):
        self.call("cuEventRecord", event, ctypes.c_void_p(self.stream))

    def happened(self, event):
        code = self.library.cuEventQuery(event)
        if code not in (0, NOT_READY):
            raise RuntimeError(f"a kernel failed with CUDA error {code}")
        return code == 0

    def milliseconds(self, begin, end):
        self.call("cuEventSynchronize", end)
        passed = ctypes.c_float()
        self.call("cuEventElapsedTime", ctypes.byref(passed), begin, end)
        return passed.value

    def fill(self):
        self.call("cuMemsetD8Async", ctypes.c_uint64(self.delaying), ctypes.c_uint8(0), ctypes.c_size_t(DELAY_BYTES),
                  ctypes.c_void_p(self.stream))

    def copier(self, size=COPY_BYTES):
        """(() -> None that copies so many bytes on the device, those bytes)."""
        source, target = self.allocate(size), self.allocate(size)
        return lambda: self.call("cuMemcpyDtoDAsync_v2", ctypes.c_uint64(target), ctypes.c_uint64(source),
                                 ctypes.c_size_t(size), ctypes.c_void_p(self.stream)), size

    def seconds_of_delay(self):
        begin, end = self.event(), self.event()
        self.fill()
        self.record(begin)
        for _ in range(8):
            self.fill()
        self.record(end)
        return max(self.milliseconds(begin, end) / 8e3, 1e-6)

    def delay(self, seconds):
        """Keep the stream busy for so long, so that what is enqueued meanwhile then runs without a gap."""
        for _ in range(min(2000, 1 + int(seconds / self.delay_s))):
            self.fill()

    def about(self):
        name, size, version, value = ctypes.create_string_buffer(100), ctypes.c_size_t(), ctypes.c_int(), ctypes.c_int()
        self.call("cuDeviceGetName", name, 100, 0)
        self.call("cuDeviceTotalMem_v2", ctypes.byref(size), 0)
        self.call("cuDriverGetVersion", ctypes.byref(version))
        found = {"name": name.value.decode(), "memory_gib": round(size.value / 2 ** 30, 1), "driver": version.value}
        for key, number in ATTRIBUTES.items():
            self.call("cuDeviceGetAttribute", ctypes.byref(value), number, 0)
            found[key] = value.value
        return found | {"fill_gbs": round(DELAY_BYTES / self.delay_s / 1e9)}


class Emulated:
    """The same on the emulator: its device memory is the host's, and every call is over when it returns."""

    DEVICE, stream = CPU_DEVICE, 0

    def from_host(self, array):
        return array.copy()

    def address(self, memory):
        return memory.ctypes.data

    def copier(self, size=1 << 20):
        source = np.zeros(size, "uint8")
        return source.copy, size

    def to_host(self, address, shape, dtype):
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer(ctypes.string_at(address, count), dtype).reshape(shape)

    def synchronize(self):
        pass

    def event(self):
        return [0.0]

    def record(self, event):
        event[0] = time.perf_counter()

    def happened(self, event):
        return False

    def milliseconds(self, begin, end):
        return 1e3 * (end[0] - begin[0])

    def delay(self, seconds):
        pass

    def about(self):
        return {"name": "the emulator"}
