"""The stand-in hub as a program, for trying things by hand and for clients in other languages."""

import argparse
import json
import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from hub import Hub  # pylint: disable=wrong-import-position


def _arguments():
    parser = argparse.ArgumentParser(prog="tests/hub", description=__doc__)
    parser.add_argument("--repo", action="append", default=[], metavar="NAME=FOLDER",
                        help="serve FOLDER as the repository NAME; may be given again")
    parser.add_argument("--private", action="append", default=[], metavar="NAME")
    parser.add_argument("--gated", action="append", default=[], metavar="NAME")
    parser.add_argument("--token", action="append", default=[], metavar="TOKEN=REPO,...",
                        help="a token and the private and gated ones that it reads ('*': all)")
    parser.add_argument("--fault", action="append", default=[], metavar="JSON",
                        help='such as \'{"kind": "cut", "after": 1000, "times": null}\'; faults.py')
    parser.add_argument("--http", action="store_true", help="without TLS")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", metavar="FILE", help="a line of JSON for each request")
    parser.add_argument("--rate", type=float, metavar="BYTES", help="a second, in all")
    parser.add_argument("--rate-each", type=float, metavar="BYTES",
                        help="a second, each connection")
    return parser.parse_args()


def main():
    arguments = _arguments()
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before there are threads, which inherit it
    with Hub(tls=not arguments.http, log=arguments.log, rate=arguments.rate,
             rate_each=arguments.rate_each, port=arguments.port) as hub:
        for text in arguments.repo:
            name, _, folder = text.partition("=")
            hub.add_repo(name, folder, name in arguments.private,
                         "auto" if name in arguments.gated else False)
        for text in arguments.token:
            token, _, names = text.partition("=")
            hub.add_token(token, read=names.split(","))
        for text in arguments.fault:
            hub.fault(**json.loads(text))
        for name, value in {**hub.env(), "HUB_CONTROL": hub.control_url}.items():
            print(f"export {name}={value}")
        sys.stdout.flush()
        signal.sigwait(signals)


if __name__ == "__main__":
    main()
