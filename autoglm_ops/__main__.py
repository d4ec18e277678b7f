"""`python -m autoglm_ops` is `autoglm`: a workspace's own copy of the code is run this way."""

from autoglm_ops.cli.main import main

if __name__ == "__main__":
    main()
