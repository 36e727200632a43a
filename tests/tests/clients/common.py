"""What the client scripts share: arguments, keys, and an end that is either a line of JSON or a traceback."""

import argparse
import hashlib
import json
import os
import pathlib
import sys


def arguments(*names):
    """Parses `--name value` for each name; all are required."""
    parser = argparse.ArgumentParser()
    for name in names:
        parser.add_argument("--" + name, required=True)
    return parser.parse_args()


def keys():
    """The access key and its secret, from the environment."""
    return os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]


def region():
    return os.environ["AWS_DEFAULT_REGION"]


def target(into, prefix, key):
    """The file a key is downloaded to, its directory made."""
    relative = key.removeprefix(prefix).lstrip("/")
    path = pathlib.Path(into) / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def body(seed, length):
    """Bytes that depend on the seed alone."""
    out = bytearray()
    block = hashlib.sha256(seed.encode()).digest()
    while len(out) < length:
        block = hashlib.sha256(block).digest()
        out += block * 64
    return bytes(out[:length])


def expect(condition, message):
    if not condition:
        sys.exit("expected: " + message)


def report(**values):
    print(json.dumps(values))
