"""A build: a location's raw text -> a clean, deduplicated dataset with a reason for every document that is not in it.

    work = plan(location, recipe, scratch)      the files are listed and cut into shards
    read      a task a shard                    documents through the steps, what they drop, what could not be read
    match     a task a range of keys            pairs that may be near-duplicates
    verify    a task a shard                    pairs that are
    settle    one task                          which rows go
    weigh     a task a shard                    what is left of each source (for caps and mixing)
    write     a task a shard                    the dataset's part
    finish    one task                          the parts under one digest

A task's result is a folder that is renamed into place when it is whole; a task whose folder is there does nothing. So a build that
was killed goes on where it was, tasks may run anywhere that sees the work folder, and running one twice changes nothing, be it at the
same time. `finish` shows the dataset to a check (flow.suite) before it publishes it.

Memory does not grow with the input. One process, the default recipe, shards of 256 MB; peak resident MB by phase for a corpus of 30 MB
and one of 300 MB (tests/benchmarks/corpus_data.py): read 445 and 481, match 377 and 446, verify 375 and 433, write 379 and 469; with the
suite on its bounded sample, and Great Expectations itself, finish 658 and 769.
"""
