// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"net/http"
	"strings"
	"testing"

	"vault-plugin-secrets-portkey/internal/apierror"
)

func TestCall_LeasedKeyNeedsNoVaultAndWorksOnItsOwnVirtualKey(t *testing.T) {
	r := newRig(t)
	lease := Lease{Role: "team-a", Caller: Caller{Entity: "entity-1", DisplayName: "app"}}
	r.mount.leased["vk-good"] = lease
	wantOK(t, r.send(request("POST", "/v1/chat/completions", "vk-good", hello)))
	wantOK(t, r.chat("vk-good", hello))
	wantOK(t, r.send(request("GET", "/v1/models?key=vk-good", "", "")))
	if got := r.mount.lastCaller(t); got != lease.Caller {
		t.Errorf("the mount was told that it is %+v", got)
	}
	elsewhere := "/v1/" + testMount + "proxy/team-b/v1/chat/completions"
	wantRefusal(t, r.send(request("POST", elsewhere, "vk-good", hello)), 403, apierror.CodeVirtualKeyMismatch, "team-b")
	wantRefusal(t, r.chat("vk-good", `{"model":"@team-b/m"}`), 400, apierror.CodeInvalidRequest)
	delete(r.mount.leased, "vk-good")
	delete(r.mount.cached, "vk-good")
	got := r.chat("vk-good", hello)
	wantRefusal(t, got, 401, apierror.CodeCredentialInvalid, "vault read <mount>/creds/")
	if got.header.Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("headers: %v", got.header)
	}
	if r.vault.count() != 0 {
		t.Error("Vault was asked")
	}
}

func TestCall_VirtualKeyIsTakenOutOfTheModelAndNothingElseChanges(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	const text = `{ "big":9007199254740993, "model" : "@team-a/org/m" , "é":"\u00e9\/", "nested":{"model":"@team-b/x"} }`
	wantOK(t, r.send(request("POST", "/v1/chat/completions", "tok", text)))
	if got, want := r.provider.last(t).body, strings.Replace(text, "@team-a/", "", 1); got != want {
		t.Errorf("the provider got\n%s\nwant\n%s", got, want)
	}
	a := r.vault.questions()[0]
	if a.role != "team-a" || a.fields["model"] != "org/m" {
		t.Errorf("Vault was asked about %s and shown %s", a.role, a.body)
	}
}

func TestCall_FormIsNotChangedSoItsModelMayNameNoVirtualKey(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	text := form(field("model", "@team-a/whisper-1"), file("file", "audio"))
	got := r.send(request("POST", "/v1/audio/transcriptions", "tok", text, "Content-Type", formType))
	wantRefusal(t, got, 400, apierror.CodeInvalidRequest, "x-portkey-virtual-key")
	if r.vault.count() != 0 || len(r.provider.requests()) != 0 {
		t.Error("it went on")
	}
}

func TestCall_ModelThatVaultJudgesIsTheOneThatTheProviderRuns(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	for _, c := range []struct{ path, text, want string }{
		{"v1/chat/completions", `{"model":"m"}`, "m"},
		{"v1/chat/completions", `{"model":"m\u002d1"}`, "m-1"},
		{"openai/deployments/dep/chat/completions", `{"messages":[]}`, "dep"},
		{"openai/deployments/dep/chat/completions", `{"model":"dep","messages":[]}`, "dep"},
		{"v1beta/models/gem:generateContent", `{"contents":[]}`, "gem"},
	} {
		got := r.send(request("POST", "/v1/"+testMount+"proxy/team-a/"+c.path, "tok", c.text))
		if a := r.vault.questions()[r.vault.count()-1]; a.fields["model"] != c.want {
			t.Errorf("%s %s: Vault was shown %s, and the answer is %d", c.path, c.text, a.body, got.status)
		}
	}
	asked := r.vault.count()
	for _, c := range []struct{ path, text string }{
		{"openai/deployments/dep/chat/completions", `{"model":"other"}`},
		{"v1beta/models/gem:generateContent", `{"model":"other"}`},
		{"v1/chat/completions?model=other", `{"model":"m"}`},
		{"v1/chat/completions?model=a&model=b", `{}`},
	} {
		got := r.send(request("POST", "/v1/"+testMount+"proxy/team-a/"+c.path, "tok", c.text))
		wantRefusal(t, got, 400, apierror.CodeInvalidRequest)
	}
	if r.vault.count() != asked {
		t.Error("Vault was asked about a request with two models")
	}
}

