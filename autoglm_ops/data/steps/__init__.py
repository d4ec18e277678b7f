"""The steps a document goes through, one a file; `catalog.STEPS` finds them by name.

A step is a frozen dataclass: its fields are its options, with the published value as default and the source beside it. It judges a
frame at a time and holds no state (`flow.Step`). What needs the whole corpus is in two parts: a pure function that measures, and a
step that applies what was measured (`source_cap`, `mixing`, `contamination`); duplicates have a package of their own, `neardup`.

Text rules look at each character once or twice; polars has no expression for most of them, and Python objects cost a hundred times
the work, so the loops are compiled (`compiled`) and run over the column's own bytes.
"""
