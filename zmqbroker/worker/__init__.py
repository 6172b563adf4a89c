"""The worker: `Worker`, and the processes of `zmqbroker work`."""