func TestCall_ProviderGetsNeitherCredentialsNorNonce(t *testing.T) {
	r := newRig(t)
	r.vault.token("s3cr3t", nil)
	r.mount.leased["vk-s3cr3t"] = Lease{Role: "team-a"}
	for _, credential := range []string{"s3cr3t", "vk-s3cr3t"} {
		for _, header := range []string{"Authorization", "X-Vault-Token", "X-Portkey-Api-Key", "X-Api-Key", "Api-Key", "X-Goog-Api-Key"} {
			value := credential
			if header == "Authorization" {
				value = "Bearer " + credential
			}
			req := request("POST", chatPath, "", hello, "Cookie", "s3cr3t", "X-Vault-Namespace", "n", "X-Forwarded-For", "203.0.113.1")
			req.Header.Set(header, value)
			wantOK(t, r.send(req))
		}
		wantOK(t, r.send(request("POST", chatPath+"?key="+credential+"&beta=1", "", hello)))
		wantOK(t, r.send(request("GET", "/v1/"+testMount+"proxy/team-a/v1/models?KEY="+credential+"&key="+credential+"&api_key="+credential+"&a=b", "", "")))
	}
	for _, got := range r.provider.requests() {
		var text strings.Builder
		_ = got.header.Write(&text)
		if all := text.String() + got.query + got.body + got.path; strings.Contains(all, "s3cr3t") || strings.Contains(all, NonceField) {
			t.Errorf("the provider got %s %s %s", got.path, got.query, text.String())
		}
		if got.header.Get("Authorization") != "Bearer sk-a-provider-key" {
			t.Errorf("the provider got the credential %q", got.header.Get("Authorization"))
		}
	}
}

func TestCall_WhatTheMountSaysIsTheAnswer(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	r.mount.unknown["team-a"] = true
	wantRefusal(t, r.chat("tok", hello), 404, apierror.CodeVirtualKeyNotFound)
	r.mount.set(func(m *fakeMount) {
		m.refusal = &apierror.Error{Status: 503, Type: apierror.TypeAPI, Code: apierror.CodeNotActive, Message: "not here"}
	})
	asked := r.vault.count()
	wantRefusal(t, r.chat("tok", hello), 503, apierror.CodeNotActive)
	wantRefusal(t, r.chat("", hello), 503, apierror.CodeNotActive) // no credential is looked at
	if r.vault.count() != asked {
		t.Error("a node that isn't active asked Vault")
	}
}

func TestCall_VirtualKeysThatDoNotExistAreNotToldToWhomVaultRefuses(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", func(*asked) bool { return false })
	r.mount.unknown["team-b"] = true
	for _, role := range []string{"team-a", "team-b"} {
		got := r.send(request("POST", "/v1/"+testMount+"proxy/"+role+"/v1/chat/completions", "tok", hello))
		wantRefusal(t, got, 403, apierror.CodePermissionDenied)
	}
}

func TestCall_NeedsACredentialAndAVirtualKey(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	got := r.chat("", hello)
	wantRefusal(t, got, 401, apierror.CodeCredentialMissing)
	if got.header.Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("headers: %v", got.header)
	}
	wantRefusal(t, r.send(request("POST", "/v1/chat/completions", "tok", hello)), 400, apierror.CodeVirtualKeyRequired)
	wantRefusal(t, r.send(request("POST", "/v1/chat/completions", "tok", hello, "x-portkey-virtual-key", "../team-a")), 404, apierror.CodeVirtualKeyNotFound)
	req := request("POST", "/v1/chat/completions", "tok", hello)
	req.Header["X-Portkey-Virtual-Key"] = []string{"team-a", "team-b"}
	wantRefusal(t, r.send(req), 400, apierror.CodeInvalidRequest, "more than once")
	if r.vault.count() != 0 {
		t.Error("Vault was asked")
	}
}

func TestCall_TimesAreThoseOfTheSettings(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.IdleTimeout = 50_000_000 })
	r.vault.token("tok", nil)
	r.provider.answers(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = w.Write([]byte("data: {}\n\n"))
		_ = http.NewResponseController(w).Flush()
		<-req.Context().Done()
	})
	got := r.chat("tok", `{"model":"m","stream":true}`)
	if got.status != 200 || !strings.Contains(got.body, "idle_timeout") || got.aborted {
		t.Errorf("a silent stream ended with %d %q", got.status, got.body)
	}
	r.apply(t, func(s *Settings) { s.IdleTimeout, s.UpstreamTimeout = soon, 50_000_000 })
	got = r.chat("tok", `{"model":"m","stream":true}`)
	if got.status != 200 || !strings.Contains(got.body, "event: error") {
		t.Errorf("a long stream ended with %d %q", got.status, got.body)
	}
}
