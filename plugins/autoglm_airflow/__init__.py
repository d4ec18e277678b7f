"""AutoGLM Ops on Airflow: operators that run the `autoglm` command line, and nothing that knows how a model is made.

operators   open a run, run one of its stages, close it
loop        the tasks of the feedback loop
approval    ask a person before a promotion
pipeline    a chain of stages in one line of a DAG file
assets      what starts a DAG, and what a DAG makes
notify      tell the owner once
events      one line per task for a terminal
drive       run a DAG to its end without a scheduler: `python -m autoglm_airflow.drive`
"""
