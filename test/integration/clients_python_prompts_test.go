// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// pyTemplate is the template of prompts.py, on a virtual key.
func pyTemplate(role string) map[string]any {
	return map[string]any{
		"virtual_key": role, "model": "up-ok", "parameters": map[string]any{"temperature": 0.25}, "variables": []string{"name"},
		"messages": []any{map[string]any{"role": "user", "content": "Say hello to {{name}}."}},
	}
}

// pyPromptPolicy is a policy on templates alone.
func pyPromptPolicy(mount string) string {
	return `path "` + mount + `/prompts/*" { capabilities = ["update"] }` + "\n"
}

// TestClientsPython_Prompts: portkey-ai completes and renders a prompt template by
// every way to it, on a token that may use templates alone. What isn't to be sent,
// isn't; what is, reaches the provider filled in, and is charged to the template's
// virtual key.
func TestClientsPython_Prompts(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{settings: map[string]any{"redirect": "all"}})
	g.vault.Enable(t, pyInline, nil)
	p := startKeyedProvider(t)
	g.vault.Policy(t, "prompts", pyPromptPolicy(g.mount)+pyPromptPolicy(pyInline))
	token := g.vault.Token(t, "prompts")
	var doors []pyDoor
	for _, sdk := range []string{"portkey", "portkey-async"} {
		vault := map[string]string{"X-Vault-Token": token}
		doors = append(doors,
			pyDoor{Name: sdk + "-gateway", SDK: sdk, BaseURL: g.url + "/v1", mount: g.mount},
			pyDoor{Name: sdk + "-redirect", SDK: sdk, BaseURL: g.vault.Addr + "/v1/" + g.mount, HTTPHeaders: vault, mount: g.mount},
			pyDoor{Name: sdk + "-inline", SDK: sdk, BaseURL: g.vault.Addr + "/v1/" + pyInline, HTTPHeaders: vault, mount: pyInline})
	}
	for i := range doors {
		d := &doors[i]
		d.Key, d.ModelPrefix = token, d.Name+"-"
		p.virtualKeys(t, g, d.mount, nil, d.Name)
		g.root.Write(t, d.mount+"/prompts/"+d.Name+"-greeting", pyTemplate(d.Name))
	}
	out, err := pyProgram(t, pyPython(t, false), clients(t, "python"), "prompts.py", doors)
	if err != nil {
		t.Fatal(err)
	}
	made := map[string][]pyCase{}
	for line := range bytes.Lines(out) {
		var c pyCase
		if err := json.Unmarshal(line, &c); err != nil {
			t.Fatalf("%v in %.1000s", err, line)
		}
		if c.Error != "" || !reflect.DeepEqual(c.Got, c.Want) {
			t.Errorf("%s, %s: the package returned %v %s, expected %v", c.Door, c.Case, c.Got, c.Error, c.Want)
		}
		if made[c.Door] = append(made[c.Door], c); c.Path == "" {
			made[c.Door] = made[c.Door][:len(made[c.Door])-1] // it must not have arrived
		}
	}
	for _, d := range doors {
		cases, arrived := made[d.Name], p.arrived(d.Name)
		if len(cases) != 3 || len(arrived) != len(cases) {
			t.Errorf("%s: %d calls were to arrive, and %d did", d.Name, len(cases), len(arrived))
			continue
		}
		for i, c := range cases {
			c.wantArrival(t, &arrived[i], &d)
		}
		p.wantLedger(t, g, d.mount, d.Name)
	}
}

// TestClientsPython_PromptsExampleRuns: the example of prompts, on a token that may use
// its template alone.
func TestClientsPython_PromptsExampleRuns(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{})
	p := startKeyedProvider(t)
	p.virtualKeys(t, g, g.mount, nil, "greeter")
	g.root.Write(t, g.mount+"/prompts/greeting", pyTemplate("greeter"))
	g.vault.Policy(t, "prompts", pyPromptPolicy(g.mount))
	token := g.vault.Token(t, "prompts")
	out, err := pyProgram(t, pyPython(t, false), filepath.Join("..", "..", "examples", "python"), "portkey_prompts.py", nil,
		"VAULT_TOKEN="+token, "PORTKEY_GATEWAY="+g.url+"/v1")
	if want := pyHello + pyHello + "Say hello to Ada.\n"; err != nil || string(out) != want {
		t.Errorf("it printed\n%s\nexpected\n%s\n%v", out, want, err)
	}
	arrived := p.arrived("greeter")
	if len(arrived) != 2 {
		t.Errorf("%d requests arrived at the provider, expected 2", len(arrived))
	}
	for _, a := range arrived {
		a.wantOnlyProviderKey(t, "portkey_prompts.py", "greeter", token)
		if !strings.Contains(string(a.Body), "Say hello to Ada.") {
			t.Errorf("the provider received %s", a.Body)
		}
	}
	p.wantLedger(t, g, g.mount, "greeter")
}
