"""The control port: POST /_control with {"call": NAME, ...arguments} calls a method of the hub.

    curl -d '{"call": "fault", "kind": "cut", "after": 1000}' http://127.0.0.1:PORT/_control
    curl http://127.0.0.1:PORT/_requests
"""

import json

from . import protocol

CALLS = ("add_repo", "add_token", "bytes_sent", "clear_faults", "commit", "expire_urls", "fault",
         "forget_requests", "limit", "rename", "requests", "tag", "token_origins")


def answer(request, hub):
    if request.method == "GET" and request.path == "/_requests":
        return protocol.as_json(hub.requests())
    if request.method != "POST" or request.path != "/_control":
        return protocol.error(404, "POST /_control or GET /_requests")
    try:
        arguments = json.loads(request.body)
        call = arguments.pop("call")
        if call not in CALLS:
            raise ValueError(f"no call is named {call!r}; there are {', '.join(CALLS)}")
        result = getattr(hub, call)(**arguments)
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as problem:
        return protocol.error(400, f"{type(problem).__name__}: {problem}")
    if call == "fault":
        result = result.options
    return protocol.as_json({"result": sorted(result) if isinstance(result, set) else result})
