// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/upstream"
	"vault-plugin-secrets-portkey/test/vaulttest"
)

// promptTests share a Vault, a gateway, and the token of an app that may use all
// prompts and no virtual key.
type promptTests struct {
	*gatewayRig
	token string
}

func (p *promptTests) caller() caller {
	return caller{gatewayRig: p.gatewayRig, source: "127.0.0.1", token: p.token}
}

func TestPrompts_AtEveryDoor(t *testing.T) {
	g := startGateway(t, gatewayOptions{})
	g.role(t, "behind", nil)
	g.role(t, "other", nil)
	g.vault.Policy(t, "prompts", `path "portkey/prompts/+/completions" { capabilities = ["update"] }
		path "portkey/prompts/+/render" { capabilities = ["update"] }`)
	p := &promptTests{g, g.vault.Token(t, "prompts")}
	for name, test := range map[string]func(*testing.T, promptDoor){
		"AnswersAreTheProviders":           p.answers,
		"WhatIsWrongIsRefusedAlike":        p.refusals,
		"NewVersionsAndDeletionsAreAtOnce": p.atOnce,
		"TheVirtualKeysLimitsHold":         p.limits,
		"StreamsComeAsTheProviderSends":    p.streams,
		"OddPathsAreRefused":               p.oddPaths,
	} {
		t.Run(name, func(t *testing.T) { g.eachPromptDoor(t, test) })
	}
	t.Run("VirtualKeysThatHeadersNameMustBeTheTemplates", p.headers)
	t.Run("LeasedKeysRunThePromptsOfTheirVirtualKey", p.leased)
	t.Run("ConcurrentWritesAreVersionsOfTheirOwn", p.concurrent)
	t.Run("CommandLine", p.commandLine)
	t.Run("ProviderKeyIsNeverShown", p.custody)
	t.Run("AuthorsCanBeBoundToAVirtualKey", p.authors)
	t.Run("ARevokedTokenIsRefusedAtOnce", p.revoked)
	t.Run("SurvivesARestartOfThePlugin", p.reload)
}

func (p *promptTests) answers(t *testing.T, d promptDoor) {
	name := "answers-" + strings.ToLower(d.name)
	p.prompt(t, name, "behind", map[string]any{"parameters": map[string]any{"temperature": 0.25, "stop": []string{"x"}}})
	p.prompt(t, name, "behind", map[string]any{"messages": `[{"role":"user","content":"Bye {{name}}."}]`})
	call := promptCall{ref: name, body: map[string]any{"variables": map[string]any{"name": `"</s>{{name}}\u0000` + "\n"}, "max_tokens": 7, "promptID": name}}
	wantCompletion(t, d.send(p.caller(), t, call))
	want := map[string]any{
		"model": "up-ok", "temperature": 0.25, "stop": []any{"x"}, "max_tokens": 7.0,
		"messages": []any{map[string]any{"role": "user", "content": `Hello "</s>{{name}}\u0000` + "\n!"}},
	}
	sent := lastRequest(t, p.up)
	var got map[string]any
	if err := json.Unmarshal(sent.Body, &got); err != nil || !bytes.Equal(jsonOf(t, got), jsonOf(t, want)) {
		t.Errorf("the provider got %s, expected %s", sent.Body, jsonOf(t, want))
	}
	if sent.Path != "/v1/chat/completions" || sent.Key != "a-provider-key" {
		t.Errorf("the provider was asked for %s with the key %q", sent.Path, sent.Key)
	}
	unasked(t, p.up, func() {
		call.action = "render"
		if got := renderedTo(t, d.send(p.caller(), t, call)); !bytes.Equal(jsonOf(t, got), jsonOf(t, want)) {
			t.Errorf("rendered to %s, expected %s", jsonOf(t, got), jsonOf(t, want))
		}
	})
	wantCompletion(t, d.send(p.caller(), t, promptCall{ref: name + "@2"}))
	if body := string(lastRequest(t, p.up).Body); !strings.Contains(body, "Bye Ann.") {
		t.Errorf("version 2: %s", body)
	}
}

