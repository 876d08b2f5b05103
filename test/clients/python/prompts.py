# SPDX-License-Identifier: MPL-2.0
"""What portkey-ai makes of a prompt template by every way to it, as conformance.py
does. The template is greeting, after the way's model_prefix: one message that says
"Say hello to {{name}}." to up-ok, with a temperature of 0.25, in version 1.
"""

from conformance import ANSWER, CHAT, PIECES, Case, main, pieces, said

VARIABLES = {"name": 'Ann "the\n{{first}}" & Co.'}
GREETING = [{"role": "user", "content": f"Say hello to {VARIABLES['name']}."}]
TOKENS = -(-len(GREETING[0]["content"].encode()) // 4)

CASES = [
    Case("completion",
         lambda c, m: c.prompts.completions.create(prompt_id=m("greeting"), variables=VARIABLES),
         CHAT, {"model": "up-ok", "messages": GREETING, "temperature": 0.25},
         said, [ANSWER, "stop", TOKENS, 5]),
    Case("completion of a version, with other parameters",
         lambda c, m: c.prompts.completions.create(prompt_id=m("greeting@1"), variables=VARIABLES, max_tokens=2, temperature=0.5),
         CHAT, {"messages": GREETING, "temperature": 0.5, "max_tokens": 2},
         said, ["Hello from", "length", TOKENS, 2]),
    Case("streamed completion",
         lambda c, m: c.prompts.completions.create(prompt_id=m("greeting"), variables=VARIABLES, stream=True),
         CHAT, {"messages": GREETING, "stream": True},
         pieces, PIECES),
    Case("render",
         lambda c, m: c.prompts.render(prompt_id=m("greeting"), variables=VARIABLES, max_tokens=7),
         "", {},
         lambda a: [a.success, a.data.model, a.data.messages[0]["content"], a.data.max_tokens],
         [True, "up-ok", GREETING[0]["content"], 7]),
]

if __name__ == "__main__":
    main(CASES)
