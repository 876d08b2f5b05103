// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/gateway"
)

// promptAs calls prompts/<path>, as the caller with this entity id.
func (m *mount) promptAs(entity, path string, body map[string]any) inlineAnswer {
	m.t.Helper()
	req := &logical.Request{
		Operation: logical.UpdateOperation, Path: promptPrefix + path, EntityID: entity, Data: overJSON(m.t, body), Storage: m.storage, MountPoint: "portkey/",
	}
	if req.Data == nil {
		req.Data = map[string]any{}
	}
	resp, err := m.HandleRequest(m.t.Context(), req)
	m.noSecret(logical.UpdateOperation, path, resp, err)
	if err != nil {
		m.t.Fatalf("prompts/%s: %v", path, err)
	}
	answer, err := rawAnswer(resp)
	if err != nil {
		m.t.Fatalf("prompts/%s: %v", path, err)
	}
	return answer
}

// named are variables of the template that greeting makes.
func named(name string) map[string]any {
	return map[string]any{"variables": map[string]any{"name": name}}
}

// helloTo is what the provider gets of greeting("Hi") for named(name).
func helloTo(name string, more map[string]any) map[string]any {
	return with(map[string]any{"model": "gpt-4o-mini", "messages": []any{map[string]any{"role": "user", "content": "Hi " + name}}}, more)
}

