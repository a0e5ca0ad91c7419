"""Makes a database of its own for one test.

    new_database.py URL NAME     prints the new database's URL
"""

import sys
import urllib.parse

import pg8000.native


def main(url: str, name: str) -> str:
    server = urllib.parse.urlsplit(url)
    connection = pg8000.native.Connection(
        server.username, host=server.hostname, port=server.port, database=server.path.lstrip("/")
    )
    try:
        connection.run(f"CREATE DATABASE {pg8000.native.identifier(name)}")
    finally:
        connection.close()
    return server._replace(path=f"/{name}").geturl()


if __name__ == "__main__":
    print(main(*sys.argv[1:]), end="")
