"""The model server: FastAPI over a batching engine, deny by default, swapped while it runs.

A request passes `observe` (metrics), `guard` (key), `limits` (size, time, number), a route in `app`, the `batcher`, and the model that
`host` holds at that moment; its answer leaves only once it is remembered. Nothing is imported here: FastAPI is heavy.
"""
