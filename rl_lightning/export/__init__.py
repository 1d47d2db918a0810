"""The `export` command's work: a run's policy as others load it, an adapter or a merged model, verified, with a model card.

Works on a checkpoint's files, without the trainer. May import everything up to `comparison`. A format is a class in a file of its
own, a subclass of `formats.Format`. Main export: `exporting.export`.
"""
