// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"strings"
	"testing"

	"vault-plugin-secrets-portkey/internal/apierror"
)

func TestForm_GoesToTheProviderAsItIsAndVaultSeesItsFields(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	text := form(field("model", "whisper-1"), field("language", "en"), field("tag[]", "a"), field("tag[]", "b"), file("file", "\x00\xff audio"))
	for _, announced := range []bool{true, false} {
		req := upload("v1/audio/transcriptions", formType, text)
		if !announced {
			req = unannounced(req, text)
		}
		wantOK(t, r.send(req))
		got := r.provider.last(t)
		if got.body != text || got.header.Get("Content-Type") != formType || got.err != nil {
			t.Errorf("the provider got %q as %q (%v)", got.body, got.header.Get("Content-Type"), got.err)
		}
	}
	a := r.vault.questions()[0]
	for name, want := range map[string]any{"model": "whisper-1", "language": "en", "tag[]": nil, "file": nil} {
		if got, shown := a.fields[name]; !shown || got != want {
			t.Errorf("Vault was shown %s = %v (%t)", name, got, shown)
		}
	}
	if len(a.fields) != 5 || strings.Contains(a.body, "audio") {
		t.Errorf("Vault was shown %s", a.body)
	}
}

func TestForm_FieldsBehindTheFilesAreJudgedBeforeTheProviderHasThem(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", func(a *asked) bool { return a.fields["language"] != "xx" })
	start := []string{field("model", "whisper-1"), file("file", strings.Repeat("audio", 1000))}
	good := form(append(start, field("language", "en"))...)
	wantOK(t, r.send(upload("v1/audio/transcriptions", formType, good)))
	if n := r.vault.count(); n != 2 || r.vault.questions()[1].fields["language"] != "en" || r.vault.questions()[1].fields["model"] != "whisper-1" {
		t.Errorf("Vault was asked %d times, last with %v", n, r.vault.questions()[n-1].fields)
	}
	for _, c := range []struct {
		part   string
		status int
		code   string
	}{
		{field("language", "xx"), 403, apierror.CodePermissionDenied},
		{field("model", "another"), 400, apierror.CodeInvalidRequest},
		{field(NonceField, "x"), 403, apierror.CodeNonceInvalid},
	} {
		got := r.send(upload("v1/audio/transcriptions", formType, form(append(start, c.part)...)))
		wantRefusal(t, got, c.status, c.code)
	}
	for _, sent := range r.provider.requests()[1:] {
		if sent.err == nil || strings.Contains(sent.body, "xx") || strings.Contains(sent.body, "another") || strings.Contains(sent.body, NonceField) {
			t.Errorf("the provider got a body of %d bytes that ended with %v: …%.80q", len(sent.body), sent.err, sent.body[max(0, len(sent.body)-80):])
		}
	}
}

func TestForm_ModelBehindAFileIsTooLateWhereNoneIsNeeded(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	got := r.send(upload("v1/files", formType, form(file("file", "x"), field("model", "another"))))
	wantRefusal(t, got, 400, apierror.CodeInvalidRequest, "too late")
	for _, sent := range r.provider.requests() {
		if sent.err == nil || strings.Contains(sent.body, "another") {
			t.Errorf("the provider got %q (%v)", sent.body, sent.err)
		}
	}
}

// A leased key asks nobody, but the form must be the one that was read.
func TestForm_OfALeasedKeyIsHeldToItsModelAndBringsNoNonce(t *testing.T) {
	r := newRig(t)
	r.mount.leased["vk-good"] = Lease{Role: "team-a"}
	start := []string{field("model", "whisper-1"), file("file", strings.Repeat("audio", 1000))}
	send := func(more ...string) reply {
		req := upload("v1/audio/transcriptions", formType, form(append(start, more...)...))
		req.Header.Set("Authorization", "Bearer vk-good")
		return r.send(req)
	}
	wantOK(t, send(field("language", "en")))
	wantRefusal(t, send(field("model", "another")), 400, apierror.CodeInvalidRequest)
	wantRefusal(t, send(field(NonceField, "x")), 403, apierror.CodeNonceInvalid)
	wantRefusal(t, send(file(NonceField, "x")), 403, apierror.CodeNonceInvalid)
}

func TestForm_RefusesANonceAndTwoModels(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	for name, c := range map[string]struct {
		text string
		code string
	}{
		"a nonce":           {form(field(NonceField, "x"), field("model", "m")), apierror.CodeNonceInvalid},
		"a nonce as a file": {form(file(NonceField, "x"), field("model", "m")), apierror.CodeNonceInvalid},
		"two models":        {form(field("model", "a"), field("model", "b")), apierror.CodeInvalidRequest},
		"MODEL":             {form(field("MODEL", "a")), apierror.CodeInvalidRequest},
		"a model in a file": {form(file("model", "a")), apierror.CodeInvalidRequest},
		"no end":            {strings.TrimSuffix(form(field("model", "m")), "--\r\n"), apierror.CodeInvalidRequest},
		"another boundary":  {strings.ReplaceAll(form(field("model", "m")), boundary, "another"), apierror.CodeInvalidRequest},
	} {
		got := r.send(upload("v1/audio/transcriptions", formType, c.text))
		if got.code != c.code || got.status < 400 {
			t.Errorf("%s: got %d %s", name, got.status, got.body)
		}
	}
	if n := len(r.provider.requests()); n != 0 || r.vault.count() != 0 {
		t.Errorf("%d requests reached the provider, and %d Vault", n, r.vault.count())
	}
}

func TestForm_ModelBehindAFileIsWaitedFor(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	text := form(file("file", strings.Repeat("x", 100_000)), field("model", "whisper-1"))
	wantOK(t, r.send(upload("v1/audio/transcriptions", formType, text)))
	if got := r.provider.last(t); got.body != text {
		t.Errorf("the provider got %d bytes of %d", len(got.body), len(text))
	}
	if a := r.vault.questions()[0]; a.fields["model"] != "whisper-1" {
		t.Errorf("Vault was shown %s", a.body)
	}
}

func TestOpaqueBody_GoesOnWhereNoModelRuns(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	wantOK(t, r.send(upload("v1/uploads/u/parts", "application/octet-stream", "\x00\x01")))
	if got := r.provider.last(t); got.body != "\x00\x01" || got.header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("the provider got %+v", got)
	}
	for _, path := range []string{"v1/audio/speech", "v1/images/edits", "v1/embeddings", "v1/responses"} {
		wantRefusal(t, r.send(upload(path, "audio/wav", "x")), 415, apierror.CodeUnsupportedMediaType)
	}
}
