"""The composition root of a worker: all parts are made and connected here, and nowhere else."""

from delaystream.app.worker import run_worker

__all__ = ["run_worker"]
