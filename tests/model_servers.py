"""A model server of the Open Inference Protocol whose models answer as a test says, in a thread of the test."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from contextlib import contextmanager

import uvicorn

#: How a model may answer, beside a score.
HANG, WRONG_SHAPE, NAN, BROKEN = "hang", "wrong shape", "NaN", "broken"


class ModelServer:
    """Serves every model name; `says` holds a score or one of the faults by name."""

    def __init__(self):
        self.says = {}
        self.asked = Counter()
        self.copied = Counter()  #: requests that carried the header of a copy
        self.url = ""

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        body = (await receive()).get("body", b"")
        name = scope["path"].split("/")[3]
        if scope["path"].endswith("/infer"):
            status, content = await self._infer(name, json.loads(body), dict(scope["headers"]))
        elif scope["path"].endswith("/ready"):
            status, content = 200, b"{}"
        else:
            status, content = 200, json.dumps(_metadata(name)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _infer(self, name, question, headers):
        self.asked[name] += 1
        self.copied[name] += headers.get(b"x-seatrial-shadow") == b"1"
        says = self.says.get(name, 0.1)
        if says == HANG:
            await asyncio.sleep(3_600)
        if says == BROKEN:
            return 500, b'{"error": "broken"}'
        data = [0.1, 0.2, 0.3] if says == WRONG_SHAPE else [says]
        output = {"name": "score", "datatype": "FP64", "shape": [len(data)], "data": data}
        answer = {"model_name": name, "id": question["id"], "outputs": [output]}
        text = json.dumps(answer)
        return 200, text.replace('"NaN"', "NaN").encode() if says == NAN else text.encode()


def _metadata(name):
    return {
        "name": name,
        "versions": [],
        "platform": "test",
        "inputs": [{"name": "distance", "datatype": "FP64", "shape": [-1, 1]}],
        "outputs": [{"name": "score", "datatype": "FP64", "shape": [-1, 1]}],
    }


@contextmanager
def running(app):
    """Run an ASGI application on a free port of loopback, and give its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    ends = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < ends, "the model server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.force_exit = True
        server.should_exit = True
        thread.join(60)
