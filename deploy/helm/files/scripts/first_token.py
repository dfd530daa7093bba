"""Start-up probe of an engine: has it answered a completion of one token yet?

Some engines load, answer /health with 200 and die of their first request. Runs inside the engine's container, so it
knows the standard library of its Python alone. A refusal proves life as well as a token does.
"""

import http.client
import json
import sys

ANSWER_S = 50.0
OVERLOADED = 503


def main(port: str, served_model_name: str) -> int:
    body = json.dumps({"model": served_model_name, "prompt": "1", "max_tokens": 1, "temperature": 0})
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=ANSWER_S)
    try:
        connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 1
    finally:
        connection.close()
    return int(status >= 500 and status != OVERLOADED)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