func (p *promptTests) refusals(t *testing.T, d promptDoor) {
	name := "refusals-" + strings.ToLower(d.name)
	p.prompt(t, name, "behind", map[string]any{"locked": "model,max_tokens"})
	p.role(t, name, nil)
	p.prompt(t, name+"-gone", name, nil)
	p.root.Delete(t, p.mount+"/roles/"+name)
	ann := map[string]any{"name": "Ann"}
	for what, row := range map[string]struct {
		call   promptCall
		status int
		code   string
		says   string
	}{
		"Locked":            {promptCall{body: map[string]any{"variables": ann, "model": "up-echo"}}, 400, "field_locked", `locks "model"`},
		"LockedParameter":   {promptCall{body: map[string]any{"variables": ann, "max_tokens": 1}}, 400, "field_locked", `locks "max_tokens"`},
		"MissingVariable":   {promptCall{body: map[string]any{"variables": map[string]any{}}}, 400, "missing_variable", `"name"`},
		"VariablesOfNoKind": {promptCall{body: map[string]any{"variables": []any{1}}}, 400, "invalid_request", "JSON object"},
		"AnotherVirtualKey": {promptCall{body: map[string]any{"variables": ann, "virtual_key": "other"}}, 403, "virtual_key_mismatch", `"other"`},
		"TooLarge":          {promptCall{body: map[string]any{"variables": map[string]any{"name": []string{strings.Repeat("x", 600<<10), strings.Repeat("x", 600<<10)}}}}, 413, "prompt_too_large", "larger"},
		"NoSuchVersion":     {promptCall{ref: "@9"}, 404, "prompt_not_found", "@9"},
		"NoSuchTemplate":    {promptCall{ref: "-none"}, 404, "prompt_not_found", "-none"},
		"VirtualKeyGone":    {promptCall{ref: "-gone"}, 404, "virtual_key_not_found", "runs on virtual key"},
	} {
		t.Run(what, func(t *testing.T) {
			row.call.ref = name + row.call.ref
			unasked(t, p.up, func() { wantError(t, d.send(p.caller(), t, row.call), row.status, row.code, row.says) })
		})
	}
	resp := d.send(caller{gatewayRig: p.gatewayRig, source: "127.4.0.1", token: "hvs.wrong"}, t, promptCall{ref: name})
	if resp.Status != http.StatusForbidden {
		t.Errorf("a wrong token: %s", resp)
	}
}

// atOnce: the gateway keeps its grants for a minute, and never a version.
func (p *promptTests) atOnce(t *testing.T, d promptDoor) {
	name := "versions-" + strings.ToLower(d.name)
	says := func(ref, want string) {
		t.Helper()
		wantCompletion(t, d.send(p.caller(), t, promptCall{ref: ref}))
		if body := string(lastRequest(t, p.up).Body); !strings.Contains(body, want) {
			t.Errorf("%s: the provider got %s, expected %q", ref, body, want)
		}
	}
	text := func(n int) map[string]any {
		return map[string]any{"messages": []any{map[string]any{"role": "user", "content": fmt.Sprintf("Text %d", n)}}}
	}
	p.prompt(t, name, "behind", text(1))
	says(name, "Text 1")
	says(name+"@latest", "Text 1")
	for n := 2; n < 6; n++ {
		p.prompt(t, name, "behind", text(n))
		says(name, fmt.Sprint("Text ", n-1))
		says(name+"@latest", fmt.Sprint("Text ", n))
		p.root.Write(t, p.mount+"/prompts/"+name+"/publish", map[string]any{"version": n})
		says(name, fmt.Sprint("Text ", n))
	}
	says(name+"@1", "Text 1")
	p.root.Delete(t, p.mount+"/prompts/"+name)
	for _, ref := range []string{name, name + "@1", name + "@latest"} {
		unasked(t, p.up, func() { wantError(t, d.send(p.caller(), t, promptCall{ref: ref}), 404, "prompt_not_found") })
	}
	p.prompt(t, name, "behind", text(9))
	says(name, "Text 9")
	unasked(t, p.up, func() { wantError(t, d.send(p.caller(), t, promptCall{ref: name + "@2"}), 404, "prompt_not_found") })
}

