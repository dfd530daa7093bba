"""What is proposed to who names a model that is not there: what they may call, nearest first, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from clients import RawClient
from gateways import RunningGateway, entry, running_gateway
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.accounts import Role, Terms
from gateway.model_lookup import near_names

DEAD = "http://127.0.0.1:9"
MODELS: list[dict[str, Any]] = [
    {"id": "Midm-K-2.5-Pro", "serving": {"kind": "none", "reason": "not published"}},
    {"id": "Midm-2.0-Large", "serving": {"kind": "vllm"}},
    {"id": "Midm-2.0-Mini", "serving": {"kind": "openai_api"}, "replicas": [{"url": DEAD, "api_key_env": "NOT_SET"}]},
    entry("Midm-2.0-Base-Instruct", DEAD),
    entry("A.X-4.0-Light", DEAD),
]


async def told(gateway: RunningGateway, name: str, key: str | None = None, path: str = "chat/completions") -> str:
    """The message about a model that is not there."""
    async with RawClient(gateway.url, key=key) as client:
        if path == "models":
            answer = await client.request("GET", f"/v1/models/{name}")
        elif path == "comparisons":
            answer = await client.request(
                "POST", "/api/comparisons", body={"models": [name, "A.X-4.0-Light"], "prompt": "a"}
            )
        else:
            answer = await client.request("POST", f"/v1/{path}", body={"model": name, "messages": []})
    error = answer.json()["error"]
    assert (answer.status, error["code"]) == (404, "model_not_found")
    message: str = error["message"]
    return message


@pytest.mark.parametrize("path", ["chat/completions", "models", "comparisons"])
async def test_only_models_that_can_be_called_are_proposed(tmp_path: Path, path: str) -> None:
    async with running_gateway(tmp_path, MODELS) as gateway:
        message = await told(gateway, "Midm-2.0", path=path)
        assert message == "There is no model 'Midm-2.0'. Did you mean 'Midm-2.0-Base-Instruct'?"


async def test_no_model_is_named_to_a_key_whose_scope_hides_it(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, MODELS, admin_key="k") as gateway:
        key = await gateway.key_of("acme", Terms(models=frozenset({"A.X-4.0-Light"})))
        assert await told(gateway, "Midm-2.0", key) == "There is no model 'Midm-2.0'. See GET /v1/models."
        assert "'A.X-4.0-Light'" in await told(gateway, "a.x-4", key)
        reviewer = await gateway.key_of("judges", Terms(roles=frozenset({Role.REVIEWER})))
        assert await told(gateway, "a.x-4", reviewer, "models") == "There is no model 'a.x-4'. See GET /v1/models."


def test_a_beginning_goes_before_a_likeness() -> None:
    names = ["EXAONE-3.0", "EXAONE-4.0-32B", "EXAONE-4.0", "solar"]
    assert near_names("exaone-4.0-3", names) == ["EXAONE-4.0", "EXAONE-4.0-32B", "EXAONE-3.0"]
    assert near_names("nothing like it", names) == []


@given(st.text(min_size=1, max_size=20), st.lists(st.text(min_size=1, max_size=8), max_size=8))
def test_at_most_three_names_are_proposed_and_each_is_one_of_those_there(asked: str, names: list[str]) -> None:
    near = near_names(asked, names)
    assert len(near) == len(set(near)) <= 3
    assert set(near) <= set(names)
