"""Look this machine over for a profile: what is there, what lacks, and the next command for each."""

from localmel.doctor.check import Check, Examination
from localmel.doctor.examine import examine
from localmel.doctor.lacks import lacks

__all__ = ["Check", "Examination", "examine", "lacks"]
