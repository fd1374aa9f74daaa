"""Start a server, ask it with OpenAI's client, and end it.

python examples/serve_openai.py

Needs: pip install 'embellama[server]' openai
"""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from openai import OpenAI

TEXTS = ["A cat sleeps.", "A kitten naps.", "Rates rose."]


@contextmanager
def server(*arguments: str) -> Iterator[str]:
    """Run a server at a free port, and give its address when its models are loaded."""
    command = [sys.executable, "-m", "embellama", "serve", *arguments, "--port", "0"]
    quiet = ["--no-access-log"]  # nobody reads the log after its first lines
    with subprocess.Popen([*command, *quiet], stderr=subprocess.PIPE, text=True) as process:
        events = (json.loads(line) for line in process.stderr)
        started = next((e for e in events if e["event"] == "embellama.server.started"), None)
        if started is None:
            raise RuntimeError("the server did not start")
        (address,) = started["addresses"]
        try:
            wait_until_ready(address)
            yield address
        finally:
            process.terminate()  # it finishes what it has
            process.communicate()
    print("ended with status", process.returncode)


def wait_until_ready(address: str) -> None:
    """Wait for the models; the first time they may have to be fetched."""
    while True:
        try:
            urllib.request.urlopen(f"{address}/ready", timeout=10).close()
            return
        except urllib.error.HTTPError as error:  # 503
            with error:
                state = json.load(error)
            if state["status"] != "loading":
                raise RuntimeError(f"not ready: {state}") from error
        time.sleep(0.1)


def main() -> None:
    with server("minilm") as address, OpenAI(base_url=f"{address}/v1", api_key="none") as client:
        reply = client.embeddings.create(model="minilm", input=TEXTS)
        vectors = np.array([item.embedding for item in reply.data], dtype=np.float32)
        print((vectors @ vectors.T).round(2))
        print(reply.usage.total_tokens, "tokens")

        # what OpenAI's API has no field for
        reply = client.embeddings.create(
            model="minilm",
            input="The cats of the city were counted again this year. " * 100,
            extra_body={"embellama": {"overflow": "window", "details": True}},
        )
        print(reply.model_extra["embellama"]["texts"][0])


if __name__ == "__main__":
    main()
