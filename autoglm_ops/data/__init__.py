"""The data flow: read, dedup, split, tokenise, write; one step per file.

A row enters as a `Row` or a `Reject`, never as half of either. `source` finds and reads the dataset (one file per format behind a
catalog), `intake` keeps the days a run may see, `dedup` and `split` make the three splits, `tables` writes them, `tokenizer` and
`arrays` turn them into the memory-mapped arrays that training reads.
"""
