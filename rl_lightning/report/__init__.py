"""The `report` command: the learning curve of a run, and one HTML page that shows a run or compares several.

Reads what runs have written, never the trainer: may import `types`, `checkpointing` (atomic files) and `statistics`. `run_files`
reads a run; `verdict`, `curves`, `tables` and `samples` choose what the page shows; `page` renders it from the files in `web/`;
`watch` serves it. matplotlib and pyarrow are imported where they are needed. Main exports: `command.main`,
`learning_curve.draw`.
"""
