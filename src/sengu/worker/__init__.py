"""What every Python worker has, whatever it runs: stop flag, scoreboard lanes, title, hooks.

Lives in the worker's process, after the fork. The fork server sets it up, engines (`sengu.http`)
are given a `Runtime` and run on it. The server never imports it.
"""