func (p *promptTests) limits(t *testing.T, d promptDoor) {
	name := "limits-" + strings.ToLower(d.name)
	p.role(t, name, map[string]any{"limits": []string{"requests=3/day"}, "models": "up-ok"})
	for _, prompt := range []string{name + "-a", name + "-b"} {
		p.prompt(t, prompt, name, nil)
	}
	wantError(t, d.send(p.caller(), t, promptCall{ref: name + "-a", body: map[string]any{"variables": map[string]any{"name": "x"}, "model": "up-echo"}}), 403, "model_not_allowed")
	for _, prompt := range []string{"-a", "-b", "-a"} {
		wantCompletion(t, d.send(p.caller(), t, promptCall{ref: name + prompt}))
	}
	unasked(t, p.up, func() {
		wantError(t, d.send(p.caller(), t, promptCall{ref: name + "-b"}), http.StatusPaymentRequired, "budget_exceeded")
	})
	rows, _ := p.root.Read(t, p.mount+"/usage/"+name+"?group_by=prompt").Data()["rows"].([]any)
	requests := map[any]any{}
	for _, row := range rows {
		requests[row.(map[string]any)["prompt"]] = row.(map[string]any)["requests"]
	}
	if len(rows) != 2 || requests[name+"-a"] != 2.0 || requests[name+"-b"] != 1.0 {
		t.Errorf("usage by prompt: %v", rows)
	}
	total, _ := p.root.Read(t, p.mount+"/usage?prompt="+name+"-a").Data()["total"].(map[string]any)
	if total["requests"] != 2.0 || total["refused"] != 1.0 || total["input_tokens"] == 0.0 {
		t.Errorf("usage of one prompt: %v", total)
	}
}

