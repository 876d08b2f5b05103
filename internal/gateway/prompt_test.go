// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// Where a prompt is called: as in Vault, and as Portkey's SDKs call it.
const (
	promptPath   = "/v1/" + testMount + "prompts/greet/completions"
	portkeysPath = "/v1/prompts/greet/completions"
	called       = `{"variables":{"name":"Ann","big":9007199254740993},"temperature":0.5}`
	filledIn     = `{"model":"gpt-4o","messages":[{"role":"user","content":"Hi Ann"}],"big":9007199254740993}`
)

// newPromptRig has the templates greet and greet@2, and the token "tok".
func newPromptRig(t testing.TB, change ...func(*Settings)) *rig {
	r := newRig(t, change...)
	r.mount.set(func(m *fakeMount) {
		m.prompts = map[string]fakePrompt{"greet": {text: filledIn}, "greet@2": {text: strings.Replace(filledIn, "Hi", "Bye", 1)}}
	})
	r.vault.token("tok", nil)
	return r
}

// lastCall is what the mount was asked for last.
func (m *fakeMount) lastCall(t testing.TB) PromptCall {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.calls) == 0 {
		t.Fatal("no prompt was called")
	}
	return m.calls[len(m.calls)-1]
}

func TestPrompt_VaultIsAskedForThePromptsPathAndShownTheBody(t *testing.T) {
	for path, below := range map[string]string{
		promptPath: "prompts/greet/completions", portkeysPath: "prompts/greet/completions",
		"/v1/" + testMount + "prompts/greet@2/completions": "prompts/greet@2/completions",
		"/v1/prompts/greet%402/completions":                "prompts/greet@2/completions",
	} {
		r := newPromptRig(t)
		wantOK(t, r.send(request("POST", path, "tok", called)))
		if n := r.vault.count(); n != 1 {
			t.Fatalf("%s: Vault was asked %d times", path, n)
		}
		a := r.vault.questions()[0]
		want := []string{NonceField, "temperature", "variables"}
		if a.below != below || a.method != "POST" || !slices.Equal(slices.Sorted(maps.Keys(a.fields)), want) || a.fields["temperature"] != 0.5 || a.fields["variables"] != nil {
			t.Errorf("%s: Vault was asked about %s and shown %s", path, a.below, a.body)
		}
		call := r.mount.lastCall(t)
		if string(call.Fields["variables"]) != `{"name":"Ann","big":9007199254740993}` || len(call.Fields) != 2 || call.Render || call.Leased+call.VirtualKey != "" || call.Entity != "entity-tok" {
			t.Errorf("%s: the mount was asked for %+v", path, call)
		}
		sent := r.provider.last(t)
		if sent.path != "/v1/chat/completions" || !strings.Contains(sent.body, "9007199254740993") || !strings.HasPrefix(below, "prompts/"+call.Ref+"/") {
			t.Errorf("%s: the provider got %+v", path, sent)
		}
	}
}

func TestPrompt_RenderIsAnsweredHere(t *testing.T) {
	r := newPromptRig(t)
	got := r.send(request("POST", "/v1/prompts/greet/render", "tok", called))
	if got.status != 200 || got.body != filledIn || got.header.Get("Content-Type") != "application/json" || got.header.Get("X-Portkey-Trace-Id") == "" {
		t.Errorf("answered %+v", got)
	}
	if a := r.vault.questions()[0]; a.below != "prompts/greet/render" || !r.mount.lastCall(t).Render || len(r.provider.requests()) != 0 {
		t.Errorf("Vault was asked about %s", a.below)
	}
}

// A grant for the one must never do for the other: each needs a question of its own.
func TestPrompt_GrantsAreForOnePromptOneVersionAndOneAction(t *testing.T) {
	r := newPromptRig(t)
	r.mount.set(func(m *fakeMount) { m.prompts["team-a"] = fakePrompt{text: filledIn} })
	targets := []string{
		promptPath, "/v1/prompts/greet@2/completions", "/v1/prompts/greet/render", "/v1/prompts/greet@2/render", "/v1/prompts/team-a/completions",
		"/v1/" + testMount + "proxy/team-a/completions", "/v1/" + testMount + "proxy/prompts/greet/completions", "/v1/" + testMount + "proxy/team-a/v1/prompts/greet/completions",
	}
	for i, target := range targets {
		r.send(request("POST", target, "tok", called))
		if n := r.vault.count(); n != i+1 {
			t.Fatalf("%s: Vault was asked %d times, want %d", target, n, i+1)
		}
	}
	for _, target := range append(targets, portkeysPath) { // where Portkey's SDKs call is the same
		r.send(request("POST", target, "tok", called))
	}
	if n := r.vault.count(); n != len(targets) {
		t.Errorf("Vault was asked %d times, though it has said yes to all %d", n, len(targets))
	}
	wantOK(t, r.send(request("POST", promptPath, "tok", strings.Replace(called, "Ann", "Bob", 1))))
	if r.vault.count() != len(targets) {
		t.Error("variables, which Vault isn't shown, need a grant of their own")
	}
	wantOK(t, r.send(request("POST", promptPath, "tok", strings.Replace(called, "0.5", "0.6", 1))))
	if r.vault.count() != len(targets)+1 {
		t.Error("a parameter that policies may judge needs none")
	}
}

