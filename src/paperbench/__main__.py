"""`python -m paperbench`: the same program as the `paperbench` command. `torchrun … -m paperbench` starts it on several hosts."""

import os
import sys

from paperbench.cli.app import main

if __name__ == "__main__":
    try:
        main()
    except SystemExit as end:
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            raise
        sys.stdout.flush()
        sys.stderr.flush()
        # As in `engine.worker`: threads of torch.distributed may outlive the interpreter and would abort the process, which
        # torchrun takes for a failure.
        os._exit(end.code if isinstance(end.code, int) else int(bool(end.code)))
