"""The command line, `python -m rl_lightning`: fit, validate, compare, report, plan, chat, export, push, serve and tasks.

The top package: it may import every other one, and only `__main__` imports it. Each command imports what it needs when it is
called, so that `report` and help do not wait for torch. Main export: `cli.main.main`.
"""
