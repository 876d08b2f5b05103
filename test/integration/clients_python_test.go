// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// pyLimit is how long a program may take: far longer than any does.
const pyLimit = 3 * time.Minute

// pyOpenAI2 are the packages that scripts/clients.sh has in an environment of their
// own, and so what imports them.
var pyOpenAI2 = regexp.MustCompile(`(?m)^from llama_index`)

// pyPython is the Python that has the packages of requirements.txt, or those of
// requirements-openai2.txt.
func pyPython(t *testing.T, openai2 bool) string {
	t.Helper()
	python := os.Getenv("PYTHON_CLIENTS")
	if python == "" {
		t.Fatal("PYTHON_CLIENTS isn't set: run `make test`, which installs the Python SDKs and sets it")
	}
	if openai2 {
		python = filepath.Join(filepath.Dir(filepath.Dir(python)), "openai2", "bin", "python")
	}
	return python
}

// pyProgram runs a program of a folder with its input as JSON, and returns what it
// prints. It fails if the program does. The program reaches nothing but loopback:
// every other address is behind a proxy that refuses.
func pyProgram(t *testing.T, python, folder, program string, input any, env ...string) ([]byte, error) {
	text, err := json.Marshal(input)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), pyLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, program)
	cmd.Dir = folder
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "PYTHONDONTWRITEBYTECODE=1",
		"HTTPS_PROXY=http://127.0.0.1:9", "HTTP_PROXY=http://127.0.0.1:9", "NO_PROXY=127.0.0.1",
	}, env...)
	var out, complaints bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(text), &out, &complaints
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("%s: %w\n%.5000s\n%s", program, err, out.Bytes(), pyEnd(complaints.Bytes()))
	}
	return out.Bytes(), nil
}

// pyEnd is the end of what a program complained of, where the reason is.
func pyEnd(complaints []byte) []byte { return complaints[max(0, len(complaints)-5000):] }

// pyDoor is a way to a virtual key, which has that name too.
type pyDoor struct {
	Name        string            `json:"name"`
	SDK         string            `json:"sdk"` // openai or portkey, or with -async
	BaseURL     string            `json:"base_url"`
	Key         string            `json:"api_key"`
	VirtualKey  string            `json:"virtual_key,omitempty"`
	Provider    string            `json:"provider,omitempty"`
	ModelPrefix string            `json:"model_prefix,omitempty"`
	Headers     map[string]string `json:"headers,omitempty"`
	// HTTPHeaders are those of portkey-ai's HTTP client.
	HTTPHeaders map[string]string `json:"http_headers,omitempty"`
	Without     []string          `json:"without,omitempty"` // cases
	mount       string
}

// pyInline is the mount without a gateway.
const pyInline = "inline"

// pyDoors are those of the conformance suite: to the gateway, with the virtual key
// named in each of the ways that there are; to Vault, which sends on to the gateway;
// and to Vault alone.
func pyDoors(t *testing.T, g *gatewayRig, p *keyedProvider) []pyDoor {
	t.Helper()
	gateway := g.url + "/v1"
	var doors []pyDoor
	for _, kind := range []string{"", "-async"} {
		named := func(what string, d pyDoor) pyDoor {
			d.Name, d.SDK = d.SDK+kind+"-"+what, d.SDK+kind
			if d.mount == "" {
				d.mount = g.mount
			}
			if d.BaseURL == "" {
				d.BaseURL = gateway
			}
			return d
		}
		for _, d := range []pyDoor{
			named("header", pyDoor{SDK: "openai"}), named("path", pyDoor{SDK: "openai"}), named("leased", pyDoor{SDK: "openai"}),
			named("redirect", pyDoor{SDK: "openai"}), named("inline", pyDoor{SDK: "openai", mount: pyInline}),
			named("header", pyDoor{SDK: "portkey"}), named("provider", pyDoor{SDK: "portkey"}), named("leased", pyDoor{SDK: "portkey"}),
			named("redirect", pyDoor{SDK: "portkey"}), named("inline", pyDoor{SDK: "portkey", mount: pyInline}),
			named("model", pyDoor{SDK: "openai", Without: []string{"models", "transcription"}}),
			named("model", pyDoor{SDK: "portkey", Without: []string{"models", "transcription", "chat without a model"}}),
		} {
			portkey := strings.HasPrefix(d.SDK, "portkey")
			switch _, way, _ := strings.Cut(strings.TrimPrefix(d.Name, d.SDK), "-"); way {
			case "header":
				if d.VirtualKey = d.Name; !portkey {
					d.VirtualKey, d.Headers = "", map[string]string{"x-portkey-virtual-key": d.Name}
				}
			case "provider":
				d.Provider = "@" + d.Name
			case "model":
				// A form isn't changed on its way, and there is no model without a name.
				d.ModelPrefix = "@" + d.Name + "/"
			case "path":
				d.BaseURL = g.url + "/v1/" + proxyPath(d.mount, d.Name, "v1")
			case "redirect", "inline":
				// Vault takes JSON alone.
				d.BaseURL, d.Without = g.vault.Addr+"/v1/"+proxyPath(d.mount, d.Name, "v1"), []string{"transcription"}
			}
			doors = append(doors, d)
		}
	}
	var policies []string
	for _, d := range doors {
		p.virtualKeys(t, g, d.mount, map[string]any{"default_params": map[string]any{"model": "up-ok"}}, d.Name)
		g.vault.Policy(t, d.Name, policyFile(t, "app.hcl", d.mount, d.Name))
		policies = append(policies, d.Name)
	}
	token := g.vault.Token(t, policies...)
	for i := range doors {
		d := &doors[i]
		if d.Key = token; strings.HasSuffix(d.Name, "-leased") {
			d.Key, _ = g.root.Read(t, g.mount+"/creds/"+d.Name).Data()["api_key"].(string)
		}
		if strings.HasPrefix(d.SDK, "portkey") && strings.HasPrefix(d.BaseURL, g.vault.Addr) {
			d.HTTPHeaders = map[string]string{"X-Vault-Token": token}
		}
	}
	return doors
}