// streams: through Vault's own address, only the redirect can bring them piece by
// piece.
func (p *promptTests) streams(t *testing.T, d promptDoor) {
	const events, every = 8, 100 * time.Millisecond
	name := "streams-" + strings.ToLower(d.name)
	p.prompt(t, name, "behind", map[string]any{"model": fmt.Sprintf("up-stream:%d:%d", events, every.Milliseconds())})
	body := map[string]any{"variables": map[string]any{"name": "x"}, "stream": true}
	resp := d.send(p.caller(), t, promptCall{ref: name, body: body})
	wantStatus(t, resp, http.StatusOK)
	if got := resp.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/event-stream") || bytes.Count(resp.Body, []byte(`"content":"t`)) != events || !bytes.Contains(resp.Body, []byte("[DONE]")) {
		t.Errorf("%s: %s", got, resp)
	}
	if d.name == "Inline" {
		return
	}
	url := map[string]string{"GatewaySamePath": p.url + "/v1/portkey/", "GatewayAsPortkeysSDKs": p.url + "/v1/", "RedirectFromVault": p.vault.Addr + "/v1/portkey/"}[d.name]
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"prompts/"+name+"/completions", bytes.NewReader(jsonOf(t, body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+p.token)
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	first, last := time.Time{}, time.Time{}
	for piece := make([]byte, 4096); ; {
		n, err := answer.Body.Read(piece)
		if n > 0 {
			last = time.Now()
		}
		if first.IsZero() {
			first = last
		}
		if err != nil {
			break
		}
	}
	if spread := last.Sub(first); spread < events*every/2 || answer.Header.Get("X-Portkey-Trace-Id") == "" {
		t.Errorf("all came within %s, the provider took %s; headers %v", spread, events*every, answer.Header)
	}
}

// oddPaths: nothing that is no call of a prompt passes for one, and nothing is the
// server's fault.
func (p *promptTests) oddPaths(t *testing.T, d promptDoor) {
	name := "odd-" + strings.ToLower(d.name)
	p.prompt(t, name, "behind", nil)
	wantCompletion(t, d.send(p.caller(), t, promptCall{ref: name + "%401"}))
	for _, ref := range []string{
		name + "%40", name + "@", name + "@@1", name + "@1@1", name + "%2540" + "1", name + "@1%2F..", "..%2f" + name, name + "%2f", "%2e%2e", name + "%00", name + "%0a",
		"caf%C3%A9", name + "%20", "%20" + name, name + "/../" + name, name + "/.", name + "//", name + ";x", name + "@1;", strings.ToUpper(name), strings.Repeat("a", 600), strings.Repeat("a", 3000), name + "/render",
	} {
		if d.redirect == "all" && path.Clean(ref) != ref {
			continue // Vault redirects to what it means, and this door follows
		}
		unasked(t, p.up, func() {
			resp := d.send(p.caller(), t, promptCall{ref: ref})
			// Vault answers paths that it cleans with a redirect; what isn't told
			// apart from no path at all is 403 to who has no policy on it.
			if resp.Status < 300 || resp.Status >= 500 {
				t.Errorf("%.80q: %.500s", ref, resp)
			}
		})
	}
}

func (p *promptTests) headers(t *testing.T) {
	p.prompt(t, "headers", "behind", nil)
	door := promptDoors()[2]
	for value, status := range map[string]int{"behind": 200, "other": 403, "nobody": 403} {
		for _, header := range []http.Header{{"X-Portkey-Virtual-Key": {value}}, {"X-Portkey-Provider": {"@" + value}}} {
			resp := door.send(p.caller(), t, promptCall{ref: "headers", header: header})
			wantStatus(t, resp, status)
			if status != 200 {
				wantError(t, resp, status, "virtual_key_mismatch", `"behind"`, value)
			}
		}
	}
	resp := door.send(p.caller(), t, promptCall{ref: "headers"})
	if usage := resp.Header.Get("X-Portkey-Usage"); !strings.Contains(usage, "input=") || resp.Header.Get("X-Portkey-Trace-Id") == "" {
		t.Errorf("the answer's headers: %v", resp.Header)
	}
}

func (p *promptTests) leased(t *testing.T) {
	p.prompt(t, "leased", "behind", nil)
	p.prompt(t, "leased-other", "other", nil)
	key, _ := p.root.Read(t, p.mount+"/creds/behind").Data()["api_key"].(string)
	app := caller{gatewayRig: p.gatewayRig, source: "127.0.0.1", token: key}
	for _, d := range promptDoors()[1:3] {
		wantCompletion(t, d.send(app, t, promptCall{ref: "leased"}))
		renderedTo(t, d.send(app, t, promptCall{ref: "leased@1", action: "render"}))
		for _, action := range []string{"completions", "render"} {
			unasked(t, p.up, func() {
				resp := d.send(app, t, promptCall{ref: "leased-other", action: action})
				wantError(t, resp, 403, "virtual_key_mismatch", `"behind"`)
				if bytes.Contains(resp.Body, []byte(`"other"`)) {
					t.Errorf("the error tells the template's virtual key: %s", resp)
				}
			})
		}
	}
}

func (p *promptTests) concurrent(t *testing.T) {
	p.prompt(t, "many", "behind", nil)
	const writers = 20
	versions := make([]any, writers)
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			resp := post(t, p.root, p.mount+"/prompts/many", map[string]any{"prompt": fmt.Sprint("Text ", i), "messages": ""})
			versions[i] = resp.Data()["version"]
		})
	}
	all.Wait()
	seen := map[any]bool{}
	for i, version := range versions {
		if seen[version] {
			t.Errorf("the versions are %v", versions)
		}
		seen[version] = true
		if got := p.root.Read(t, fmt.Sprintf("%s/prompts/many@%v", p.mount, version)).Data()["prompt"]; got != fmt.Sprint("Text ", i) {
			t.Errorf("version %v is %v", version, got)
		}
	}
	if got := p.root.List(t, p.mount+"/prompts/many/versions"); len(got) != writers+1 || got[0] != "1" || got[writers] != fmt.Sprint(writers+1) {
		t.Errorf("the versions listed are %v", got)
	}
}

// commandLine: what the help and docs/prompts.md show.
func (p *promptTests) commandLine(t *testing.T) {
	found, err := exec.CommandContext(t.Context(), "../../scripts/vault.sh").Output()
	if err != nil {
		t.Fatal(err)
	}
	bin := strings.TrimSpace(string(found))
	vault := func(stdin string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), bin, args...)
		cmd.Env = append(cmd.Environ(), "VAULT_ADDR="+p.vault.Addr, "VAULT_TOKEN="+p.vault.RootToken, "VAULT_FORMAT=", "VAULT_NAMESPACE=")
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Sprintf("%v: %s", err, out)
		}
		return string(out)
	}
	for _, row := range []struct {
		stdin string
		args  string
		says  []string
	}{
		{`[{"role":"user","content":"Say hello to {{name}}."}]`, "write portkey/prompts/cli virtual_key=behind model=up-ok variables=name messages=-", []string{"published_version", "latest_version"}},
		{"", "write portkey/prompts/cli model=up-echo", []string{"version 2 is stored and not published", "vault write <mount>/prompts/cli/publish version=2"}},
		{"", "write portkey/prompts/cli model=up-echo", []string{"nothing changes: no new version"}},
		{"", "write portkey/prompts/cli/publish version=2", []string{"published_version    2", "previous_version     1"}},
		{"", "read -field=model portkey/prompts/cli@1", []string{"up-ok"}},
		{"", "list portkey/prompts/cli/versions", []string{"1\n2\n"}},
		{"", "patch portkey/prompts/cli model=up-ok", []string{"version 3 is stored and not published"}},
		{"", `write -field=messages portkey/prompts/cli@1/render variables={"name":"Ann"}`, []string{"Say hello to Ann."}},
		{"", `write -format=json portkey/prompts/cli@3/render variables={"name":"Ann"}`, []string{`"model": "up-ok"`, `"content": "Say hello to Ann."`}},
		{`{"variables":{"name":"Ann"},"max_tokens":100}`, "write -format=json portkey/prompts/cli@1/completions -", []string{upstream.AnswerText[:10]}},
		{"", `write portkey/prompts/cli/completions x=y`, []string{`the prompt needs the variable "name"`}},
		{"", `write portkey/prompts/none/render x=y`, []string{`there is no prompt template "none"`}},
		{"", "delete portkey/prompts/cli", []string{"Success"}},
		{"", "read portkey/prompts/cli", []string{"No value found"}},
	} {
		got := vault(row.stdin, strings.Split(row.args, " ")...)
		for _, text := range row.says {
			if !strings.Contains(got, text) {
				t.Errorf("vault %s says\n%s\nwhich isn't %q", row.args, got, text)
			}
		}
	}
}

// custody: a provider that echoes the key, and what is stored and logged.
func (p *promptTests) custody(t *testing.T) {
	p.prompt(t, "echo", "behind", map[string]any{"model": "up-echo"})
	secret := "prompt-variable-" + randomHex(8)
	p.eachPromptDoor(t, func(t *testing.T, d promptDoor) {
		for _, action := range []string{"completions", "render"} {
			for _, stream := range []bool{false, true} {
				resp := d.send(p.caller(), t, promptCall{ref: "echo", action: action, body: map[string]any{"variables": map[string]any{"name": secret}, "stream": stream}})
				wantStatus(t, resp, http.StatusOK)
				if text := string(resp.Body) + fmt.Sprint(resp.Header); strings.Contains(text, "a-provider-key") || action == "completions" && !strings.Contains(text, "Bearer ***") {
					t.Errorf("the answer shows the key, or the provider didn't echo it: %s", resp)
				}
			}
		}
	})
	for name, log := range map[string][]byte{"Vault's log": p.vault.Log(), "audit log": p.vault.AuditLog()} {
		for _, text := range []string{secret, "a-provider-key"} {
			if bytes.Contains(log, []byte(text)) {
				t.Errorf("the %s has %s", name, text)
			}
		}
	}
}

// authors: the policy of docs/prompts.md.
func (p *promptTests) authors(t *testing.T) {
	p.vault.Policy(t, "author", `
path "portkey/prompts/support-reply" {
  capabilities        = ["create", "update"]
  allowed_parameters  = { "virtual_key" = ["behind"], "*" = [] }
  required_parameters = ["virtual_key"]
}
path "portkey/prompts/support-reply@*" { capabilities = ["update", "read"] }`)
	author := p.atVault(t, p.vault.Token(t, "author"))
	write := func(more map[string]any) *vaulttest.Response {
		body := map[string]any{"model": "up-ok", "prompt": "Reply " + randomHex(4)}
		return post(t, author, p.mount+"/prompts/support-reply", with(body, more))
	}
	for range 2 {
		wantStatus(t, write(map[string]any{"virtual_key": "behind"}), http.StatusOK)
	}
	wantVaults403(t, write(map[string]any{"virtual_key": "other"}))
	wantVaults403(t, write(nil))
	wantVaults403(t, do(t, author, http.MethodPatch, p.mount+"/prompts/support-reply", map[string]any{"virtual_key": "other"}))
	wantVaults403(t, post(t, author, p.mount+"/prompts/support-reply/publish", map[string]any{"version": 2}))
	wantVaults403(t, post(t, author, p.mount+"/prompts/support-reply/completions", nil))
	wantStatus(t, post(t, author, p.mount+"/prompts/support-reply@2/render", nil), http.StatusOK)
	if got := author.Read(t, p.mount+"/prompts/support-reply@latest").Data(); got["version"] != 2.0 || got["published_version"] != 1.0 {
		t.Errorf("read %v", got)
	}
}

// revoked: the gateway keeps its grants for a minute, but no longer than the token.
func (p *promptTests) revoked(t *testing.T) {
	p.prompt(t, "revoked", "behind", nil)
	gateway := promptDoors()[2]
	app := caller{gatewayRig: p.gatewayRig, source: "127.5.0.1", token: p.vault.Token(t, "prompts")}
	for range 3 {
		wantCompletion(t, gateway.send(app, t, promptCall{ref: "revoked"}))
	}
	if n := len(p.asks(t, p.mount+"/prompts/revoked/")); n != 2 { // see docs/gateway.md: the first two
		t.Errorf("Vault was asked %d times for three calls", n)
	}
	p.root.Write(t, "auth/token/revoke", map[string]any{"token": app.token})
	deadline := time.Now().Add(10 * time.Second)
	for gateway.send(app, t, promptCall{ref: "revoked"}).Status != http.StatusForbidden {
		if time.Now().After(deadline) {
			t.Fatal("a revoked token still calls prompts")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (p *promptTests) reload(t *testing.T) {
	p.open(t, map[string]any{"redirect": "off"})
	p.prompt(t, "reloaded", "behind", nil)
	p.prompt(t, "reloaded", "behind", map[string]any{"messages": `[{"role":"user","content":"Second {{name}}"}]`})
	p.vault.Reload(t, p.mount)
	inline := promptDoors()[0]
	deadline := time.Now().Add(patience)
	for {
		resp := inline.send(p.caller(), t, promptCall{ref: "reloaded@2"})
		if resp.Status == http.StatusOK {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after a reload: %s", resp)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if body := string(lastRequest(t, p.up).Body); !strings.Contains(body, "Second Ann") {
		t.Errorf("the provider got %s", body)
	}
	rows, _ := p.root.Read(t, p.mount+"/usage?prompt=reloaded").Data()["total"].(map[string]any)
	if rows["requests"] != 1.0 {
		t.Errorf("usage after a reload: %v", rows)
	}
}
