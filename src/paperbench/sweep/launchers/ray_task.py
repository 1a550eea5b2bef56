"""What a Ray worker does with a job: it watches over a child that does the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paperbench.sweep.launchers.cluster import Child


def work(arguments: Sequence[str], folder: str, environment: Mapping[str, str]) -> int:
    """Exit code of `paperbench.sweep.worker ARGUMENTS…` started in `folder`, or minus the signal that killed it.

    `ray.cancel` raises KeyboardInterrupt here: the run saves and ends. The child notices the death of this process by itself.
    """
    with Child(arguments, folder=folder, environment=environment) as child:
        code, asked = None, False
        while code is None:
            try:
                code = child.wait()
            except KeyboardInterrupt:  # more than one may come; a second SIGTERM would end the run before it has saved
                if not asked:
                    child.stop()
                asked = True
    assert code is not None
    return code