// pyCase is what conformance.py says of a case at a door.
type pyCase struct {
	Door, Case, Path string
	Sends            map[string]any // members of the body, among others
	Form             bool
	Want, Got        any
	Error            string
}

// TestClientsPython_Conformance: every call of the table, with both packages and both
// kinds of client, through every door, reaches the provider as it was made, without
// the caller's credential, gives what the package promises, and is charged as the
// provider bills it.
func TestClientsPython_Conformance(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{settings: map[string]any{"redirect": "all"}})
	g.vault.Enable(t, pyInline, nil)
	p := startKeyedProvider(t)
	doors := pyDoors(t, g, p)
	out, err := pyProgram(t, pyPython(t, false), clients(t, "python"), "conformance.py", doors)
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
		made[c.Door] = append(made[c.Door], c)
	}
	for _, d := range doors {
		cases, arrived := made[d.Name], p.arrived(d.Name)
		if len(cases) < 13 || len(arrived) != len(cases) {
			t.Errorf("%s: %d calls were made, and %d requests arrived", d.Name, len(cases), len(arrived))
			continue
		}
		for i, c := range cases {
			c.wantArrival(t, &arrived[i], &d)
		}
		p.wantLedger(t, g, d.mount, d.Name)
	}
}

// wantArrival fails the test unless the request is what the case sends through the
// door.
func (c pyCase) wantArrival(t *testing.T, a *keyedArrival, d *pyDoor) {
	t.Helper()
	what := d.Name + ", " + c.Case
	a.wantOnlyProviderKey(t, what, d.Name, d.Key)
	method := http.MethodPost
	if len(c.Sends) == 0 {
		method = http.MethodGet
	}
	if a.Method != method || a.Path != c.Path {
		t.Errorf("%s: the provider received %s %s, expected %s %s", what, a.Method, a.Path, method, c.Path)
	}
	members, err := pyMembers(a, c.Form)
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
	for name, want := range c.Sends {
		if got := members[name]; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the provider received %.300v as %s, expected %.300v", what, got, name, want)
		}
	}
	for name := range members {
		if strings.Contains(name, "key") || strings.Contains(name, "provider") || strings.Contains(name, "portkey") {
			t.Errorf("%s: the provider received a member %q", what, name)
		}
	}
}

