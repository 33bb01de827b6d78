"""``python -m tests.simulation SEED`` replays one seed with its trace; ``FIRST STOP`` runs a range."""

from __future__ import annotations

import sys
import time

from tests.simulation.world import run


def main(arguments: list[str]) -> int:
    numbers = [int(argument) for argument in arguments]
    if len(numbers) == 1:
        result = run(numbers[0], trace=True)
        print("\n".join(result.trace))
        print(result)
        return not result.ok
    failed = 0
    began = time.process_time()
    for seed in range(numbers[0], numbers[1]):
        result = run(seed)
        if not result.ok:
            failed += 1
            print(result, flush=True)
    count = numbers[1] - numbers[0]
    seconds = time.process_time() - began
    print(f"{failed} of {count} seeds failed, {seconds:.1f} s of CPU, {seconds / count * 1000:.1f} ms a seed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
