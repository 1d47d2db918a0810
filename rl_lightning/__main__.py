"""`python -m rl_lightning`: fix Python's hash seed, which some tasks' problems depend on, then hand over to the command line."""

import os
import subprocess
import sys

if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The hash seed is read once, when Python starts: so start it again.
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        command = [sys.executable, *sys.orig_argv[1:]]
        if os.name == "nt":  # exec on Windows returns to the shell before the program ends
            process = subprocess.Popen(command, env=environment)
            while True:
                try:
                    sys.exit(process.wait())
                except KeyboardInterrupt:  # the child's to handle: it writes a checkpoint first
                    continue
        os.execve(sys.executable, command, environment)

    from rl_lightning.cli import main

    sys.exit(main())
