"""How fast the broker is, and how much memory it takes, beside what it is to be compared with.

`python -m bench` starts the broker and `zmq.proxy` in turn, each in a process of its own, with the same clients and as
equal workers as there can be, each in a process of its own too, and prints a table per measurement. `stage` runs
processes, `roles` is what they run, `measure` puts the two together.

`python -m bench.peers` has the same work done by other systems: `systems` knows how each is started and reached,
`environments` installs them, `compare` takes the figures, `report` and `plots` show them.
"""
