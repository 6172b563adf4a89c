"""ZeroMQ and the system as we use them: sockets, messages, descriptors, a limited log."""
