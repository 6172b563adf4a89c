"""The systems that `bench.peers` compares, one module for each family of them.

A module has the main process's side (what to install and to start: `System`), and that of the processes which run in
the system's own environment: workers, and `connect`, which returns what the client process (`driver`) needs to
know: `Link`. Packages of third parties are imported by the latter only. `task` is what all of them do.
"""
