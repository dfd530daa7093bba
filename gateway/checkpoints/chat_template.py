"""The stand-ins' chat template: turns between control tokens, and the candidate's own switch for reasoning.

A switch shows in the prompt, as it does with the candidates: switched on, the answer begins inside `<think>`; off,
after an empty pair of tags. So its effect can be counted in prompt tokens, whatever random weights say then.
"""

from __future__ import annotations

from gateway.domain.records import Model

PLACE_IN_TEMPLATE = "chat_template_kwargs"

_TOOLS = (
    "{%- if tools %}{{ '<|start|>system\\n' }}"
    "{%- for tool in tools %}{{ tool | tojson + '\\n' }}{%- endfor %}{{ '<|end|>\\n' }}{%- endif %}"
)
_TURNS = (
    "{%- for message in messages %}"
    "{{ '<|start|>' + message['role'] + '\\n' + (message['content'] or '') }}"
    "{%- for call in message['tool_calls'] or [] %}"
    "{{ '<tool_call>' + (call['function'] | tojson) + '</tool_call>' }}{%- endfor %}"
    "{{ '<|end|>\\n' }}{%- endfor %}"
)
_ANSWER = "{%- if add_generation_prompt %}{{ '<|start|>assistant\\n' }}", "{%- endif %}"


def chat_template(model: Model) -> str:
    """The content of chat_template.jinja. A switch whose default is not known counts as off."""
    switch = model.reasoning
    if switch is None or switch.place != PLACE_IN_TEMPLATE:
        return _TOOLS + _TURNS + "".join(_ANSWER)
    default = "true" if switch.default == "true" else "false"
    thinking = f"{{%- if {switch.name} | default({default}) %}}"
    thinking += "{{ '<think>\\n' }}{%- else %}{{ '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
    return _TOOLS + _TURNS + thinking.join(_ANSWER)
