"""How much memory there is to take."""
from collections.abc import Iterator
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
CGROUP_FILES = ("memory.max memory.current", "memory/memory.limit_in_bytes memory/memory.usage_in_bytes")   # v2, v1


def free_bytes() -> int | None:
    """What the system, its container and `ulimit -v` can still give; None where none of them says."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
        found += list(address_space())
        for limit, used in (files.split() for files in CGROUP_FILES):
            if (CGROUP / limit).exists() and (most := (CGROUP / limit).read_text().strip()) != "max":
                found.append(int(most) - int((CGROUP / used).read_text()))
    except (OSError, ValueError):
        pass
    return max(0, min(found)) if found else None


def address_space() -> Iterator[int]:
    """What is left of the address space, where that is limited."""
    try:
        import resource
    except ImportError:                                     # not a Unix
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        yield limit - resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[0])
