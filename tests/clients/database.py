"""Does to a broker's database what no broker would, and copies it.

    database.py change URL         commands from standard input, a line of JSON each; an answer each
    database.py copy URL NAME      copies a server's database to a new one, prints its URL

A URL is `postgresql://…` or `sqlite:PATH`. Commands:

    {"do": "tables"}                                the columns of each table that has rows
    {"do": "empty"}                                 the tables that have none
    {"do": "keep"}                                  of a store of shares: lets none be destroyed
    {"do": "let_go"}                                lets them be destroyed again
    {"do": "change", "table": …, "column": …}       changes one cell of one row
    {"do": "undo"}                                  puts the cell back; says whether it was as changed
    {"do": "run", "sql": …}                         runs a statement
"""

import json
import sqlite3
import sys
import time
import urllib.parse

import pg8000.native

# Texts that a change turns into another that is as good.
OTHERS = {
    "on_missing": "managed",
    "provider": "anthropic",
    "base_url": "https://attacker.example",
    "preferred_provider": "anthropic",
    "owner": "mallory",
    "key_group": "others",
    "rules": '{"fallback":{"whole_tenant":true}}',
    "models": '["o1*"]',
    "mode": "shadow",
    "verdict": "invalid",
    "last_four": "0000",
    "display_name": "Another",
}


class Sqlite:
    KEEP = (
        "CREATE TRIGGER keep BEFORE UPDATE ON share BEGIN SELECT RAISE(ABORT, 'it is kept'); END"
    )
    LET_GO = "DROP TRIGGER keep"

    def __init__(self, url: str) -> None:
        self.connection = sqlite3.connect(url.removeprefix("sqlite:"), 30, isolation_level=None)

    def run(self, sql: str, values: tuple = ()) -> list:
        numbered = sql
        for place in range(len(values), 0, -1):
            numbered = numbered.replace(f":v{place}", f"?{place}")
        return self.connection.execute(numbered, values).fetchall()

    def tables(self) -> dict:
        named = self.run("SELECT name FROM sqlite_master WHERE type = 'table'")
        names = [name for (name,) in named if not name.startswith(("sqlite_", "_sqlx"))]
        return {name: [row[1] for row in self.run(f"PRAGMA table_info({name})")] for name in names}

    def key(self, table: str) -> list:
        keys = [(row[5], row[1]) for row in self.run(f"PRAGMA table_info({table})") if row[5]]
        return [name for _, name in sorted(keys)]


class Postgres:
    KEEP = "ALTER TABLE share ADD CONSTRAINT keep CHECK (destroyed_at IS NULL)"
    LET_GO = "ALTER TABLE share DROP CONSTRAINT keep"

    def __init__(self, url: str) -> None:
        self.connection = connect(url)
        # Neither foreign keys nor cascades stand in the way of whoever administers a database.
        self.connection.run("SET session_replication_role = replica")

    def run(self, sql: str, values: tuple = ()) -> list:
        given = {f"v{place}": value for place, value in enumerate(values, 1)}
        return self.connection.run(sql, **given) or []

    def tables(self) -> dict:
        rows = self.run(
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = current_schema() ORDER BY table_name, ordinal_position"
        )
        tables: dict = {}
        for table, column in rows:
            if not table.startswith("_sqlx"):
                tables.setdefault(table, []).append(column)
        return tables

    def key(self, table: str) -> list:
        rows = self.run(
            "SELECT a.attname FROM pg_index AS i JOIN pg_attribute AS a"
            " ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)"
            f" WHERE i.indrelid = '{table}'::regclass AND i.indisprimary"
        )
        return [name for (name,) in rows]


def connect(url: str) -> pg8000.native.Connection:
    server = urllib.parse.urlsplit(url)
    return pg8000.native.Connection(
        server.username, host=server.hostname, port=server.port, database=server.path.lstrip("/")
    )


def other(column: str, value: object, is_text: bool) -> object:
    if value is None:
        return OTHERS.get(column, "x") if is_text else 1
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return 1 - value if value in (0, 1) and column in FLAGS else value + 1
    if isinstance(value, (bytes, bytearray)):
        return bytes(value[:-1]) + bytes([value[-1] ^ 1]) if value else b"\1"
    good = OTHERS.get(column)
    return good if good not in (None, value) else value + "x"


FLAGS = {"enabled", "blocked", "revoked", "suspended", "mutates", "done"}


class Database:
    def __init__(self, url: str) -> None:
        self.database = Sqlite(url) if url.startswith("sqlite:") else Postgres(url)
        self.undone: tuple = ()

    def answer(self, command: dict) -> object:
        match command["do"]:
            case "tables":
                tables = self.database.tables().items()
                return {name: it for name, it in tables if self.has_rows(name)}
            case "empty":
                return [name for name in self.database.tables() if not self.has_rows(name)]
            case "keep":
                self.database.run(self.database.KEEP)
                return None
            case "let_go":
                self.database.run(self.database.LET_GO)
                return None
            case "change":
                try:
                    return self.change(command["table"], command["column"])
                except (sqlite3.IntegrityError, pg8000.native.DatabaseError) as error:
                    return f"refused: {error}"
            case "undo":
                return self.put(*self.undone)
            case "run":
                self.database.run(command["sql"])
                return None

    def has_rows(self, table: str) -> bool:
        return bool(self.database.run(f"SELECT count(*) FROM {table}")[0][0])

    def change(self, table: str, column: str) -> str:
        columns = self.database.tables()[table]
        key = self.database.key(table)
        row = dict(zip(columns, self.row(table, columns), strict=True))
        value = row[column]
        texts = {"tenant", "base_url", "preferred_provider", "owner", "key_group", "request_id"}
        new = other(column, value, column in texts)
        where = {name: row[name] for name in key}
        key_now = where | {column: new}
        self.put(table, column, new, where)
        # Only as it was changed: what the broker has written since then stays.
        self.undone = (table, column, value, key_now)
        return f"{value!r} to {new!r}"

    def row(self, table: str, columns: list) -> list:
        wanted = ", ".join(columns)
        if table == "tenant":
            of = " WHERE id = 'acme'"
        elif "tenant_uid" in columns and table != "person":
            of = " WHERE tenant_uid = (SELECT uid FROM tenant WHERE id = 'acme')"
        else:
            of = ""
        return self.database.run(f"SELECT {wanted} FROM {table}{of} ORDER BY 1 LIMIT 1")[0]

    def put(self, table: str, column: str, value: object, where: dict) -> bool:
        found = " AND ".join(f"{name} = :v{place}" for place, name in enumerate(where, 2))
        changed = f"UPDATE {table} SET {column} = :v1 WHERE {found} RETURNING 1"
        return bool(self.database.run(changed, (value, *where.values())))


def copy(url: str, name: str) -> str:
    server = urllib.parse.urlsplit(url)
    source = pg8000.native.identifier(server.path.lstrip("/"))
    connection = connect(server._replace(path="/postgres").geturl())
    deadline = time.monotonic() + 10
    try:
        while True:
            try:
                connection.run(f"CREATE DATABASE {pg8000.native.identifier(name)} TEMPLATE {source}")
                return server._replace(path=f"/{name}").geturl()
            except pg8000.native.DatabaseError as error:
                # The last connection of the broker is not gone yet.
                if "55006" not in str(error) or time.monotonic() > deadline:
                    raise
    finally:
        connection.close()


def main() -> None:
    command, *arguments = sys.argv[1:]
    if command == "copy":
        print(copy(*arguments), end="")
        return
    database = Database(*arguments)
    for line in sys.stdin:
        print(json.dumps(database.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
