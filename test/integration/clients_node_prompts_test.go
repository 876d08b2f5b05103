// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"strings"
	"testing"
)

// nodeTemplate writes the template of conformance.js for a virtual key, in two
// versions of which the second is published, and returns its name.
func nodeTemplate(t *testing.T, g *gatewayRig, mount, role string) string {
	t.Helper()
	name := role + "-greeting"
	for _, verb := range []string{"Say hello to", "Greet"} {
		g.root.Write(t, mount+"/prompts/"+name, map[string]any{
			"virtual_key": role, "model": "up-ok", "parameters": map[string]any{"temperature": 0.25},
			"variables": []string{"name"}, "locked": []string{"max_tokens"},
			"messages": []any{map[string]any{"role": "user", "content": verb + " {{name}}."}},
		})
	}
	g.root.Write(t, mount+"/prompts/"+name+"/publish", map[string]any{"version": 2})
	return name
}

// nodePromptPolicy is a policy on templates alone.
func nodePromptPolicy(mount string) string {
	return `path "` + mount + `/prompts/*" { capabilities = ["update"] }` + "\n"
}

// TestClientsNode_Prompts: portkey-ai completes and renders a prompt template through
// every door, on a token that may use templates alone or on a leased key of the
// template's virtual key, which is charged.
func TestClientsNode_Prompts(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{settings: map[string]any{"redirect": "all"}})
	g.vault.Enable(t, nodeInline, nil)
	p := startKeyedProvider(t)
	g.vault.Policy(t, "prompts", nodePromptPolicy(g.mount)+nodePromptPolicy(nodeInline))
	token := g.vault.Token(t, "prompts")
	doors := []nodeDoor{
		{Name: "prompts-gateway", BaseURL: g.url + "/v1", mount: g.mount},
		{Name: "prompts-named", BaseURL: g.url + "/v1", VirtualKey: "prompts-named", mount: g.mount},
		{Name: "prompts-leased", BaseURL: g.url + "/v1", mount: g.mount},
		{Name: "prompts-path", BaseURL: g.url + "/v1/" + g.mount, mount: g.mount},
		{Name: "prompts-redirect", BaseURL: g.vault.Addr + "/v1/" + g.mount, Authorization: "Bearer " + token, JSONOnly: true, mount: g.mount},
		{Name: "prompts-inline", BaseURL: g.vault.Addr + "/v1/" + nodeInline, Authorization: "Bearer " + token, JSONOnly: true, mount: nodeInline},
	}
	for i := range doors {
		d := &doors[i]
		p.virtualKeys(t, g, d.mount, nil, d.Name)
		d.SDK, d.Key, d.Prompt = "portkey", token, nodeTemplate(t, g, d.mount, d.Name)
		if strings.HasSuffix(d.Name, "-leased") {
			d.Key, _ = g.root.Read(t, g.mount+"/creds/"+d.Name).Data()["api_key"].(string)
		}
	}
	nodeConform(t, g, p, doors, 3)
}

// TestClientsNode_PromptsExampleRuns: the example of prompt templates, on a token that
// may use its template alone.
func TestClientsNode_PromptsExampleRuns(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{})
	p := startKeyedProvider(t)
	p.virtualKeys(t, g, g.mount, nil, "greeter")
	name := nodeTemplate(t, g, g.mount, "greeter")
	g.vault.Policy(t, "prompts", nodePromptPolicy(g.mount))
	token := g.vault.Token(t, "prompts")
	out, err := nodeProgram(t.Context(), nodeExamplesFolder(t), "portkey-prompts.mjs", nil, "VAULT_TOKEN="+token, "PORTKEY_GATEWAY="+g.url+"/v1", "PROMPT="+name)
	if want := nodeHello + nodeHello + "Greet Ada.\n"; err != nil || string(out) != want {
		t.Errorf("it printed\n%s\nexpected\n%s\n%v", out, want, err)
	}
	if n := len(p.arrived("greeter")); n != 2 {
		t.Errorf("%d requests arrived at the provider, expected 2", n)
	}
	for _, a := range p.arrived("greeter") {
		a.wantOnlyProviderKey(t, "portkey-prompts.mjs", "greeter", token)
	}
	p.wantLedger(t, g, g.mount, "greeter")
}
