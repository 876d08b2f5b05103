// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"testing"
)

// sdkCall is what test/clients/*/calls.* do for one call.
type sdkCall struct {
	Name string `json:"name"`
	// SDK is the package: openai or portkey, and in Python both with -async.
	SDK           string            `json:"sdk"`
	Do            string            `json:"do"`
	BaseURL       string            `json:"base_url"`
	Key           string            `json:"api_key"`
	VirtualKey    string            `json:"virtual_key,omitempty"`
	Authorization string            `json:"authorization,omitempty"`
	Headers       map[string]string `json:"headers,omitempty"`
	Params        json.RawMessage   `json:"params"`
	Files         map[string]any    `json:"files,omitempty"`
	StopAfter     int               `json:"stop_after,omitempty"`
}

// sdkEnd is what became of one.
type sdkEnd struct {
	Name     string
	Text     string
	Arrivals []float64 // of pieces of text, in ms since the call
	Error    *struct {
		Class, Message string
		Code           any
		Status         int
	}
}

// sdkLanguages are those of test/clients.
var sdkLanguages = []string{"node", "python"}

// runCalls makes the calls, all at once, with the packages of a language.
func runCalls(t *testing.T, language string, calls []sdkCall) map[string]sdkEnd {
	t.Helper()
	name, args := os.Getenv("PYTHON_CLIENTS"), []string{"calls.py"}
	if language == "node" {
		name, args = "node", []string{"calls.js"}
	}
	if name == "" {
		t.Fatal("PYTHON_CLIENTS isn't set: run `make test`, which installs the Python SDKs and sets it")
	}
	in, err := json.Marshal(calls)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = clients(t, language)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "PYTHONDONTWRITEBYTECODE=1"}
	var out, complaints bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &complaints
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, complaints.Bytes())
	}
	var list []sdkEnd
	if err := json.Unmarshal(out.Bytes(), &list); err != nil || len(list) != len(calls) {
		t.Fatalf("%v of %d calls said %.2000s (%v)\n%s", cmd.Args, len(calls), out.Bytes(), err, complaints.Bytes())
	}
	ends := make(map[string]sdkEnd, len(list))
	for _, end := range list {
		ends[end.Name] = end
	}
	return ends
}

// params is the JSON of what an SDK's create is given.
func params(t *testing.T, v any) json.RawMessage {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// sdkDoors are the ways by which SDKs come to a virtual key: to the gateway, by
// Vault's path and by the provider's, and to Vault itself.
func (g *gatewayRig) sdkDoors(language, role, token string) []sdkCall {
	proxy := "/v1/" + proxyPath(g.mount, role, "v1")
	doors := []sdkCall{
		{Name: "openai, Vault's path at the gateway", SDK: "openai", BaseURL: g.url + proxy, Key: token},
		{Name: "openai, the provider's path at the gateway", SDK: "openai", BaseURL: g.url + "/v1", Key: token,
			Headers: map[string]string{"x-portkey-virtual-key": role}},
		{Name: "portkey-ai, the gateway", SDK: "portkey", BaseURL: g.url + "/v1", Key: token, VirtualKey: role},
		{Name: "openai, Vault", SDK: "openai", BaseURL: g.vault.Addr + proxy, Key: token},
		{Name: "portkey-ai, Vault", SDK: "portkey", BaseURL: g.vault.Addr + proxy, Key: token, Authorization: "Bearer " + token},
	}
	if language == "python" {
		for _, door := range doors[:4] {
			if door.SDK += "-async"; door.BaseURL != doors[1].BaseURL || door.VirtualKey != "" {
				door.Name += ", async"
				doors = append(doors, door)
			}
		}
	}
	return doors
}