func TestPromptRun_RenderAnswersWithTheRequestAndSendsNothing(t *testing.T) {
	m, up, _ := newProxyMount(t, nil)
	m.write("prompts/p", with(greeting("Hi"), map[string]any{"parameters": `{"temperature":0.2}`}))
	answer := m.promptAs("", "p/render", with(named(`"</b>{{name}}\`), map[string]any{"max_tokens": 5}))
	answer.want(t, http.StatusOK, "")
	wantJSON(t, answer.Body, map[string]any{"success": true, "data": helloTo(`"</b>{{name}}\`, map[string]any{"temperature": 0.2, "max_tokens": 5})})
	if answer.Type != "application/json" || answer.Header.Get("X-Portkey-Trace-Id") == "" {
		t.Errorf("answered %+v", answer)
	}
	m.delete("roles/r") // render needs no virtual key
	m.promptAs("", "p/render", named("x")).want(t, http.StatusOK, "")
	wantNothingSent(t, up)
}

func TestPromptRun_CompletionGoesToTheProviderOnTheTemplatesVirtualKey(t *testing.T) {
	m, up, _ := newProxyMount(t, map[string]any{"forced_params": map[string]any{"user": "forced"}, "default_params": map[string]any{"n": 1}})
	m.write("prompts/p", with(greeting("Hi"), map[string]any{"parameters": `{"temperature":0.2,"stop":["x"]}`}))
	m.write("prompts/text", map[string]any{"virtual_key": "r", "model": "gpt-3.5-turbo-instruct", "prompt": "Say {{x}}"})
	base := map[string]any{"n": 1, "user": "forced", "temperature": 0.2, "stop": []any{"x"}}
	for name, c := range map[string]struct {
		path string
		body map[string]any
		want map[string]any
	}{
		"variables":             {"p", named("Ann"), helloTo("Ann", base)},
		"variables as text":     {"p", map[string]any{"variables": `{"name":"Ann"}`}, helloTo("Ann", base)},
		"more variables":        {"p", map[string]any{"variables": map[string]any{"name": "Ann", "other": 1}}, helloTo("Ann", base)},
		"overrides":             {"p", with(named("Ann"), map[string]any{"temperature": 1, "seed": 5, "model": "gpt-4o"}), helloTo("Ann", with(base, map[string]any{"temperature": 1, "seed": 5, "model": "gpt-4o"}))},
		"nulls":                 {"p", with(named("Ann"), map[string]any{"temperature": nil, "model": nil, "virtual_key": nil}), helloTo("Ann", base)},
		"what SDKs leave in":    {"p", with(named("Ann"), map[string]any{"promptID": "p", "prompt_id": "p", "model": "portkey-default"}), helloTo("Ann", base)},
		"its own virtual key":   {"p", with(named("Ann"), map[string]any{"virtual_key": "r"}), helloTo("Ann", base)},
		"a version":             {"p@1", named("Ann"), helloTo("Ann", base)},
		"forced by the role":    {"p", with(named("Ann"), map[string]any{"user": "mine"}), helloTo("Ann", base)},
		"names of the captures": {"p", with(named("Ann"), map[string]any{"prompt_ref": "x", "name": "y"}), helloTo("Ann", with(base, map[string]any{"prompt_ref": "x", "name": "y"}))},
		"plain completion": {"text", map[string]any{"variables": map[string]any{"x": "a\nb"}},
			map[string]any{"model": "gpt-3.5-turbo-instruct", "prompt": "Say a\nb", "n": 1, "user": "forced"}},
	} {
		t.Run(name, func(t *testing.T) {
			m.t = t
			answer := m.promptAs("", c.path+"/completions", c.body)
			answer.want(t, http.StatusOK, "")
			sent := up.last(t)
			wantJSON(t, sent.Body, c.want)
			route := "chat/completions"
			if c.path == "text" {
				route = "completions"
			}
			if sent.URL != "https://api.openai.com/v1/"+route || sent.Header.Get("Authorization") != "Bearer "+secretA || answer.Header.Get("X-Portkey-Trace-Id") == "" {
				t.Errorf("sent %s with %v; answered %v", sent.URL, sent.Header, answer.Header)
			}
		})
	}
}

func TestPromptRun_WhatIsWrongIsRefusedInTheShapeThatSDKsReadAndSendsNothing(t *testing.T) {
	m, up, c := newProxyMount(t, nil)
	m.write("prompts/p", with(greeting("Hi"), map[string]any{"locked": "model,max_tokens", "parameters": `{"max_tokens":9}`}))
	m.write("prompts/bare", map[string]any{"virtual_key": "r", "messages": `{"role":"user","content":"x"}`})
	for _, role := range []string{"off", "gone", "old", "models", "entity"} {
		m.write("roles/"+role, map[string]any{"key": "a"})
		m.write("prompts/on-"+role, map[string]any{"virtual_key": role, "model": "m", "messages": `{"role":"user","content":"x"}`})
	}
	m.write("roles/off", map[string]any{"enabled": false})
	m.write("roles/old", map[string]any{"expires_at": c.now().Add(time.Minute).Format(time.RFC3339)})
	m.write("roles/models", map[string]any{"models": "gpt-4o*"})
	m.write("roles/entity", map[string]any{"allowed_entity_ids": "id-1"})
	m.delete("roles/gone")
	c.advance(time.Hour)
	long := strings.Repeat("x", 600<<10)
	for name, row := range map[string]struct {
		path   string
		body   map[string]any
		status int
		code   string
		says   string
	}{
		"no such template":          {"q", named("x"), 404, apierror.CodePromptNotFound, `no prompt template "q"`},
		"a name that none has":      {"q..q", named("x"), 404, apierror.CodePromptNotFound, `"q..q"`},
		"a name in unicode":         {"schlüssel", named("x"), 404, apierror.CodePromptNotFound, "schlüssel"},
		"a very long name":          {strings.Repeat("q", 5000), named("x"), 404, apierror.CodePromptNotFound, "qqq…"},
		"no such version":           {"p@2", named("x"), 404, apierror.CodePromptNotFound, `"p@2"`},
		"a version that is none":    {"p@x", named("x"), 404, apierror.CodePromptNotFound, `"p@x"`},
		"an empty version":          {"p@", named("x"), 404, apierror.CodePromptNotFound, `"p@"`},
		"two versions":              {"p@1@1", named("x"), 404, apierror.CodePromptNotFound, `"p@1@1"`},
		"a missing variable":        {"p", nil, 400, "missing_variable", `prompt template "p" (version 1): the prompt needs the variable "name"`},
		"variables as a list":       {"p", map[string]any{"variables": []any{1}}, 400, apierror.CodeInvalidRequest, `"variables" must be a JSON object`},
		"variables as a number":     {"p", map[string]any{"variables": 5}, 400, apierror.CodeInvalidRequest, `"variables" must be a JSON object`},
		"variables as other text":   {"p", map[string]any{"variables": "name=Ann"}, 400, apierror.CodeInvalidRequest, `{"name":"Ann"}`},
		"a locked model":            {"p", with(named("x"), map[string]any{"model": "gpt-5"}), 400, "field_locked", `locks "model"`},
		"a locked parameter":        {"p", with(named("x"), map[string]any{"max_tokens": 10}), 400, "field_locked", `locks "max_tokens"`},
		"locked in another case":    {"p", with(named("x"), map[string]any{"Max_Tokens": 10}), 400, "invalid_field", "case alone"},
		"messages":                  {"p", with(named("x"), map[string]any{"messages": []any{}}), 400, "invalid_field", "messages"},
		"too large":                 {"p", map[string]any{"variables": map[string]any{"name": long + long}}, 413, "prompt_too_large", "larger than"},
		"another virtual key":       {"p", with(named("x"), map[string]any{"virtual_key": "off"}), 403, apierror.CodeVirtualKeyMismatch, `runs on virtual key "r", and the request names "off"`},
		"a virtual key of no kind":  {"p", with(named("x"), map[string]any{"virtual_key": 1}), 400, apierror.CodeInvalidRequest, "must be a string"},
		"a virtual key of odd case": {"p", with(named("x"), map[string]any{"Virtual_Key": "off"}), 400, "invalid_field", "case alone"},
		"no model":                  {"bare", nil, 400, apierror.CodeModelRequired, `prompt template "bare" (version 1) has no model`},
		"portkey's default model":   {"bare", map[string]any{"model": "portkey-default"}, 400, apierror.CodeModelRequired, "has no model"},
		"virtual key disabled":      {"on-off", nil, 403, apierror.CodeVirtualKeyDisabled, `"off"`},
		"virtual key expired":       {"on-old", nil, 403, apierror.CodeVirtualKeyExpired, `"old"`},
		"virtual key gone":          {"on-gone", nil, 404, apierror.CodeVirtualKeyNotFound, `prompt template "on-gone" (version 1) runs on virtual key "gone", which does not exist`},
		"model not allowed":         {"on-models", nil, 403, apierror.CodeModelNotAllowed, "gpt-4o*"},
		"entity not allowed":        {"on-entity", nil, 403, apierror.CodeIdentityNotAllowed, "entity"},
		"a nonce that isn't ours":   {"p", with(named("x"), map[string]any{"gateway_nonce": "x"}), 403, apierror.CodeNonceInvalid, "gateway_nonce"},
	} {
		t.Run(name, func(t *testing.T) {
			m.t = t
			answer := m.promptAs("", row.path+"/completions", row.body)
			answer.want(t, row.status, row.code)
			var e struct{ Error struct{ Message string } }
			if err := json.Unmarshal([]byte(answer.Body), &e); err != nil || !strings.Contains(e.Error.Message, row.says) || len(answer.Body) > 4000 {
				t.Errorf("the message %.500q doesn't say %q", e.Error.Message, row.says)
			}
		})
	}
	wantNothingSent(t, up)
	m.t = t
	m.promptAs("id-1", "on-entity/completions", nil).want(t, 200, "")
	m.promptAs("", "on-models/completions", map[string]any{"model": "gpt-4o-mini"}).want(t, 200, "")
	m.promptAs("", "bare/completions", map[string]any{"model": "m"}).want(t, 200, "")
	m.promptAs("", "p/completions", with(named("x"), map[string]any{"model": "gpt-4o-mini", "max_tokens": 9})).want(t, 200, "") // what it is anyway
}

func TestPromptRun_ALeasedKeyRunsTheTemplatesOfItsVirtualKeyAlone(t *testing.T) {
	m, _, _ := newProxyMount(t, nil)
	m.write("prompts/p", greeting("Hi"))
	for _, render := range []bool{false, true} {
		for leased, code := range map[string]string{"": "", "r": "", "other": apierror.CodeVirtualKeyMismatch, "R": apierror.CodeVirtualKeyMismatch} {
			call := &gateway.PromptCall{Ref: "p", Render: render, Leased: leased, Fields: map[string]json.RawMessage{"variables": []byte(`{"name":"x"}`)}}
			text, req, refusal := m.door.Prompt(t.Context(), call)
			if code == "" && (refusal != nil || len(text) == 0 || (req == nil) != render) {
				t.Errorf("leased %q, render %t: %s, %v, %v", leased, render, text, req, refusal)
			}
			if code != "" && (refusal == nil || refusal.Code != code || text != nil || strings.Contains(refusal.Message, `"r"`)) {
				t.Errorf("leased %q, render %t: %s, %v", leased, render, text, refusal)
			}
		}
	}
}

func TestPromptRun_AModelThatTheVirtualKeySetsIsEnough(t *testing.T) {
	for _, params := range []string{"default_params", "forced_params"} {
		m, up, _ := newProxyMount(t, map[string]any{params: map[string]any{"model": "of-role"}})
		m.write("prompts/bare", map[string]any{"virtual_key": "r", "messages": `{"role":"user","content":"x"}`})
		m.promptAs("", "bare/completions", nil).want(t, 200, "")
		if body := up.last(t).Body; !strings.Contains(body, `"model":"of-role"`) {
			t.Errorf("%s: sent %s", params, body)
		}
	}
}

func TestPromptRun_PublishingChangesWhatTheNextCallGets(t *testing.T) {
	m, up, _ := newProxyMount(t, nil)
	m.write("prompts/p", greeting("Hi"))
	m.write("prompts/p", greeting("Bye"))
	content := func(ref string) string {
		m.promptAs("", ref+"/completions", named("Ann")).want(t, 200, "")
		var body struct{ Messages []struct{ Content string } }
		if err := json.Unmarshal([]byte(up.last(t).Body), &body); err != nil {
			t.Fatal(err)
		}
		return body.Messages[0].Content
	}
	if a, b, c := content("p"), content("p@latest"), content("p@2"); a != "Hi Ann" || b != "Bye Ann" || c != "Bye Ann" {
		t.Errorf("%q %q %q", a, b, c)
	}
	m.write("prompts/p/publish", map[string]any{"version": 2})
	if a, b := content("p"), content("p@1"); a != "Bye Ann" || b != "Hi Ann" {
		t.Errorf("%q %q", a, b)
	}
	m.delete("prompts/p")
	for _, ref := range []string{"p", "p@1", "p@latest"} {
		m.promptAs("", ref+"/completions", named("Ann")).want(t, 404, apierror.CodePromptNotFound)
	}
}

func TestPromptRun_TheVirtualKeysLimitsHoldAndUsageShowsThePrompt(t *testing.T) {
	up, c := &upstream{answer: func(*http.Request) (*http.Response, error) {
		return answerWith(200, "application/json", `{"model":"gpt-4o-mini","choices":[],"usage":{"prompt_tokens":100,"completion_tokens":10,"total_tokens":110}}`), nil
	}}, newClock()
	m := newMount(t, Options{Transport: up, Now: c.now})
	m.write("keys/a", openaiKey(secretA))
	m.write("roles/r", map[string]any{"key": "a", "limits": "requests=5/day per entity"})
	m.write("prompts/p", greeting("Hi"))
	m.write("prompts/q", with(greeting("Bye"), map[string]any{"model": "gpt-4o"}))
	var calls sync.WaitGroup
	for range 3 {
		calls.Go(func() { m.promptAs("e", "p/completions", named("x")).want(t, 200, "") })
	}
	calls.Wait()
	m.promptAs("e", "q@1/completions", named("x")).want(t, 200, "")
	m.chat("r", "gpt-4o").want(t, 200, "")
	m.promptAs("e", "p/completions", nil).want(t, 400, "missing_variable") // counts nowhere but as refused
	m.promptAs("e", "p/completions", named("x")).want(t, 200, "")
	m.promptAs("e", "p/completions", named("x")).want(t, 402, apierror.CodeBudgetExceeded)
	if n := len(up.requests()); n != 6 {
		t.Errorf("%d requests reached the provider, want 6", n)
	}
	row := func(prompt string, requests, refused int, more map[string]any) map[string]any {
		return with(map[string]any{"prompt": prompt, "requests": requests, "refused": refused, "input_tokens": 100 * requests}, more)
	}
	check := func(path string, query map[string]any, want ...map[string]any) {
		t.Helper()
		rows := overJSON(t, m.must(logical.ReadOperation, path, query).Data)["rows"].([]any)
		if len(rows) != len(want) {
			t.Fatalf("%s %v: %v", path, query, rows)
		}
		for i := range rows {
			wantFields(t, rows[i].(map[string]any), want[i])
		}
	}
	check("usage", map[string]any{"group_by": "prompt"}, row("", 1, 0, nil), row("p", 4, 2, nil), row("q", 1, 0, nil))
	check("usage/r", map[string]any{"group_by": "prompt,entity"}, row("", 1, 0, map[string]any{"entity": ""}), row("p", 4, 2, map[string]any{"entity": "e"}), row("q", 1, 0, map[string]any{"entity": "e"}))
	check("usage", map[string]any{"prompt": "q", "group_by": "role,day,model"},
		map[string]any{"role": "r", "day": "2026-05-01", "model": "gpt-4o", "requests": 1, "cost_usd": "0.00035"})
	if _, there := m.read("usage/r")["rows"].([]any)[0].(map[string]any)["prompt"]; there {
		t.Error("rows have a prompt that nobody asked for")
	}
	m.refused(logical.ReadOperation, "usage", map[string]any{"group_by": "prompts"}, "day, model, entity, prompt, role")
	// The next process reads the same.
	m.Cleanup(t.Context())
	m = newMountOn(t, Options{Transport: up, Now: c.now}, m.storage)
	check("usage", map[string]any{"group_by": "prompt", "prompt": "p"}, row("p", 4, 2, nil))
}

func TestPromptRun_AStreamArrivesWholeAndIsMetered(t *testing.T) {
	m := newMount(t, Options{})
	m.write("keys/sandbox", map[string]any{"provider": "sandbox"})
	m.write("roles/r", map[string]any{"key": "sandbox"})
	m.write("prompts/p", with(greeting("Hi"), map[string]any{"model": "sandbox-small"}))
	answer := m.promptAs("", "p/completions", with(named("Ann"), map[string]any{"stream": true, "max_tokens": 5}))
	answer.want(t, 200, "")
	if !strings.HasPrefix(answer.Type, "text/event-stream") || !strings.Contains(answer.Body, "data: [DONE]") || strings.Count(answer.Body, "chat.completion.chunk") < 3 {
		t.Errorf("answered %+v", answer)
	}
	rows := m.must(logical.ReadOperation, "usage", map[string]any{"group_by": "prompt"}).Data["rows"].([]any)
	if len(rows) != 1 {
		t.Fatalf("%v", rows)
	}
	wantFields(t, overJSON(t, rows[0].(map[string]any)), map[string]any{"prompt": "p", "requests": 1, "output_tokens": 5, "unconfirmed": 0})
}

func TestPromptRun_OnlyAnActiveInstanceAnswers(t *testing.T) {
	m, up, _ := newProxyMount(t, nil)
	m.write("prompts/p", greeting("Hi"))
	m.Cleanup(t.Context())
	for _, action := range []string{"render", "completions"} {
		m.promptAs("", "p/"+action, named("x")).want(t, 503, apierror.CodeNotActive)
	}
	wantNothingSent(t, up)
}
