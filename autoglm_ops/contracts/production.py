"""What production said of the champion on one day: written by the loop, read by the next run's gate as `inputs/signals.json`."""

from __future__ import annotations

from autoglm_ops.contracts.feedback import DriftReport, Signal
from autoglm_ops.contracts.record import Record
from autoglm_ops.contracts.release import Champion


class DriftOfDay(Record):
    """How far the texts of the window that ends with `day` are from those the champion was trained on.

    asked: requests compared, with a label or without. labelled: those whose labels were compared too.
    """

    day: str
    champion: Champion
    asked: int = 0
    labelled: int = 0
    drift: tuple[DriftReport, ...] = ()
    reason: str = ""


class SignalsOfDay(Record):
    """The signals of `day`, fired or not, and the champion they were said of. Empty when nothing was said."""

    day: str = ""
    champion: Champion = Champion()
    fired: bool = False
    signals: tuple[Signal, ...] = ()
    drift: tuple[DriftReport, ...] = ()
    reason: str = ""

    def named(self, name: str) -> Signal | None:
        """The signal called `name` if it fired."""
        return next((signal for signal in self.signals if signal.name == name and signal.fired), None)
