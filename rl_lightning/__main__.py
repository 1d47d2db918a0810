"""`python -m rl_lightning`: set Python's hash seed, which the problems of some tasks depend on, and run the command line."""

import os
import subprocess
import sys

if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The hash seed is read only when Python starts, so Python is started again.
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        command = [sys.executable, *sys.orig_argv[1:]]
        if os.name == "nt":  # exec on Windows returns to the shell before the program ends
            process = subprocess.Popen(command, env=environment)
            while True:
                try:
                    sys.exit(process.wait())
                except KeyboardInterrupt:  # the child process handles it: it saves a checkpoint first
                    continue
        os.execve(sys.executable, command, environment)

    from rl_lightning.cli.main import main

    sys.exit(main())
