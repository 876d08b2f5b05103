// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// promptCall is a call of a prompt template, whichever door it takes.
type promptCall struct {
	ref    string         // <name> or <name>@<version>
	action string         // "" is completions
	body   map[string]any // nil has the variable name alone
	header http.Header
}

func (p promptCall) path() string {
	action := p.action
	if action == "" {
		action = "completions"
	}
	return "prompts/" + p.ref + "/" + action
}

// promptDoor is a way to a prompt template with a Vault token.
type promptDoor struct {
	name     string
	redirect string // what the gateway's setting must be for it
	send     func(c caller, t *testing.T, p promptCall) *vaulttest.Response
}

func promptDoors() []promptDoor {
	samePath := func(url func(caller) string, follow bool) func(caller, *testing.T, promptCall) *vaulttest.Response {
		return func(c caller, t *testing.T, p promptCall) *vaulttest.Response {
			t.Helper()
			client := from(t, c.source, url(c), c.token)
			if follow {
				client = following(client)
			}
			return p.send(t, client, c.mount+"/"+p.path())
		}
	}
	vault, gateway := func(c caller) string { return c.vault.Addr }, func(c caller) string { return c.url }
	return []promptDoor{
		{"Inline", "off", samePath(vault, false)},
		{"GatewaySamePath", "off", samePath(gateway, false)},
		{"GatewayAsPortkeysSDKs", "off", func(c caller, t *testing.T, p promptCall) *vaulttest.Response {
			t.Helper()
			p.header = maps.Clone(p.header)
			if p.header == nil {
				p.header = http.Header{}
			}
			p.header.Set("X-Portkey-Api-Key", c.token)
			p.header.Set("Authorization", "Bearer OPENAI_API_KEY")
			return p.send(t, from(t, c.source, c.url, ""), p.path())
		}},
		{"RedirectFromVault", "all", samePath(vault, true)},
	}
}

func (p promptCall) send(t *testing.T, c *vaulttest.Client, path string) *vaulttest.Response {
	t.Helper()
	body := p.body
	if body == nil {
		body = map[string]any{"variables": map[string]any{"name": "Ann"}}
	}
	return errand{method: http.MethodPost, body: body, header: p.header}.send(t, c, path)
}

// prompt makes a template on a virtual key, unless fields say otherwise: it greets its
// variable name.
func (g *gatewayRig) prompt(t *testing.T, name, role string, fields map[string]any) {
	t.Helper()
	body := map[string]any{
		"virtual_key": role, "model": "up-ok", "variables": "name", "messages": []any{map[string]any{"role": "user", "content": "Hello {{name}}!"}},
	}
	maps.Copy(body, fields)
	g.root.Write(t, g.mount+"/prompts/"+name, body)
}

// eachPromptDoor runs test at each door, which is open then.
func (g *gatewayRig) eachPromptDoor(t *testing.T, test func(t *testing.T, d promptDoor)) {
	t.Helper()
	for _, redirect := range []string{"off", "all"} {
		g.open(t, map[string]any{"redirect": redirect})
		for _, d := range promptDoors() {
			if d.redirect == redirect {
				t.Run(d.name, func(t *testing.T) { test(t, d) })
			}
		}
	}
}

// judgedPrompt is a row of the table of policies, in which NAME is the template's
// name, ROLE its virtual key's, MOUNT the mount's path.
type judgedPrompt struct {
	name   string
	policy string
	call   promptCall // of the template itself, where ref is empty; "@1" is of its first version
	in     bool
}

