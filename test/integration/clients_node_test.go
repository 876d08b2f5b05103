// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"mime"
	"mime/multipart"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

// nodeLimit is how long a program may take: far longer than any does.
const nodeLimit = 2 * time.Minute

// nodeProgram runs a program of a folder with its input as JSON, and returns what it
// prints. It fails if the program does.
func nodeProgram(ctx context.Context, folder, program string, input any, env ...string) ([]byte, error) {
	text, err := json.Marshal(input)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, nodeLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", program)
	cmd.Dir = folder
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + folder}, env...)
	var out, complaints bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(text), &out, &complaints
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("node %s: %w\n%.5000s\n%.5000s", program, err, out.Bytes(), complaints.Bytes())
	}
	return out.Bytes(), nil
}

// nodeLines reads a program's output, which is a JSON value a line.
func nodeLines[T any](t *testing.T, out []byte) (lines []T) {
	t.Helper()
	for line := range bytes.Lines(out) {
		var v T
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatalf("%v in %.1000s", err, line)
		}
		lines = append(lines, v)
	}
	return lines
}

// nodeDoor is a way to a virtual key, which has that name too.
type nodeDoor struct {
	Name          string            `json:"name"`
	SDK           string            `json:"sdk"`
	BaseURL       string            `json:"base_url"`
	Key           string            `json:"api_key"`
	VirtualKey    string            `json:"virtual_key,omitempty"`
	Authorization string            `json:"authorization,omitempty"`
	Headers       map[string]string `json:"headers,omitempty"`
	// JSONOnly says that requests pass through Vault, which takes nothing else.
	JSONOnly bool   `json:"json_only"`
	Prompt   string `json:"prompt,omitempty"` // for the calls of templates
	mount    string // where the virtual key is
}

// nodeInline is the mount without a gateway.
const nodeInline = "inline"

// nodeDoors are those of the conformance suite: the gateway, with a token and with a
// leased key; Vault, which sends on to the gateway; and Vault alone.
func nodeDoors(t *testing.T, g *gatewayRig, p *keyedProvider) []nodeDoor {
	t.Helper()
	vault := func(name, sdk, mount string) nodeDoor {
		return nodeDoor{Name: name, SDK: sdk, BaseURL: g.vault.Addr + "/v1/" + proxyPath(mount, name, "v1"), JSONOnly: true, mount: mount}
	}
	doors := []nodeDoor{
		{Name: "openai-header", SDK: "openai", BaseURL: g.url + "/v1", Headers: map[string]string{"x-portkey-virtual-key": "openai-header"}, mount: g.mount},
		{Name: "openai-path", SDK: "openai", BaseURL: g.url + "/v1/" + proxyPath(g.mount, "openai-path", "v1"), mount: g.mount},
		{Name: "openai-leased", SDK: "openai", BaseURL: g.url + "/v1", mount: g.mount},
		{Name: "portkey-gateway", SDK: "portkey", BaseURL: g.url + "/v1", VirtualKey: "portkey-gateway", mount: g.mount},
		{Name: "portkey-leased", SDK: "portkey", BaseURL: g.url + "/v1", VirtualKey: "portkey-leased", mount: g.mount},
		vault("openai-redirect", "openai", g.mount), vault("portkey-redirect", "portkey", g.mount),
		vault("openai-inline", "openai", nodeInline), vault("portkey-inline", "portkey", nodeInline),
	}
	var policies []string
	for _, d := range doors {
		p.virtualKeys(t, g, d.mount, nil, d.Name)
		g.vault.Policy(t, d.Name, policyFile(t, "app.hcl", d.mount, d.Name))
		policies = append(policies, d.Name)
	}
	token := g.vault.Token(t, policies...)
	for i := range doors {
		d := &doors[i]
		if d.Key = token; strings.HasSuffix(d.Name, "-leased") {
			d.Key, _ = g.root.Read(t, g.mount+"/creds/"+d.Name).Data()["api_key"].(string)
		}
		if d.SDK == "portkey" && d.JSONOnly {
			d.Authorization = "Bearer " + d.Key
		}
	}
	return doors
}

