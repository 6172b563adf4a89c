"""The file's tables, and what is said to SQLite about them.

The columns have no types, so what was stored comes back as it was: 5 stays 5, where a REAL would make 5.0 of it, and
the sum over them would be another one. The body comes last: what follows a large one would be read through it.
"""

from zmqbroker.broker.store.rows import PLAIN, Request, State

APPLICATION = 0x5A423153  # ZB1S: this file is a store
VERSION = 1

ASKED = [*Request._fields[:PLAIN], "wishes"]
TOLD = list(State._fields)
BODY = ["sizes", "body_crc", "body"]

TABLES = [
    f"CREATE TABLE task (number INTEGER PRIMARY KEY, {', '.join([*ASKED[1:], 'crc', *TOLD, *BODY])})",
    "CREATE TABLE queue (name TEXT PRIMARY KEY, most, most_waiting, is_paused)",
    "CREATE TABLE setting (name TEXT PRIMARY KEY, value)",
]

INSERT = f"INSERT INTO task VALUES ({', '.join('?' * len([*ASKED, 'crc', *TOLD, *BODY]))})"
SET_REQUEST = f"UPDATE task SET {', '.join(f'{name} = ?' for name in [*ASKED[1:], 'crc'])} WHERE number = ?"
SET_STATE = f"UPDATE task SET {', '.join(f'{name} = ?' for name in TOLD)} WHERE number = ?"
SET_RESULT = f"UPDATE task SET {', '.join(f'{name} = ?' for name in [*TOLD, *BODY])} WHERE number = ?"
DELETE = "DELETE FROM task WHERE number = ?"
SET_QUEUE = "INSERT OR REPLACE INTO queue VALUES (?, ?, ?, ?)"
DELETE_QUEUE = "DELETE FROM queue WHERE name = ?"
SET_SETTING = "INSERT OR REPLACE INTO setting VALUES (?, ?)"

_COLUMNS = ", ".join([*ASKED, "crc", *TOLD, *BODY[:2]])
READ = (  # a large body may stay in the store
    f"SELECT {_COLUMNS}, CASE WHEN until IS NULL OR length(body) <= ? THEN body ELSE length(body) END FROM task"
    " WHERE number = ?"
)
READ_SOME = (  # results stay in the store
    f"SELECT {_COLUMNS}, CASE WHEN until IS NULL THEN body ELSE length(body) END FROM task"
    " WHERE number > ? AND number <= ? ORDER BY number LIMIT ?"
)
READ_HIGHEST = "SELECT max(number) FROM task"
READ_QUEUES = "SELECT name, most, most_waiting, is_paused FROM queue ORDER BY name"
READ_SETTING = "SELECT value FROM setting WHERE name = ?"
READ_SCHEMA = "SELECT sql FROM sqlite_master WHERE type = 'table' ORDER BY rootpage"

# One connection, that nobody shares the file with: a second one that reads would keep the log from ever being reset.
# A page that was overwritten is not worth being overwritten twice (secure_delete), and the file can be made smaller
# later only if that was said before its first table (auto_vacuum).
PRAGMAS = [
    "locking_mode = EXCLUSIVE",
    "auto_vacuum = INCREMENTAL",
    "journal_mode = WAL",
    "synchronous = FULL",
    "secure_delete = OFF",
    "mmap_size = 0",  # a file that is cut short would end the process
    "cell_size_check = ON",
    "trusted_schema = OFF",
    f"journal_size_limit = {16 << 20}",
]
