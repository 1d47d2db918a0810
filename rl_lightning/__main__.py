"""`python -m rl_lightning` and `rl-lightning`: set Python's hash seed, which the problems of some tasks depend on, and run the
command line."""

import os
import subprocess
import sys


def start() -> int:
    """Run the command line in a Python whose hash seed is 0.

    Returns:
        the exit status.
    """
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The hash seed is read only when Python starts, so Python is started again.
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        command = [sys.executable, *sys.orig_argv[1:]]
        if os.name == "nt":  # exec on Windows returns to the shell before the program ends
            process = subprocess.Popen(command, env=environment)
            while True:
                try:
                    return process.wait()
                except KeyboardInterrupt:  # the child process handles it: it saves a checkpoint first
                    continue
        os.execve(sys.executable, command, environment)

    from rl_lightning.cli.main import main

    return main()


if __name__ == "__main__":
    sys.exit(start())
