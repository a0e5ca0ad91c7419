"""Receives signed webhooks and verifies them by the sample in docs/webhooks.md, as it stands there.

    webhook.py SECRET_FILE [--refuse COUNT]

Prints the port that it listens on, and then one JSON object for each call: what was in it, and whether
it was taken. The first COUNT calls are answered with 503. With each call that is taken it tries what
must not pass: the same with another body, with an old time, with a later time put in, and by another
secret.
"""

import argparse
import http.server
import json
import pathlib
import time

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "webhooks.md"


def sample():
    """What the document defines."""
    _, _, rest = DOCUMENT.read_text().partition("```python\n")
    defined = {}
    exec(rest.partition("```")[0], defined)
    return defined


SAMPLE = sample()
is_genuine, REPLAY_WINDOW_SECONDS = SAMPLE["is_genuine"], SAMPLE["REPLAY_WINDOW_SECONDS"]


def controls(header, body, secret, now):
    """What must not pass; each is false where verification is sound."""
    late = header.replace(header.split(",")[0], f"t={now + 60}")
    return {
        "changed_body": is_genuine(header, body.replace(b"acme", b"evil"), secret, now),
        "old": is_genuine(header, body, secret, now + REPLAY_WINDOW_SECONDS + 60),
        "changed_time": is_genuine(late, body, secret, now),
        "other_secret": is_genuine(header, body, secret + b"x", now),
        "unsigned": is_genuine("", body, secret, now),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("secret")
    parser.add_argument("--refuse", type=int, default=0)
    arguments = parser.parse_args()
    secret = pathlib.Path(arguments.secret).read_bytes().strip()
    left = [arguments.refuse]

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            header = self.headers.get("strongroom-signature", "")
            now = int(time.time())
            genuine = is_genuine(header, body, secret, now)
            taken = genuine and left[0] == 0
            left[0] = max(0, left[0] - 1)
            self.send_response(204 if taken else 503 if genuine else 401)
            self.send_header("content-length", "0")
            self.end_headers()
            said = {"path": self.path, "genuine": genuine, "taken": taken}
            said["passed"] = controls(header, body, secret, now)
            said["signatures"] = header.count("v1=")
            print(json.dumps(said | {"event": json.loads(body)}), flush=True)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