// nodeCase is what conformance.js reports of a case at a door.
type nodeCase struct {
	Door, Case string
	Wrong      string
	Sent       *struct {
		Method, Path string
		Body         map[string]any
	}
}

// TestClientsNode_Conformance: every call of the table, with both packages, through
// every door, reaches the provider as it was made, without the caller's credential,
// gives what the package promises, and is charged as the provider bills it.
func TestClientsNode_Conformance(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{settings: map[string]any{"redirect": "all"}})
	g.vault.Enable(t, nodeInline, nil)
	p := startKeyedProvider(t)
	doors := nodeDoors(t, g, p)
	nodeConform(t, g, p, doors, 14)
}

// nodeConform runs conformance.js, of which at least so many calls must arrive through
// each door, and checks what it says, what arrived, and the ledger.
func nodeConform(t *testing.T, g *gatewayRig, p *keyedProvider, doors []nodeDoor, atLeast int) {
	t.Helper()
	recording := filepath.Join(t.TempDir(), "recording.webm")
	sound := bytes.Repeat([]byte("\x1a\x45\xdf\xa3\x00\xff"), 5000)
	if err := os.WriteFile(recording, sound, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := nodeProgram(t.Context(), clients(t, "node"), "conformance.js", map[string]any{"doors": doors, "recording": recording})
	if err != nil {
		t.Fatal(err)
	}
	made := map[string][]nodeCase{}
	for _, c := range nodeLines[nodeCase](t, out) {
		if c.Wrong != "" {
			t.Errorf("%s, %s: %s", c.Door, c.Case, c.Wrong)
		}
		if c.Sent != nil { // nothing else may arrive
			made[c.Door] = append(made[c.Door], c)
		}
	}
	for _, d := range doors {
		cases, arrived := made[d.Name], p.arrived(d.Name)
		if len(cases) < atLeast || len(arrived) != len(cases) {
			t.Errorf("%s: %d calls were to arrive, at least %d, and %d did", d.Name, len(cases), atLeast, len(arrived))
			continue
		}
		for i, c := range cases {
			arrived[i].wantCall(t, &c, &d, sound)
		}
		p.wantLedger(t, g, d.mount, d.Name)
	}
}

// wantCall fails the test unless the request is what a case must send through a door.
func (a keyedArrival) wantCall(t *testing.T, c *nodeCase, d *nodeDoor, recording []byte) {
	t.Helper()
	what := d.Name + ", " + c.Case
	a.wantOnlyProviderKey(t, what, d.Name, d.Key)
	if a.Method != c.Sent.Method || a.Path != c.Sent.Path {
		t.Errorf("%s: the provider received %s %s, expected %s %s", what, a.Method, a.Path, c.Sent.Method, c.Sent.Path)
	}
	if got := a.members(t, recording); !reflect.DeepEqual(got, c.Sent.Body) {
		t.Errorf("%s: the provider received %v, expected %v", what, got, c.Sent.Body)
	}
}

// members are those of a body: of a form too, where the recording is named as one.
func (a keyedArrival) members(t *testing.T, recording []byte) (members map[string]any) {
	t.Helper()
	if len(a.Body) == 0 {
		return nil
	}
	mediaType, params, err := mime.ParseMediaType(a.Header.Get("Content-Type"))
	if err != nil || mediaType != "multipart/form-data" {
		if err := json.Unmarshal(a.Body, &members); err != nil {
			t.Fatalf("%v in %.500s", err, a.Body)
		}
		return members
	}
	form, err := multipart.NewReader(bytes.NewReader(a.Body), params["boundary"]).ReadForm(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	members = map[string]any{}
	for name, values := range form.Value {
		members[name] = strings.Join(values, ",")
	}
	for name := range form.File {
		if members[name] = "(another file)"; bytes.Contains(a.Body, recording) {
			members[name] = "(the recording)"
		}
	}
	return members
}

// TestClientsNode_OverridesPerCallAreChargedToTheirVirtualKeys: of five hundred calls
// at once on ten virtual keys, each reaches the provider with the provider key of the
// virtual key that it names, and the ledger has for each what the provider bills.
func TestClientsNode_OverridesPerCallAreChargedToTheirVirtualKeys(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{})
	p := startKeyedProvider(t)
	for _, way := range []string{"client", "named"} {
		t.Run(way, func(t *testing.T) {
			keys := make([]string, 10)
			for i := range keys {
				keys[i] = fmt.Sprintf("%s-%d", way, i)
			}
			limits := []string{"usd=1000/month", "requests=100000/day", "tokens=100000000/day"}
			p.virtualKeys(t, g, g.mount, map[string]any{"limits": limits}, keys...)
			for _, failed := range nodeOverrides(t, g, way, 500, g.token(t, keys...), keys) {
				t.Errorf("%s failed: %s", failed.Key, failed.Message)
			}
			for _, key := range keys {
				if n := len(p.arrived(key)); n != 50 {
					t.Errorf("%s: %d calls arrived, expected 50", key, n)
				}
				for _, text := range p.meantFor(key) {
					if text != key {
						t.Errorf("a call for %s arrived with the provider key of %s", text, key)
					}
				}
				p.wantLedger(t, g, g.mount, key)
			}
		})
	}
}

// TestClientsNode_AnOverrideThatThePackageKeepsIsChargedWhereItIsSent: portkey-ai
// keeps the virtual key of its last call that named one. Later calls go there, are
// charged there, and are refused if the token may not use it; none is charged to the
// virtual key that the client was made for.
func TestClientsNode_AnOverrideThatThePackageKeepsIsChargedWhereItIsSent(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{})
	p := startKeyedProvider(t)
	keys := []string{"own", "other", "denied"}
	p.virtualKeys(t, g, g.mount, map[string]any{"limits": []string{"usd=1000/month"}}, keys...)
	failed := nodeOverrides(t, g, "changed", 0, g.token(t, keys[:2]...), keys)
	for _, f := range failed {
		if f.Key != "denied" || f.Status != 403 {
			t.Errorf("%s failed with %d: %s", f.Key, f.Status, f.Message)
		}
	}
	if len(failed) != 2 {
		t.Errorf("%d calls were refused, expected the two on the last virtual key", len(failed))
	}
	for key, want := range map[string]int{"own": 2, "other": 3, "denied": 0} {
		if got := p.meantFor(key); len(got) != want || strings.Join(got, " ") != strings.TrimSpace(strings.Repeat(key+" ", want)) {
			t.Errorf("with the provider key of %s arrived calls for %q, expected %d", key, got, want)
		}
		p.wantLedger(t, g, g.mount, key)
	}
}

