"""Examine this machine for a profile: what is there, what is missing, and the next command for each."""

from localmel.doctor.check import Check, Examination
from localmel.doctor.examine import examine, lacks

__all__ = ["Check", "Examination", "examine", "lacks"]
