// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/relay"
)

func TestGateway_ThatIsOffSaysSo(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	if err := r.Apply(nil); err != nil {
		t.Fatal(err)
	}
	for _, req := range []*http.Request{chatRequest("tok", hello), request("GET", "/readyz", "", ""), request("OPTIONS", chatPath, "", "")} {
		got := r.send(req)
		wantRefusal(t, got, 503, apierror.CodeGatewayUnavailable)
		if got.header.Get("Retry-After") == "" {
			t.Error("there is no Retry-After")
		}
	}
	if r.URL() != "" || r.Status().On || r.Status().Address != "" {
		t.Errorf("its URL is %q and its status %+v", r.URL(), r.Status())
	}
}

func TestGateway_HealthTakesNoCredentialAndTellsNoMoreThanAWord(t *testing.T) {
	r := newRig(t)
	check := func(path string, status int) {
		t.Helper()
		for _, method := range []string{"GET", "HEAD"} {
			got := r.send(request(method, path, "", ""))
			if got.status != status || len(got.body) > 64 || got.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s %s: %d %q %v", method, path, got.status, got.body, got.header)
			}
		}
	}
	check("/healthz", 200)
	check("/readyz", 200)
	r.Drain(soon)
	check("/healthz", 200)
	check("/readyz", 503)
	r.Undrain()
	r.mount.set(func(m *fakeMount) { m.path = "" })
	check("/readyz", 503)
	r.mount.set(func(m *fakeMount) {
		m.path, m.refusal = testMount, &apierror.Error{Status: 503, Code: apierror.CodeNotActive, Message: "not here"}
	})
	check("/healthz", 200)
	check("/readyz", 503)
	r.mount.set(func(m *fakeMount) { m.refusal = nil })
	check("/readyz", 200)
}

func TestGateway_EveryRefusalHasATraceAndTheErrorsShape(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	seen := map[string]bool{}
	for _, req := range []*http.Request{
		chatRequest("", hello), chatRequest("wrong", hello), chatRequest("tok", "{"), chatRequest("vk-x", hello),
		request("PUT", "/v1/chat/completions", "tok", hello), request("GET", "/v1/sys/health", "tok", ""), request("GET", "/t/x/y/z", "", ""),
		request("POST", "/v1/chat/completions", "tok", hello), chatRequest("tok", hello, "Upgrade", "websocket"),
	} {
		got := r.send(req)
		trace := got.header.Get(relay.TraceHeader)
		if got.status < 400 || got.code == "" || got.message == "" || trace == "" || seen[trace] {
			t.Errorf("%s %s: %d %s, trace %q", req.Method, req.URL, got.status, got.body, trace)
		}
		if seen[trace] = true; got.header.Get("Content-Type") != "application/json" {
			t.Errorf("the type is %q", got.header.Get("Content-Type"))
		}
	}
}

func TestGateway_EveryAnswerHasATrace(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.AllowedOrigins = []string{"https://app.example.com"} })
	r.vault.token("tok", nil)
	r.mount.set(func(m *fakeMount) { m.prompts = map[string]fakePrompt{"greet": {text: "{}"}} })
	preflight := func(origin string) *http.Request {
		return request("OPTIONS", chatPath, "", "", "Origin", origin, "Access-Control-Request-Method", "POST")
	}
	check := func(when string, req *http.Request, status int) {
		t.Helper()
		if got := r.send(req); got.status != status || len(got.header[relay.TraceHeader]) != 1 || got.header.Get(relay.TraceHeader) == "" {
			t.Errorf("%s, %s %s: %d, traces %q", when, req.Method, req.URL, got.status, got.header[relay.TraceHeader])
		}
	}
	check("on", chatRequest("tok", hello), 200)
	check("on", request("POST", "/v1/"+testMount+"prompts/greet/render", "tok", "{}"), 200)
	check("on", preflight("https://app.example.com"), 204)
	check("on", preflight("https://evil.example.com"), 403)
	check("on", request("GET", "/healthz", "", ""), 200)
	r.Drain(soon)
	check("draining", chatRequest("tok", hello), 503)
	check("draining", request("GET", "/readyz", "", ""), 503)
	if err := r.Apply(nil); err != nil {
		t.Fatal(err)
	}
	check("off", chatRequest("tok", hello), 503)
	check("off", request("GET", "/readyz", "", ""), 503)
}

