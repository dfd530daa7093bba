"""The part of a Kubernetes API server that Helm's `lookup` asks: which kinds there are, and single objects.

It keeps nothing but the objects that it was given and refuses to change them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import yaml
from manifests import Manifest, name_of


@contextmanager
def api_server(objects: Sequence[Manifest], known: Sequence[Manifest], directory: Path) -> Iterator[Path]:
    """The kubeconfig of a server that has these objects and no others, until the block ends. It knows the kinds of
    `known`.
    """
    documents = {**discovery(known), **{address(made): made for made in objects}}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = documents.get(self.path.partition("?")[0])
            missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            body = json.dumps(missing if found is None else found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *said: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        kubeconfig = directory / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(access_to(f"http://127.0.0.1:{server.server_port}")), encoding="utf-8")
        yield kubeconfig
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def owned(made: Manifest, release: str = "simsa") -> Manifest:
    """As Helm marks what it applies; it leaves alone what is not its own."""
    metadata = made["metadata"]
    marks = {"meta.helm.sh/release-name": release, "meta.helm.sh/release-namespace": metadata["namespace"]}
    return {**made, "metadata": {**metadata, "annotations": {**metadata.get("annotations", {}), **marks}}}


def discovery(known: Sequence[Manifest]) -> dict[str, Mapping[str, Any]]:
    """What a client reads before it asks for anything: versions, groups, and the kinds of each."""
    kinds: dict[str, set[str]] = {"v1": set()}
    for made in known:
        kinds.setdefault(made["apiVersion"], set()).add(made["kind"])
    found: dict[str, Mapping[str, Any]] = {
        "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group(name) for name in kinds if "/" in name]},
    }
    for version, names in kinds.items():
        resources = [
            {"name": word_of(kind), "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": ["get"]}
            for kind in sorted(names)
        ]
        found[root_of(version)] = {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
    return found


def group(version: str) -> Mapping[str, Any]:
    name, _, number = version.partition("/")
    one = {"groupVersion": version, "version": number}
    return {"name": name, "versions": [one], "preferredVersion": one}


def address(made: Manifest) -> str:
    namespace = f"{root_of(made['apiVersion'])}/namespaces/{made['metadata']['namespace']}"
    return f"{namespace}/{word_of(made['kind'])}/{name_of(made)}"


def root_of(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def word_of(kind: str) -> str:
    """A kind in addresses."""
    word = kind.lower()
    return word[:-1] + "ies" if word.endswith("y") else word + ("es" if word.endswith("s") else "s")


def access_to(url: str) -> Mapping[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "nobody"}}],
        "clusters": [{"name": "here", "cluster": {"server": url}}],
        "users": [{"name": "nobody", "user": {}}],
    }
