"""`helm test`: does the gateway answer, under its key, with the registry that this release carries?"""

import json
import os
import sys
import urllib.request

ANSWER_S = 20.0


def fetch(url: str, key: str = "") -> str:
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {key}"} if key else {})  # noqa: S310 - the release's own service
    with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:  # noqa: S310 - as above
        return str(answer.read().decode())


def main(url: str, registry_sha256: str) -> int:
    fetch(f"{url}/health")
    models = json.loads(fetch(f"{url}/v1/models", os.environ["SIMSA_ADMIN_KEY"]))["data"]
    sys.stdout.write(f"models that answer: {', '.join(model['id'] for model in models) or 'none yet'}\n")
    if f'simsa_registry_info{{sha256="{registry_sha256}"}} 1' not in fetch(f"{url}/metrics"):
        sys.stderr.write("the gateway uses another registry than this release carries: see /ready with a key\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
