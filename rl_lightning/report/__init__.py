"""Pictures and tables from a run directory, finished or still running; reads files, never the trainer."""
