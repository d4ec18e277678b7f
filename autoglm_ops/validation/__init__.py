"""Validation: row rules quarantine single rows, expectations judge the whole dataset, a budget decides.

`rules` and `verdict` are pure; `gx` is the only module that imports Great Expectations; `page` renders the report.
"""
