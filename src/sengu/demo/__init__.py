"""`sengu demo`: a real server under load, deployed, broken and killed, and what that cost.

The demonstration uses sengu as anybody would: it runs the command `sengu` and reads what it says.
`main` is where to begin reading; `story` has the steps. Imported by `cli.demo`.
"""
