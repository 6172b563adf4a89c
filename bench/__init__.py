"""How fast the broker is, and how much memory it takes, beside `zmq.proxy` in the same run.

`python -m bench` starts the broker and the proxy in turn, each in a process of its own, with the same clients
and as equal workers as there can be, each in a process of its own too, and prints a table per measurement.
`stage` runs processes, `roles` is what they run, `measure` puts the two together.
"""