func TestGateway_PagesOfAllowedOriginsMayReadRefusalsAndAnswers(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.AllowedOrigins = []string{"https://app.example.com"} })
	r.vault.token("tok", nil)
	for origin, want := range map[string]string{"https://app.example.com": "https://app.example.com", "https://evil.example.com": ""} {
		for _, token := range []string{"tok", "wrong", ""} {
			got := r.chat(token, hello, "Origin", origin)
			if all := got.header["Access-Control-Allow-Origin"]; strings.Join(all, "|") != want || len(got.header["Vary"]) == 0 {
				t.Errorf("%s, %q: %d allows %q, varies by %q", origin, token, got.status, all, got.header["Vary"])
			}
		}
		preflight := request("OPTIONS", chatPath, "", "", "Origin", origin, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization")
		got := r.send(preflight)
		if got.header.Get("Access-Control-Allow-Origin") != want || (got.status == 204) != (want != "") {
			t.Errorf("%s: the preflight got %d %v", origin, got.status, got.header)
		}
	}
	if got := r.send(request("OPTIONS", chatPath, "", "")); got.status != 405 {
		t.Errorf("OPTIONS that is no preflight got %d", got.status)
	}
}

// A provider that lets every page read its answers must not speak for the gateway.
func TestGateway_ProvidersOwnCORSHeadersGoNoFurther(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	r.provider.answers(func(w http.ResponseWriter, _ *http.Request) {
		for name, value := range map[string]string{
			"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Credentials": "true", "Access-Control-Expose-Headers": "*",
			"Access-Control-Allow-Headers": "*", "Access-Control-Allow-Methods": "*", "Access-Control-Allow-Private-Network": "true",
			"Content-Type": "application/json",
		} {
			w.Header().Set(name, value)
		}
		_, _ = io.WriteString(w, completion)
	})
	for _, origins := range [][]string{nil, {"https://app.example.com"}} {
		r.apply(t, func(s *Settings) { s.AllowedOrigins = origins })
		got := r.chat("tok", hello, "Origin", "https://app.example.com")
		wantOK(t, got)
		for name, values := range got.header {
			if !strings.HasPrefix(name, "Access-Control-") {
				continue
			}
			ours := len(origins) > 0 && len(values) == 1 && values[0] != "*" && values[0] != "true"
			if !ours {
				t.Errorf("with the origins %q: %s: %q", origins, name, values)
			}
		}
	}
}

func TestGateway_SourceIsTheAddressOfTheConnection(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.7:1": "192.0.2.7", "[2001:db8::1]:1": "2001:db8::1", "[::ffff:192.0.2.7]:1": "192.0.2.7", "[fe80::1%eth0]:1": "fe80::1",
	} {
		if got := sourceOf(from(remote, request("GET", "/", "", "", "X-Forwarded-For", "203.0.113.1", "Forwarded", "for=203.0.113.1"))); got != netip.MustParseAddr(want) {
			t.Errorf("%s: %s", remote, got)
		}
	}
	for _, remote := range []string{"", "@", "pipe", "192.0.2.7"} {
		if got := sourceOf(from(remote, request("GET", "/", "", ""))); got.IsValid() {
			t.Errorf("%q: %s", remote, got)
		}
	}
}

func TestGateway_CloseLeavesNothingBehind(t *testing.T) {
	leavesNoGoroutine(t, func() {
		r := newRig(t)
		r.vault.token("tok", nil)
		for range 3 {
			if _, text, err := r.overTheWire(t, r.client(t), r.URL(), hello); err != nil || text != completion {
				t.Errorf("%q %v", text, err)
			}
		}
		r.Drain(soon) // whose timer must not stay
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		defer cancel()
		r.Close(ctx)
		r.Close(ctx)
		if accepts(r.address()) {
			t.Error("it listens still")
		}
		r.vault.server.Close()
		r.provider.server.Close()
		r.relayTransport.CloseIdleConnections()
	})
}