func TestPrompt_WhomVaultRefusesLearnsNothing(t *testing.T) {
	r := newPromptRig(t)
	r.vault.token("role-only", func(a *asked) bool { return strings.HasPrefix(a.below, "proxy/") })
	for _, ref := range []string{"greet", "greet@2", "none", "none@7"} {
		for _, action := range []string{"completions", "render"} {
			got := r.send(request("POST", "/v1/prompts/"+ref+"/"+action, "role-only", called))
			wantRefusal(t, got, 403, apierror.CodePermissionDenied, "prompts/<prompt>/completions")
		}
	}
	r.mount.mu.Lock()
	defer r.mount.mu.Unlock()
	if len(r.mount.calls) != 0 {
		t.Errorf("the mount was asked: %+v", r.mount.calls)
	}
}

func TestPrompt_VirtualKeysThatARequestNamesAreTheMountsToJudge(t *testing.T) {
	for name, c := range map[string]struct {
		body    string
		headers []string
		want    string
		model   string // as Vault is shown it
	}{
		"none":                {body: called},
		"header":              {body: called, headers: []string{"x-portkey-virtual-key", "team-a"}, want: "team-a"},
		"provider":            {body: called, headers: []string{"x-portkey-provider", "@team-a"}, want: "team-a"},
		"kind of provider":    {body: called, headers: []string{"x-portkey-provider", "openai"}},
		"config":              {body: called, headers: []string{"x-portkey-config", `{"virtual_key":"team-a"}`}, want: "team-a"},
		"model":               {body: `{"model":"@team-a/m"}`, want: "team-a", model: "m"},
		"model and header":    {body: `{"model":"@team-a/m"}`, headers: []string{"x-portkey-virtual-key", "team-a"}, want: "team-a", model: "m"},
		"a model without one": {body: `{"model":"m"}`, model: "m"},
		"the default model":   {body: `{"model":"portkey-default"}`},
	} {
		t.Run(name, func(t *testing.T) {
			r := newPromptRig(t)
			wantOK(t, r.send(request("POST", promptPath, "tok", c.body, c.headers...)))
			call := r.mount.lastCall(t)
			if call.VirtualKey != c.want {
				t.Errorf("the mount was told %q", call.VirtualKey)
			}
			shown, _ := r.vault.questions()[0].fields["model"].(string)
			if given := string(call.Fields["model"]); shown != c.model || c.model != "" && given != fmt.Sprintf("%q", c.model) {
				t.Errorf("Vault was shown the model %q, the mount was given %s", shown, given)
			}
		})
	}
	r := newPromptRig(t)
	for body, headers := range map[string][]string{
		`{"model":"@team-a/m"}`: {"x-portkey-virtual-key", "team-b"}, `{"model":"@team-a/"}`: nil, called: {"x-portkey-config", `{"strategy":1}`},
	} {
		if got := r.send(request("POST", promptPath, "tok", body, headers...)); got.status != 400 {
			t.Errorf("%s with %v: %d %s", body, headers, got.status, got.body)
		}
	}
	refusal := &apierror.Error{Status: 403, Type: apierror.TypeInvalidRequest, Code: apierror.CodeVirtualKeyMismatch, Message: "no"}
	r.mount.set(func(m *fakeMount) { m.prompts["greet"] = fakePrompt{refusal: refusal} })
	wantRefusal(t, r.send(request("POST", promptPath, "tok", called)), 403, apierror.CodeVirtualKeyMismatch)
	wantRefusal(t, r.send(request("POST", "/v1/prompts/none/render", "tok", called)), 404, apierror.CodePromptNotFound, `"none"`)
	if n := len(r.provider.requests()); n != 0 {
		t.Errorf("%d requests reached the provider", n)
	}
}

func TestPrompt_LeasedKeyIsTheMountsToJudge(t *testing.T) {
	r := newPromptRig(t)
	r.mount.leased["vk-good"] = Lease{Role: "behind", Caller: Caller{Entity: "e"}}
	wantOK(t, r.send(request("POST", portkeysPath, "vk-good", called)))
	if call := r.mount.lastCall(t); call.Leased != "behind" || call.Entity != "e" {
		t.Errorf("the mount was asked for %+v", call)
	}
	wantRefusal(t, r.send(request("POST", portkeysPath, "vk-bad", called)), 401, apierror.CodeCredentialInvalid)
	wantRefusal(t, r.send(request("POST", portkeysPath, "", called)), 401, apierror.CodeCredentialMissing)
	if r.vault.count() != 0 {
		t.Error("Vault was asked")
	}
}

