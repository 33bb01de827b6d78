"""A client that is interrupted at random instructions, many times; it must neither hang nor stop working.

`python -m tests.integration.interrupted_client BOOTSTRAP REQUESTS REPLIES DESTINATION ROUNDS SEED`. In each
round the handler that Ctrl-C has is called some moments after a piece of work has begun. Prints how many
rounds were interrupted; a round that is stuck ends the process with the stacks of all threads.
"""

from __future__ import annotations

import faulthandler
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from random import Random

from delaystream.client import Client

STUCK_S = 90
"""A round takes some tens of milliseconds, and at most what brokers may take to answer."""
LATEST_S = 0.03
WAIT = timedelta(seconds=60)


def main() -> None:
    """Interrupt, and go on."""
    bootstrap, requests, replies, out, rounds, seed = sys.argv[1:]
    random = Random(seed)

    def made() -> Client:
        return Client(bootstrap, request_topic=requests, reply_to=replies)

    def many(client: Client) -> None:
        with client.batch() as batch:
            for _ in range(400):
                batch.schedule(out, b"many", delay="1h")

    def one(client: Client) -> None:
        for _ in range(5):
            client.schedule(out, b"one", delay="1h")

    def receipts(client: Client) -> None:
        with client.batch() as batch:
            pending = [batch.schedule(out, b"receipt", delay="1h", wait=WAIT) for _ in range(20)]
        assert {each.result().outcome for each in pending} == {"scheduled"}

    def another(_client: Client) -> None:
        with made() as client:
            client.schedule(out, b"another", delay="1h")

    kinds: list[Callable[[Client], None]] = [many, one, receipts, another]
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    client = made()
    client.schedule(out, b"first", delay="1h", wait=WAIT)
    interrupted = 0
    for number in range(int(rounds)):
        faulthandler.dump_traceback_later(STUCK_S, exit=True)
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, LATEST_S))
            kinds[number % len(kinds)](client)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            # Nothing else: no library has put an error of its own in the place of it.
            interrupted += 1
        if number % 20 == 19:
            # What was interrupted has taken nothing with it.
            client.schedule(out, b"after", delay="1h", wait=WAIT)
            client.close()
            client = made()
    faulthandler.dump_traceback_later(STUCK_S, exit=True)
    client.schedule(out, b"last", delay="1h", wait=WAIT)
    client.close()
    print(f"{interrupted} of {rounds} interrupted", flush=True)


if __name__ == "__main__":
    main()
