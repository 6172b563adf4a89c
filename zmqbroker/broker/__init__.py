"""The broker: what it decides (dispatch, task, queues, kept: pure) and what it does (broker, liveness)."""