func TestPrompt_BodyIsJSONOrNothing(t *testing.T) {
	r := newPromptRig(t)
	wantOK(t, r.send(request("POST", promptPath, "tok", "")))
	if call := r.mount.lastCall(t); len(call.Fields) != 0 {
		t.Errorf("the mount was given %v", call.Fields)
	}
	wantRefusal(t, r.send(request("POST", promptPath, "tok", form(field("variables", "{}")), "Content-Type", formType)), 415, apierror.CodeUnsupportedMediaType, "JSON")
	wantRefusal(t, r.send(request("POST", promptPath, "tok", "x", "Content-Type", "audio/wav")), 415, apierror.CodeUnsupportedMediaType, "JSON")
	wantRefusal(t, r.send(request("POST", promptPath, "tok", `{"variables":{},"variables":{}}`)), 400, apierror.CodeInvalidRequest, "more than once")
	wantRefusal(t, r.send(request("POST", promptPath, "tok", `{"gateway_nonce":"x"}`)), 403, apierror.CodeNonceInvalid)
	wantRefusal(t, r.send(request("POST", promptPath, "tok", `[]`)), 400, apierror.CodeInvalidRequest)
	if got := r.send(request("GET", promptPath, "tok", "")); got.status != 404 {
		t.Errorf("GET: %d %s", got.status, got.body)
	}
	if n := len(r.provider.requests()); n != 1 {
		t.Errorf("%d requests reached the provider", n)
	}
}

func TestPrompt_TicketLetsOneCallOfThatPromptIn(t *testing.T) {
	const body = `{"variables":{"name":"Ann"},"stream":true}`
	judged := func(t *testing.T, path string) *Inline {
		i := inline(t, body)
		i.Path = path
		return i
	}
	r := newPromptRig(t)
	r.mount.set(func(m *fakeMount) { m.prompts["other"] = fakePrompt{text: filledIn} })
	path := ticketPath(t, r, judged(t, "prompts/greet@2/completions"))
	if !strings.HasSuffix(path, "/prompts/greet@2/completions") {
		t.Errorf("the path is %s", path)
	}
	wantOK(t, r.send(request("POST", path, "", body)))
	if call := r.mount.lastCall(t); call.Ref != "greet@2" || call.Entity != "entity-1" {
		t.Errorf("the mount was asked for %+v", call)
	}
	wantRefusal(t, r.send(request("POST", path, "", body)), 403, apierror.CodeTicketInvalid, "used")
	for _, elsewhere := range []string{"prompts/greet/completions", "prompts/other/completions", "prompts/greet@2/render", "proxy/greet/completions", "proxy/prompts/greet@2/completions"} {
		path := ticketPath(t, r, judged(t, "prompts/greet@2/completions"))
		ticket, _, _ := strings.Cut(strings.TrimPrefix(path, "/t/"), "/")
		wantRefusal(t, r.send(request("POST", "/t/"+ticket+"/"+elsewhere, "", body)), 403, apierror.CodeTicketInvalid, "another request")
	}
	path = ticketPath(t, r, judged(t, "prompts/greet/completions"))
	wantRefusal(t, r.send(request("POST", path, "", strings.Replace(body, "Ann", "Bob", 1))), 403, apierror.CodeTicketInvalid, "another body")
	if n := len(r.provider.requests()); n != 1 || r.vault.count() != 0 {
		t.Errorf("%d requests reached the provider; Vault was asked %d times", n, r.vault.count())
	}
}

// Over its real listener a stream comes piece by piece.
func TestPrompt_StreamsAsTheProviderDoes(t *testing.T) {
	r := newPromptRig(t)
	more := make(chan struct{})
	r.provider.answers(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n")
		w.(http.Flusher).Flush()
		<-more
		fmt.Fprint(w, "data: [DONE]\n\n")
	})
	req, err := http.NewRequest("POST", r.URL()+portkeysPath, strings.NewReader(`{"stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Portkey-Api-Key", "tok")
	req.Header.Set("Authorization", "Bearer OPENAI_API_KEY")
	r.apply(t, func(s *Settings) { s.IgnoreCallerAddress = true })
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, 8)
	if _, err := resp.Body.Read(first); err != nil || string(first) != `data: {"` || resp.StatusCode != 200 {
		t.Errorf("%d, %q %v", resp.StatusCode, first, err)
	}
	close(more)
}
