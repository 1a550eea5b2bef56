"""`python -m paperbench`: the same program as the `paperbench` command."""

from paperbench.cli.app import main

if __name__ == "__main__":
    main()