// nodeFailed is a call that failed.
type nodeFailed struct {
	Key     string
	Status  int
	Message string
}

// nodeOverrides runs overrides.js and returns the calls that failed.
func nodeOverrides(t *testing.T, g *gatewayRig, way string, count int, token string, keys []string) []nodeFailed {
	t.Helper()
	out, err := nodeProgram(t.Context(), clients(t, "node"), "overrides.js", map[string]any{
		"base_url": g.url + "/v1", "api_key": token, "keys": keys, "count": count, "way": way,
	})
	if err != nil {
		t.Fatal(err)
	}
	said := nodeLines[struct{ Failed []nodeFailed }](t, out)
	if len(said) != 1 {
		t.Fatalf("overrides.js said %s", out)
	}
	return said[0].Failed
}

var nodeMeant = regexp.MustCompile(`"for ([a-z0-9-]+): `)

// meantFor are the virtual keys that the calls with a virtual key's provider key
// were meant for.
func (p *keyedProvider) meantFor(key string) (meant []string) {
	for _, a := range p.arrived(key) {
		name := "(nobody)"
		if m := nodeMeant.FindSubmatch(a.Body); m != nil {
			name = string(m[1])
		}
		meant = append(meant, name)
	}
	return meant
}

// nodeExamples are the programs of examples/node, and what they print.
var nodeExamples = map[string]struct {
	prints   string
	requests int
}{
	"langchain-chat.mjs":         {nodeHello + nodeHello + nodeRain + "a vector of 1536\n", 4},
	"llamaindex-chat.mjs":        {nodeHello + nodeHello + nodeRain + "a vector of 1536\n", 4},
	"openai-agents.mjs":          {nodeHello + nodeHello + nodeHello, 4}, // with a tool's result, the imitation greets
	"openai-chat.mjs":            {nodeHello + nodeHello + "a vector of 1536\n", 3},
	"portkey-chat.mjs":           {nodeHello + "cost: 0.000057538\n" + nodeHello, 2},
	"portkey-llm-langchain.mjs":  {nodeHello + nodeHello, 2},
	"portkey-llm-llamaindex.mjs": {nodeHello + nodeHello, 2},
	"portkey-per-call.mjs":       {"portkey-per-call " + nodeHello + "other " + nodeHello + strings.TrimSpace(nodeHello) + " " + nodeHello + "it is now on other\n", 2},
	"portkey-vault.mjs":          {nodeHello + nodeHello, 2},
	"vercel-ai.mjs":              {nodeHello + nodeHello + nodeHello + "a vector of 1536\n", 5},
}