// pyMembers are those of a body; of a form, with the bytes of files as base64.
func pyMembers(a *keyedArrival, isForm bool) (members map[string]any, err error) {
	mediaType, params, err := mime.ParseMediaType(a.Header.Get("Content-Type"))
	switch {
	case len(a.Body) == 0:
		return nil, nil
	case err != nil || isForm != (mediaType == "multipart/form-data"):
		return nil, fmt.Errorf("it came as %q (%w)", a.Header.Get("Content-Type"), err)
	case !isForm:
		return members, json.Unmarshal(a.Body, &members)
	}
	form, err := multipart.NewReader(bytes.NewReader(a.Body), params["boundary"]).ReadForm(1 << 20)
	if err != nil {
		return nil, err
	}
	members = map[string]any{}
	for name, values := range form.Value {
		members[name] = strings.Join(values, ",")
	}
	for name, files := range form.File {
		file, err := files[0].Open()
		if err != nil {
			return nil, err
		}
		content, err := io.ReadAll(file)
		if err != nil {
			return nil, err
		}
		members[name] = base64.StdEncoding.EncodeToString(content)
	}
	return members, nil
}

// TestClientsPython_OverridesPerCallAreChargedToTheirVirtualKeys: of five hundred
// calls on ten virtual keys, by threads and by tasks at once, each reaches the
// provider with the provider key of the virtual key that it names; the ledger has for
// each what the provider bills, and what the answers say that they cost; and the
// clients that with_options was called on are as they were.
func TestClientsPython_OverridesPerCallAreChargedToTheirVirtualKeys(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{})
	p := startKeyedProvider(t)
	keys := make([]string, 10)
	for i := range keys {
		keys[i] = fmt.Sprintf("team-%d", i)
	}
	p.virtualKeys(t, g, g.mount, map[string]any{"limits": []string{"usd=1000/month", "requests=100000/day", "tokens=100000000/day"}}, keys...)
	out, err := pyProgram(t, pyPython(t, false), clients(t, "python"), "overrides.py", map[string]any{
		"base_url": g.url + "/v1", "api_key": g.token(t, keys...), "virtual_keys": keys, "model": "up-random:1:40:30",
		"calls": 500, "seed": seed(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	var said struct {
		Unchanged bool
		Ends      []struct {
			VirtualKey string `json:"virtual_key"`
			Cost       string
			Tokens     int64
		}
	}
	if err := json.Unmarshal(out, &said); err != nil {
		t.Fatalf("%v in %.1000s", err, out)
	}
	if !said.Unchanged || len(said.Ends) != 500 {
		t.Errorf("%d calls ended; the clients are as they were: %t", len(said.Ends), said.Unchanged)
	}
	cost, tokens := map[string]string{}, map[string]int64{}
	for _, e := range said.Ends {
		cost[e.VirtualKey], tokens[e.VirtualKey] = sum(cost[e.VirtualKey], e.Cost), tokens[e.VirtualKey]+e.Tokens
	}
	meant := regexp.MustCompile(`call \d+ is for (team-\d)\.`)
	for _, key := range keys {
		arrived := p.arrived(key)
		if len(arrived) != 50 {
			t.Errorf("%s: %d calls arrived, expected 50", key, len(arrived))
		}
		for _, a := range arrived {
			if m := meant.FindSubmatch(a.Body); m == nil || string(m[1]) != key {
				t.Errorf("with the provider key of %s arrived %s", key, a.Body)
			}
		}
		p.wantLedger(t, g, g.mount, key)
		if total := usageOf(t, g.root, g.mount+"/usage/"+key).Total; total.Input+total.Output != tokens[key] || total.Cost != cost[key] {
			t.Errorf("%s: the answers said %d tokens and %s USD, and usage says %+v", key, tokens[key], cost[key], total)
		}
	}
	if p.up.MaxConcurrent() < 8 {
		t.Errorf("at most %d calls were under way at once, so this proves little", p.up.MaxConcurrent())
	}
}

// pyExample is what a program of examples/python prints, and how often it asks on its
// virtual key.
type pyExample struct {
	prints   string
	requests int
}

const (
	pyHello = "Hello from the upstream.\n"
	pyRain  = "It rains in Paris.\n"
	pyEmbed = "a vector of 1536\n"
)

// pyExamples are all but those in pyUntried, by file.
var pyExamples = map[string]pyExample{
	"langchain_chat.py":         {pyHello + pyHello + pyRain + pyHello + pyHello + pyHello + pyEmbed, 7},
	"litellm_client.py":         {pyHello + pyHello + pyHello + pyEmbed, 4},
	"llamaindex_chat.py":        {pyHello + pyHello + pyRain + pyHello + pyHello + pyHello + pyEmbed, 7},
	"openai_agents.py":          {pyHello + pyHello + pyHello, 4}, // with a tool's result, the imitation greets
	"openai_chat.py":            {pyHello + pyHello + pyEmbed + pyHello, 4},
	"portkey_chat.py":           {pyHello + pyHello + `cost 0\.\d+ trace \S{8,}` + "\n", 2},
	"portkey_llm_langchain.py":  {pyHello + pyHello, 2},
	"portkey_llm_llamaindex.py": {pyHello + pyHello, 2},
	"portkey_per_call.py": {"not-portkey-per-call " + pyHello + "portkey-per-call " + pyHello +
		strings.Repeat("Hello from the upstream. ", 3) + pyHello, 3},
	"portkey_vault.py": {pyHello + pyHello, 2},
}

// pyUntried are files of examples/python that aren't programs of their own.
var pyUntried = []string{"settings.py", "portkey_prompts.py"}

// TestClientsPython_ExamplesRun: every example runs as it stands, on a Vault token
// alone, with nothing to reach but the gateway.
func TestClientsPython_ExamplesRun(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{})
	p := startKeyedProvider(t)
	programs, err := filepath.Glob(filepath.Join("..", "..", "examples", "python", "*.py"))
	if err != nil || len(programs) != len(pyExamples)+len(pyUntried) {
		t.Errorf("examples/python has %d programs (%v)", len(programs), err)
	}
	for _, path := range programs {
		program := filepath.Base(path)
		if slices.Contains(pyUntried, program) {
			continue
		}
		t.Run(program, func(t *testing.T) {
			want, found := pyExamples[program]
			if !found {
				t.Fatalf("nothing is known of %s: add it to pyExamples", program)
			}
			key := strings.ReplaceAll(strings.TrimSuffix(program, ".py"), "_", "-")
			other := "not-" + key
			p.virtualKeys(t, g, g.mount, nil, other)
			want.run(t, g, p, program, key, g.token(t, key, other), "PORTKEY_GATEWAY="+g.url+"/v1", "OTHER_VIRTUAL_KEY="+other, "VAULT_ADDR="+g.vault.Addr)
			if n := len(p.arrived(other)); program == "portkey_per_call.py" && n != 3 {
				t.Errorf("%d requests arrived on its other virtual key, expected 3", n)
			}
			p.wantLedger(t, g, g.mount, other)
		})
	}
}

// TestClientsPython_FrameworksWorkAtVaultsAddress: with the base URL of a virtual key
// in Vault, each of them completes, and follows Vault to the gateway for its streams.
func TestClientsPython_FrameworksWorkAtVaultsAddress(t *testing.T) {
	t.Parallel()
	g := startGateway(t, gatewayOptions{})
	p, front := startKeyedProvider(t), startPyFront(t, g)
	g.open(t, map[string]any{"public_url": front.url})
	for program, streams := range map[string]int{"langchain_chat.py": 2, "litellm_client.py": 1, "llamaindex_chat.py": 2, "openai_agents.py": 1} {
		t.Run(program, func(t *testing.T) {
			key := strings.ReplaceAll(strings.TrimSuffix(program, ".py"), "_", "-")
			pyExamples[program].run(t, g, p, program, key, g.token(t, key), "PORTKEY_GATEWAY="+g.vault.Addr+"/v1/"+proxyPath(g.mount, key, "v1"))
			if n := len(front.of(key)); n != streams {
				t.Errorf("%d requests came to the gateway, expected its %d streams", n, streams)
			}
		})
	}
}

// run runs a program on a virtual key that it makes, and holds what it prints, what
// reaches the provider and what is charged against what is expected.
func (want pyExample) run(t *testing.T, g *gatewayRig, p *keyedProvider, program, key, token string, env ...string) {
	t.Helper()
	folder := filepath.Join("..", "..", "examples", "python")
	text, err := os.ReadFile(filepath.Join(folder, program))
	if err != nil {
		t.Fatal(err)
	}
	p.virtualKeys(t, g, g.mount, nil, key)
	out, err := pyProgram(t, pyPython(t, pyOpenAI2.Match(text)), folder, program, nil, append(env, "VAULT_TOKEN="+token, "VIRTUAL_KEY="+key)...)
	if err != nil || !regexp.MustCompile("^"+want.prints+"$").Match(out) {
		t.Errorf("it printed\n%s\nexpected\n%s\n%v", out, want.prints, err)
	}
	if n := len(p.arrived(key)); n != want.requests {
		t.Errorf("%d requests arrived on its virtual key, expected %d", n, want.requests)
	}
	for _, a := range p.arrived(key) {
		a.wantOnlyProviderKey(t, program, key, token)
	}
	p.wantLedger(t, g, g.mount, key)
}
