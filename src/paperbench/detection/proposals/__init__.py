"""Boxes in which an object may lie: from a region proposal network within a net, or made beforehand by something else."""

from paperbench.detection.proposals.ranking import Proposals, propose

__all__ = ["Proposals", "propose"]