const (
	nodeHello = "Hello from the upstream.\n"
	nodeRain  = "It rains in Paris.\n"
)

// TestClientsNode_ExamplesRun: every example runs as it stands, with the packages
// that its folder names, on a Vault token alone.
func TestClientsNode_ExamplesRun(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{})
	p := startKeyedProvider(t)
	folder := nodeExamplesFolder(t)
	programs, err := filepath.Glob(filepath.Join(folder, "*.mjs"))
	if err != nil || len(programs) < len(nodeExamples) {
		t.Fatalf("examples/node has %d programs (%v)", len(programs), err)
	}
	p.virtualKeys(t, g, g.mount, nil, "other")
	for _, path := range programs {
		program := filepath.Base(path)
		want, found := nodeExamples[program]
		if !found {
			if program != "settings.mjs" && program != "portkey-prompts.mjs" {
				t.Errorf("nothing is known of %s: add it to nodeExamples", program)
			}
			continue
		}
		t.Run(program, func(t *testing.T) {
			key := strings.TrimSuffix(program, ".mjs")
			p.virtualKeys(t, g, g.mount, nil, key)
			token := g.token(t, key, "other")
			out, err := nodeProgram(t.Context(), folder, program, nil,
				"VAULT_TOKEN="+token, "PORTKEY_GATEWAY="+g.url+"/v1", "VAULT_ADDR="+g.vault.Addr, "VIRTUAL_KEY="+key, "OTHER_VIRTUAL_KEY=other")
			if err != nil || string(out) != want.prints {
				t.Errorf("it printed\n%s\nexpected\n%s\n%v", out, want.prints, err)
			}
			if n := len(p.arrived(key)); n != want.requests {
				t.Errorf("%d requests arrived on its virtual key, expected %d", n, want.requests)
			}
			for _, a := range p.arrived(key) {
				a.wantOnlyProviderKey(t, program, key, token)
			}
			p.wantLedger(t, g, g.mount, key)
		})
	}
	if n := len(p.arrived("other")); n != 4 {
		t.Errorf("%d requests arrived on the other virtual key of portkey-per-call.mjs, expected 4", n)
	}
	p.wantLedger(t, g, g.mount, "other")
}

// nodeExamplesFolder is a copy of examples/node with the packages of
// test/clients/node, which must be the same.
func nodeExamplesFolder(t *testing.T) string {
	t.Helper()
	folder, source := t.TempDir(), filepath.Join("..", "..", "examples", "node")
	var versions [2]struct{ Dependencies map[string]string }
	for i, place := range []string{source, clients(t, "node")} {
		text, err := os.ReadFile(filepath.Join(place, "package.json"))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &versions[i]); err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(versions[0], versions[1]) {
		t.Errorf("examples/node/package.json has the packages %v, and test/clients/node/package.json %v", versions[0], versions[1])
	}
	files, err := filepath.Glob(filepath.Join(source, "*.[mj]*s*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, filepath.Base(path)), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(clients(t, "node"), "node_modules"), filepath.Join(folder, "node_modules")); err != nil {
		t.Fatal(err)
	}
	return folder
}
