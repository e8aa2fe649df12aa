"""Worker classes: what a user writes (`api`), and the engine that runs it in a forked worker.

Public names are `sengu.Worker`, `sengu.Server` and `sengu.run`.
"""
