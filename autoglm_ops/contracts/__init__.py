"""Frozen records that cross package borders, each beside the Protocol that serves it."""
