"""Facts about the machines that runs were made on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paperbench.records.comparison import environment_facts
from paperbench.records.record import RunRecord


def environment(run: RunRecord) -> dict[str, str]:
    """Return the readable facts of `env.json`: `environment_facts` with host and platform."""
    facts = environment_facts(run)
    return {
        **{
            key: str(run.environment[key])
            for key in ("host", "platform", "cores")
            if run.environment.get(key) is not None
        },
        **facts,
    }


def shared_and_differing(
    facts: Sequence[Mapping[str, str]],
) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """Facts that all of several mappings have in common; and of the others, how often each value occurs."""
    shared: dict[str, str] = {}
    differing: dict[str, dict[str, int]] = {}
    for key in dict.fromkeys(key for mapping in facts for key in mapping):
        counts: dict[str, int] = {}
        for mapping in facts:
            value = mapping.get(key, "")
            counts[value] = counts.get(value, 0) + 1
        if len(counts) == 1:
            shared[key] = next(iter(counts))
        else:
            differing[key] = counts
    return shared, differing
