"""`python -m rl_lightning.report RUN`: print the learning curve and write `RUN/learning_curve.png`."""

import sys
from pathlib import Path

from rl_lightning.report.learning_curve import draw, table
from rl_lightning.types import UserError


def main() -> int:
    """Exit status 0, or 2 after a mistake of the user's, which one line on stderr names."""
    if len(sys.argv) != 2:
        print("error: give one run directory: python -m rl_lightning.report outputs/quickstart", file=sys.stderr)
        return 2
    run = Path(sys.argv[1])
    try:
        print(table(run))
        draw(run, run / "learning_curve.png")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"picture: {run / 'learning_curve.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
