"""The page and the metrics: a client of the control sockets of brokers, and of nothing else, that changes nothing.

From the sockets outwards: an `Asker` asks one broker, so that all who want to know the same thing share an answer; a
`Watched` is what is known of one broker, with walks through its lists and its last ten minutes; `Brokers` has all of
them; `pages` and `metrics` tell what they know, `doors` says who may hear it, `server` listens.
"""
