"""The store: what makes durable tasks outlive the broker's process.

`rows` says what is stored, `gate` how a loop has it stored: both are pure. `sqlite` is the store in a file, made of
`opening`, `encoding`, `schema` and `disk`.
"""
