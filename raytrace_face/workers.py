"""Jobs on Ray: on a cluster, or on workers of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from raytrace_face.errors import MachineError, RaytraceFaceError

Job = TypeVar("Job")
Done = TypeVar("Done")


def on_ray(
    do: Callable[[Job], Done],
    jobs: Sequence[Job],
    address: str,
    processes: int,
    variables: dict[str, str],
    option: str,
) -> Iterator[Done]:
    """What becomes of every job, in the order in which they are done. A worker keeps what `do` caches.

    Args:
        do: function of a module; an error of this package that it raises is raised here.
        address: a Ray cluster ("auto": the running one, or one on this machine with `processes` workers).
        variables: environment of the workers (`backend.threads_each`).
        option: of the command line, that asked for Ray.

    Raises:
        MachineError: Ray is not installed or not reached, or a worker was killed.
    """
    try:
        import ray
    except ImportError as error:
        raise MachineError(f"Ray is not installed: pip install 'raytrace-face[ray]', or leave out {option}") from error
    threads = {"env_vars": variables}
    started = False
    if not ray.is_initialized():
        try:
            ray.init(address=address, runtime_env=threads, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            if address != "auto" or not isinstance(error, ConnectionError):
                raise MachineError(f"no Ray cluster at {address!r} ({error}): start one, or use --ray auto") from error
            ray.init(num_cpus=processes, runtime_env=threads, log_to_driver=False, include_dashboard=False)
        started = True
    try:
        task = ray.remote(num_cpus=1)(do)
        waiting = [task.remote(job) for job in jobs]
        while waiting:
            ready, waiting = ray.wait(waiting)
            yield from ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, RaytraceFaceError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise MachineError("a worker was killed, most likely for want of memory: use fewer workers") from error
    finally:
        if started:
            ray.shutdown()
