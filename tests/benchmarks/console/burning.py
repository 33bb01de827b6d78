"""An idle loop that takes so much processor time: ``python -m tests.benchmarks.console.burning SPEC``."""

from __future__ import annotations

import json
import math
import multiprocessing
import sys
import time

_SLICE_S = 0.005


def _burn(share: float, seconds: float) -> None:
    """Burn this share of a core, and catch up where it could not be had."""
    start, began = time.monotonic(), time.process_time()
    while (elapsed := time.monotonic() - start) < seconds:
        if time.process_time() - began < share * elapsed:
            until = time.process_time() + _SLICE_S * share
            while time.process_time() < until:
                pass
        else:
            time.sleep(_SLICE_S * (1 - share) or _SLICE_S / 10)


def burn(cores: float, seconds: float) -> dict[str, float]:
    """Burn so many cores' time for so long, in as many processes as that takes; tells what it came to."""
    processes = math.ceil(cores) or 1
    others = [
        multiprocessing.Process(target=_burn, args=(cores / processes, seconds)) for _ in range(processes)
    ]
    started = time.monotonic()
    for process in others:
        process.start()
    for process in others:
        process.join()
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = usage.ru_utime + usage.ru_stime
    return {"cpu_seconds": took, "seconds": time.monotonic() - started}


if __name__ == "__main__":
    spec = json.loads(sys.argv[1])
    spec.pop("bootstrap", None)
    print(json.dumps(burn(**spec)), flush=True)
