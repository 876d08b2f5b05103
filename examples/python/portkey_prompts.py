# SPDX-License-Identifier: MPL-2.0
"""A prompt template of Vault's, whose model and virtual key the template chooses:

    vault write portkey/prompts/greeting virtual_key=team-a model=gpt-4o-mini \\
      messages='[{"role":"user","content":"Say hello to {{name}}."}]'
"""

# docs:begin portkey-python-prompts
from portkey_ai import Portkey

# docs:end portkey-python-prompts
from settings import GATEWAY, PROMPT, TOKEN

# docs:begin portkey-python-prompts
portkey = Portkey(api_key=TOKEN, base_url=GATEWAY)
variables = {"name": "Ada"}

answer = portkey.prompts.completions.create(prompt_id=PROMPT, variables=variables)
print(answer.choices[0].message.content)
# docs:end portkey-python-prompts

# docs:begin portkey-python-prompts-stream
for chunk in portkey.prompts.completions.create(prompt_id=PROMPT, variables=variables, stream=True):
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
# docs:end portkey-python-prompts-stream
print()

# docs:begin portkey-python-prompts-render
# The same without the call: what would be sent.
rendered = portkey.prompts.render(prompt_id=PROMPT, variables=variables)
print(rendered.data.messages[0]["content"])
# docs:end portkey-python-prompts-render