func promptRows() []judgedPrompt {
	const plain = `path "MOUNT/prompts/NAME/completions" { capabilities = ["update"] }`
	onPath := func(what string) string {
		return `path "MOUNT/prompts/NAME/completions" { capabilities = ["update"]` + "\n" + what + "\n}"
	}
	body := func(more map[string]any) promptCall {
		return promptCall{body: with(map[string]any{"variables": map[string]any{"name": "Ann"}}, more)}
	}
	return []judgedPrompt{
		{name: "PromptPathIsEnough", policy: plain, in: true},
		{name: "PolicyOnTheVirtualKeyIsNot", policy: `path "MOUNT/proxy/ROLE/*" { capabilities = ["create", "read", "update", "delete"] }
			path "MOUNT/proxy/ROLE" { capabilities = ["update"] }`},
		{name: "PolicyOnTheTemplateItselfIsNot", policy: `path "MOUNT/prompts/NAME" { capabilities = ["create", "read", "update", "patch", "delete"] }`},
		{name: "RenderIsNotCompletions", policy: `path "MOUNT/prompts/NAME/render" { capabilities = ["update"] }`},
		{name: "CompletionsIsNotRender", policy: plain, call: promptCall{action: "render"}},
		{name: "VersionNeedsItsOwnPath", policy: plain, call: promptCall{ref: "@1"}},
		{name: "LatestNeedsItsOwnPath", policy: plain, call: promptCall{ref: "@latest"}},
		{name: "VersionsByGlob", policy: `path "MOUNT/prompts/NAME@*" { capabilities = ["update"] }`, call: promptCall{ref: "@1"}, in: true},
		{name: "GlobOfVersionsIsNotTheName", policy: `path "MOUNT/prompts/NAME@*" { capabilities = ["update"] }`},
		{name: "OneVersion", policy: `path "MOUNT/prompts/NAME@1/completions" { capabilities = ["update"] }`, call: promptCall{ref: "@1"}, in: true},
		{name: "AnotherVersion", policy: `path "MOUNT/prompts/NAME@2/completions" { capabilities = ["update"] }`, call: promptCall{ref: "@1"}},
		{name: "SegmentWildcard", policy: `path "MOUNT/prompts/+/completions" { capabilities = ["update"] }`, call: promptCall{ref: "@latest"}, in: true},
		{name: "ReadIsNotUpdate", policy: `path "MOUNT/prompts/NAME/completions" { capabilities = ["read", "create"] }`},
		{name: "DenyBeatsGlob", policy: `path "MOUNT/prompts/*" { capabilities = ["update"] }` + "\n" + `path "MOUNT/prompts/NAME/completions" { capabilities = ["deny"] }`},
		{name: "DeniedParameterAbsent", policy: onPath(`denied_parameters = { "max_tokens" = [] }`), in: true},
		{name: "DeniedParameter", policy: onPath(`denied_parameters = { "max_tokens" = [] }`), call: body(map[string]any{"max_tokens": 5})},
		{name: "DeniedVariables", policy: onPath(`denied_parameters = { "variables" = [] }`)},
		{name: "DeniedModel", policy: onPath(`denied_parameters = { "model" = ["up-echo"] }`), call: body(map[string]any{"model": "up-echo"})},
		{name: "DeniedModelIsAnother", policy: onPath(`denied_parameters = { "model" = ["up-no-usage"] }`), call: body(map[string]any{"model": "up-echo"}), in: true},
		{name: "AllowedParameters", policy: onPath(`allowed_parameters = { "variables" = [], "temperature" = [], "gateway_nonce" = [] }`),
			call: body(map[string]any{"temperature": 0.5}), in: true},
		{name: "AllowedParametersMiss", policy: onPath(`allowed_parameters = { "variables" = [], "gateway_nonce" = [] }`), call: body(map[string]any{"temperature": 0.5})},
		{name: "RequiredParameter", policy: onPath(`required_parameters = ["user"]`), call: body(map[string]any{"user": "u"}), in: true},
		{name: "RequiredParameterMisses", policy: onPath(`required_parameters = ["user"]`)},
		{name: "NoPolicy", policy: `path "sys/health" { capabilities = ["read"] }`},
	}
}

// TestPrompts_PolicyDecidesTheSameAtEveryDoor: what is let in is known by hand.
func TestPrompts_PolicyDecidesTheSameAtEveryDoor(t *testing.T) {
	for _, mount := range []string{mount, "team/prompts"} {
		t.Run(mount, func(t *testing.T) {
			g := startGateway(t, gatewayOptions{mount: mount})
			g.role(t, "behind", nil)
			addresses := &sources{}
			rows := promptRows()
			for _, row := range rows {
				name := strings.ToLower(row.name)
				g.prompt(t, name, "behind", nil)
				g.vault.Policy(t, name, strings.NewReplacer("NAME", name, "ROLE", "behind", "MOUNT", mount).Replace(row.policy))
			}
			g.eachPromptDoor(t, func(t *testing.T, d promptDoor) {
				for _, row := range rows {
					t.Run(row.name, func(t *testing.T) {
						name := strings.ToLower(row.name)
						call := row.call
						call.ref = name + call.ref
						before := g.up.Received()
						resp := d.send(caller{gatewayRig: g, source: addresses.next(), token: g.vault.Token(t, name)}, t, call)
						if in := g.up.Received() > before; in != row.in || in != (resp.Status == http.StatusOK) || !in && resp.Status != http.StatusForbidden {
							t.Fatalf("it got in: %t, expected %t: %.1000s", in, row.in, resp)
						}
					})
				}
			})
		})
	}
}

// renderedTo is what a template was filled in to.
func renderedTo(t *testing.T, resp *vaulttest.Response) map[string]any {
	t.Helper()
	wantStatus(t, resp, http.StatusOK)
	var answer struct {
		Success bool           `json:"success"`
		Data    map[string]any `json:"data"`
	}
	if err := json.Unmarshal(resp.Body, &answer); err != nil || !answer.Success {
		t.Fatalf("no answer of Portkey's: %s", resp)
	}
	return answer.Data
}
