"""Behaviours beside the loop: one per file, each a subclass of `base.Callback`."""
