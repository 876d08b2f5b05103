// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// inline is what Vault passes to the plugin of a POST with this body.
func inline(t testing.TB, body string) *Inline {
	t.Helper()
	fields, err := vaultDecodes([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return &Inline{
		Method: http.MethodPost, Path: "proxy/team-a/v1/chat/completions", Fields: fields, Remote: "127.0.0.1",
		Caller: Caller{Entity: "entity-1", DisplayName: "display-1", Accessor: "accessor-1", Token: "salted-1"},
	}
}

const streamed = `{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi."}],"n":1,"seed":9007199254740993}`

// ticketPath has Vault redirect a request, and returns where to, without the gateway's URL.
func ticketPath(t testing.TB, r *rig, i *Inline) string {
	t.Helper()
	location := r.Redirect(i)
	path, found := strings.CutPrefix(location, r.URL())
	if !found || !strings.HasPrefix(path, "/t/") {
		t.Fatalf("redirected to %q; the gateway is at %s", location, r.URL())
	}
	return path
}

func TestTicket_LetsTheOneRequestInThatVaultJudgedWithoutACredential(t *testing.T) {
	r := newRig(t)
	i := inline(t, streamed)
	path := ticketPath(t, r, i)
	if ticket, rest, _ := strings.Cut(strings.TrimPrefix(path, "/t/"), "/"); len(ticket) != 43 || rest != "proxy/team-a/v1/chat/completions" {
		t.Errorf("the path is %s", path)
	}
	wantOK(t, r.send(request("POST", path, "", streamed)))
	if got := r.provider.last(t); got.path != "/v1/chat/completions" || !strings.Contains(got.body, "9007199254740993") {
		t.Errorf("the provider got %+v", got)
	}
	if got := r.mount.lastCaller(t); got != i.Caller {
		t.Errorf("the mount was told that it is %+v", got)
	}
	if r.vault.count() != 0 {
		t.Error("Vault was asked again")
	}
	wantRefusal(t, r.send(request("POST", path, "", streamed)), 403, apierror.CodeTicketInvalid, "used")
	if n := len(r.provider.requests()); n != 1 {
		t.Errorf("%d requests reached the provider", n)
	}
}

// The Vault command line writes by PUT, and follows redirects.
func TestTicket_TakesPutForPostAsVaultDoes(t *testing.T) {
	r := newRig(t)
	path := ticketPath(t, r, inline(t, streamed))
	wantOK(t, r.send(request("PUT", path, "", streamed)))
	if got := r.provider.last(t); got.method != "POST" {
		t.Errorf("the provider got a %s", got.method)
	}
	wantRefusal(t, r.send(request("PUT", path, "", streamed)), 403, apierror.CodeTicketInvalid, "used")
	wantRefusal(t, r.send(request("PATCH", path, "", streamed)), 405, apierror.CodeMethodNotAllowed)
	wantRefusal(t, r.send(request("PUT", "/v1/chat/completions", "tok", hello)), 405, apierror.CodeMethodNotAllowed)
}

func TestTicket_WorksOnceForManyAtOnce(t *testing.T) {
	r := newRig(t)
	path := ticketPath(t, r, inline(t, streamed))
	var in atomic.Int64
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			if r.send(request("POST", path, "", streamed)).status == http.StatusOK {
				in.Add(1)
			}
		})
	}
	all.Wait()
	if n := in.Load(); n != 1 || len(r.provider.requests()) != 1 {
		t.Errorf("a ticket let %d requests in, and %d reached the provider", n, len(r.provider.requests()))
	}
}

func TestTicket_EndsAfterTenSeconds(t *testing.T) {
	r := newRig(t)
	path := ticketPath(t, r, inline(t, streamed))
	r.clock.advance(ticketTTL - 1)
	wantOK(t, r.send(request("POST", path, "", streamed)))
	path = ticketPath(t, r, inline(t, streamed))
	r.clock.advance(ticketTTL)
	wantRefusal(t, r.send(request("POST", path, "", streamed)), 403, apierror.CodeTicketInvalid, "expired")
}

func TestTicket_IsForThisMethodPathAndBody(t *testing.T) {
	r := newRig(t)
	for name, build := range map[string]func(ticket string) *http.Request{
		"role": func(k string) *http.Request {
			return request("POST", "/t/"+k+"/proxy/team-b/v1/chat/completions", "", streamed)
		},
		"path": func(k string) *http.Request {
			return request("POST", "/t/"+k+"/proxy/team-a/v1/completions", "", streamed)
		},
		"method": func(k string) *http.Request {
			return request("GET", "/t/"+k+"/proxy/team-a/v1/chat/completions", "", "")
		},
		"query": func(k string) *http.Request {
			return request("POST", "/t/"+k+"/proxy/team-a/v1/chat/completions?a=b", "", streamed)
		},
		"no body": func(k string) *http.Request {
			return request("POST", "/t/"+k+"/proxy/team-a/v1/chat/completions", "", "")
		},
		"model":          sending(strings.Replace(streamed, `"m"`, `"m2"`, 1)),
		"nested value":   sending(strings.Replace(streamed, "Hi.", "Ho.", 1)),
		"one more field": sending(strings.Replace(streamed, `"n":1`, `"n":1,"x":null`, 1)),
		"one field less": sending(strings.Replace(streamed, `"n":1,`, "", 1)),
		"type":           sending(strings.Replace(streamed, `"n":1`, `"n":true`, 1)),
		"number":         sending(strings.Replace(streamed, "740993", "740995", 1)),
		"a form": func(k string) *http.Request {
			return request("POST", "/t/"+k+"/proxy/team-a/v1/chat/completions", "", "--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--x--\r\n",
				"Content-Type", "multipart/form-data; boundary=x")
		},
	} {
		path := ticketPath(t, r, inline(t, streamed))
		ticket, _, _ := strings.Cut(strings.TrimPrefix(path, "/t/"), "/")
		got := r.send(build(ticket))
		if got.status != 403 || got.code != apierror.CodeTicketInvalid {
			t.Errorf("%s: got %d %s", name, got.status, got.body)
		}
		if got := r.send(request("POST", path, "", streamed)); got.code != apierror.CodeTicketInvalid {
			t.Errorf("%s: the ticket works still: %d", name, got.status)
		}
	}
	if n := len(r.provider.requests()); n != 0 {
		t.Errorf("%d requests reached the provider", n)
	}
}

func sending(text string) func(string) *http.Request {
	return func(ticket string) *http.Request {
		return request("POST", "/t/"+ticket+"/proxy/team-a/v1/chat/completions", "", text)
	}
}

// SDKs repeat the very bytes, but Vault has lost their spelling.
func TestTicket_TakesTheSpellingThatVaultDidNotSee(t *testing.T) {
	r := newRig(t)
	for vaults, text := range map[string]string{
		`{"a":1,"stream":true,"b":2}`:                   "{\n \"b\" : 2 , \"a\":1.0, \"stream\":true }",
		`{"stream":true,"n":100}`:                       `{"stream":true,"n":1e2}`,
		`{"stream":true,"n":9007199254740993}`:          `{"stream":true,"n":9007199254740993}`,
		`{"stream":true,"n":-0}`:                        `{"stream":true,"n":-0.0}`,
		`{"stream":true,"s":"<é\u2028\ud83d\ude00>"}`:   `{"stream":true,"s":"\u003c\u00e9\u2028😀>"}`,
		`{"stream":true,"k\u0065y":{"b":[1,2],"a":{}}}`: `{"stream":true,"key":{"a":{},"b":[1,2.0]}}`,
	} {
		i := inline(t, vaults)
		i.Path = "proxy/team-a/v1/files"
		if got := r.send(request("POST", ticketPath(t, r, i), "", text)); got.status != 200 {
			t.Errorf("%s for %s: %d %s", text, vaults, got.status, got.body)
		}
	}
}

func TestTicket_OfAGetIsForItsQuery(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.Redirect = RedirectAll })
	i := &Inline{Method: http.MethodGet, Path: "proxy/team-a/v1/files", Remote: "127.0.0.1", Query: url.Values{"limit": {"2", "3"}, "after": {"a b"}}.Encode()}
	path := ticketPath(t, r, i)
	wantOK(t, r.send(request("GET", path, "", "")))
	if got := r.provider.last(t); got.query != "after=a+b&limit=2&limit=3" {
		t.Errorf("the provider got the query %q", got.query)
	}
	for _, req := range []*http.Request{request("GET", ticketPath(t, r, i)+"&x=y", "", ""), request("DELETE", ticketPath(t, r, i), "", "")} {
		wantRefusal(t, r.send(req), 403, apierror.CodeTicketInvalid)
	}
	// A POST without a body is like one of {}, and not like an upload.
	i = inline(t, `{}`)
	i.Path = "proxy/team-a/v1/batches/b/cancel"
	wantOK(t, r.send(request("POST", ticketPath(t, r, i), "", "")))
	for _, contentType := range []string{formType, "application/octet-stream"} {
		req := request("POST", ticketPath(t, r, i), "", form(field("a", "b")), "Content-Type", contentType)
		wantRefusal(t, r.send(req), 403, apierror.CodeTicketInvalid)
	}
}

// Vault ignores ?key=, which is where some SDKs put their key; so does what it
// redirects to.
func TestTicket_OfAGetWithAKeyInItsQueryWorks(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.Redirect = RedirectAll })
	i := &Inline{Method: http.MethodGet, Path: "proxy/team-a/v1beta/models", Remote: "127.0.0.1", Query: "key=a-vault-token&pageSize=2"}
	location := r.URL() + ticketPath(t, r, i)
	if strings.Contains(location, "a-vault-token") {
		t.Errorf("the redirect shows the credential: %s", location)
	}
	if got := r.send(request("GET", strings.TrimPrefix(location, r.URL()), "", "")); got.code == apierror.CodeTicketInvalid {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

func TestTicket_ThatNeverWasIsRefused(t *testing.T) {
	r := newRig(t)
	for _, ticket := range []string{"x", strings.Repeat("A", 43), strings.Repeat("A", maxTicket)} {
		wantRefusal(t, r.send(request("POST", "/t/"+ticket+"/proxy/team-a/v1/chat/completions", "", streamed)), 403, apierror.CodeTicketInvalid)
	}
	for _, path := range []string{"/t/", "/t/x", "/t//proxy/team-a/v1/x", "/t/x/proxy/team-a", "/t/x/team-a/v1/x", "/t/a.b/proxy/team-a/v1/x", "/t/" + strings.Repeat("A", maxTicket+1) + "/proxy/team-a/v1/x"} {
		if got := r.send(request("POST", path, "", streamed)); got.status < 400 || got.status >= 500 {
			t.Errorf("%s: got %d", path, got.status)
		}
	}
}

func TestTicket_DoesNotLetAnotherVirtualKeyIn(t *testing.T) {
	r := newRig(t)
	text := `{"model":"@team-b/m","stream":true}`
	wantRefusal(t, r.send(request("POST", ticketPath(t, r, inline(t, text)), "", text)), 400, apierror.CodeInvalidRequest, "team-b")
	text = `{"model":"@team-a/m","stream":true}`
	wantOK(t, r.send(request("POST", ticketPath(t, r, inline(t, text)), "", text)))
	wantOK(t, r.send(request("POST", ticketPath(t, r, inline(t, streamed)), "", streamed, "x-portkey-virtual-key", "team-b")))
	if got := r.provider.last(t); !strings.Contains(got.body, `"model":"m"`) {
		t.Errorf("the provider got %s", got.body)
	}
}

func TestTickets_AreBoundedAndSwept(t *testing.T) {
	r := newRig(t)
	i := inline(t, streamed)
	for n := range maxTickets {
		if r.Redirect(i) == "" {
			t.Fatalf("there was no ticket though only %d are open", n)
		}
	}
	if location := r.Redirect(i); location != "" {
		t.Errorf("one too many was made: %s", location)
	}
	r.clock.advance(ticketTTL)
	r.Sweep()
	if n := len(r.tickets.open); n != 0 || r.Redirect(i) == "" {
		t.Errorf("%d tickets are open still", n)
	}
	for key := range r.tickets.open {
		if path := r.Redirect(i); strings.Contains(path, string(key[:])) {
			t.Error("memory holds a ticket")
		}
	}
}

func TestRedirect_SaysWhichRequestsAreSentOn(t *testing.T) {
	r := newRig(t)
	whole := inline(t, strings.Replace(streamed, "true", "false", 1))
	get := &Inline{Method: http.MethodGet, Path: "proxy/team-a/v1/models", Remote: "127.0.0.1"}
	for name, c := range map[string]struct {
		redirect         Redirect
		public, vault    string
		tls              bool
		stream, all, get bool
	}{
		"stream":                      {RedirectStream, "", "", false, true, false, false},
		"all":                         {RedirectAll, "", "", false, true, true, true},
		"off":                         {RedirectOff, "", "", false, false, false, false},
		"from https to http":          {RedirectAll, "", "", true, false, false, false},
		"Vault is asked by https":     {RedirectAll, "", "https://vault.example.com", false, false, false, false},
		"from https to https":         {RedirectAll, "https://llm.example.com", "https://vault.example.com", true, true, true, true},
		"from https to a public http": {RedirectAll, "http://llm.example.com", "", true, false, false, false},
		"from http to https":          {RedirectStream, "https://llm.example.com/", "", false, true, false, false},
		// A standby doesn't pass on that a caller came over https.
		"to a public http":           {RedirectAll, "http://llm.example.com", "", false, false, false, false},
		"to a public HTTP":           {RedirectAll, "HTTP://llm.example.com", "", false, false, false, false},
		"to a network's http":        {RedirectAll, "http://10.0.0.5:8300", "", false, false, false, false},
		"to what looks like here":    {RedirectAll, "http://127.0.0.1.example.com", "", false, false, false, false},
		"to localhost over http":     {RedirectAll, "http://localhost:8300", "", false, true, true, true},
		"to ::1 over http":           {RedirectAll, "http://[::1]:8300/base", "", false, true, true, true},
		"from https to localhost":    {RedirectAll, "http://localhost:8300", "", true, false, false, false},
		"Vault's HTTPS to localhost": {RedirectAll, "http://localhost:8300", "HTTPS://vault.example.com", false, false, false, false},
	} {
		r.apply(t, func(s *Settings) {
			s.Redirect, s.PublicURL, s.VaultAddress = c.redirect, c.public, r.vault.server.URL
			if c.vault != "" {
				s.VaultAddress = c.vault
			}
		})
		for _, one := range []struct {
			i    *Inline
			want bool
		}{{inline(t, streamed), c.stream}, {whole, c.all}, {get, c.get}} {
			one.i.TLS = c.tls
			location := r.Redirect(one.i)
			if (location != "") != one.want {
				t.Errorf("%s: %s %v is sent to %q", name, one.i.Method, one.i.Fields["stream"], location)
			}
			if location != "" && !strings.HasPrefix(location, r.URL()+"/t/") {
				t.Errorf("%s: sent to %q", name, location)
			}
		}
	}
}

// Where nobody has said how apps reach it, a gateway on loopback or on all addresses
// is assumed to be at localhost, which for a caller elsewhere is another machine.
func TestRedirect_SendsNobodyToTheirOwnMachine(t *testing.T) {
	here := []string{"127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"}
	elsewhere := []string{"10.0.0.5", "192.0.2.7", "2001:db8::1", "fe80::1", "::ffff:10.0.0.5", "0.0.0.0", "", "127.0.0.1:4711", "@"}
	certificate := issue(t, 1, nil)
	r := newRig(t)
	for name, c := range map[string]struct {
		address, public string
		secure          bool
		elsewhere       bool // those are sent on too
	}{
		"loopback":                {"127.0.0.1:0", "", false, false},
		"loopback, TLS":           {"127.0.0.1:0", "", true, false},
		"all addresses":           {":0", "", false, false},
		"all addresses, TLS":      {":0", "", true, false},
		"all of IPv4, TLS":        {"0.0.0.0:0", "", true, false},
		"all, and said":           {":0", "https://llm.example.com", true, true},
		"loopback, and said":      {"127.0.0.1:0", "https://llm.example.com", false, true},
		"said that it's loopback": {"127.0.0.1:0", "http://localhost:8300", false, true},
	} {
		r.apply(t, func(s *Settings) {
			s.Listen.Address, s.PublicURL, s.Listen.PlainHTTP = c.address, c.public, true
			s.Listen.Certificate, s.Listen.Key = nil, nil
			if c.secure {
				certificate.in(&s.Listen)
			}
		})
		for remotes, want := range map[*[]string]bool{&here: true, &elsewhere: c.elsewhere} {
			for _, remote := range *remotes {
				i := inline(t, streamed)
				i.Remote = remote
				if location := r.Redirect(i); (location != "") != want {
					t.Errorf("%s: a caller from %q is sent to %q", name, remote, location)
				}
			}
		}
		if got := r.Place().OnlyHere(); got == c.elsewhere {
			t.Errorf("%s: %+v is good on this machine alone: %t", name, r.Place(), got)
		}
	}
}

// A gateway on one address of a network is reached there by everybody.
func TestPlace_AnAddressOfANetworkIsEverybodys(t *testing.T) {
	for _, c := range []struct {
		address string
		secure  bool
		want    Place
	}{
		{"10.0.0.5:8300", true, Place{URL: "https://10.0.0.5:8300", Assumed: true}},
		{"10.0.0.5:8300", false, Place{URL: "http://10.0.0.5:8300", Assumed: true, Plain: true}},
		{"[2001:db8::1]:8300", true, Place{URL: "https://[2001:db8::1]:8300", Assumed: true}},
		{"[::]:8300", true, Place{URL: "https://localhost:8300", Assumed: true, Loopback: true}},
		{"0.0.0.0:8300", false, Place{URL: "http://localhost:8300", Assumed: true, Plain: true, Loopback: true}},
		{"[::1]:8300", true, Place{URL: "https://[::1]:8300", Assumed: true, Loopback: true}},
		{"[fe80::1%eth0]:8300", true, Place{URL: "https://localhost:8300", Assumed: true, Loopback: true}},
	} {
		if got := assumedPlace(c.address, c.secure); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.address, got, c.want)
		}
	}
}

func TestRedirect_EndsWithADrainAndWithTheGateway(t *testing.T) {
	r := newRig(t)
	i := inline(t, streamed)
	r.Drain(soon)
	if location := r.Redirect(i); location != "" {
		t.Errorf("while it drains, it sends to %q", location)
	}
	if r.Undrain(); r.Redirect(i) == "" {
		t.Error("after the drain was cancelled, nothing is sent on")
	}
	if err := r.Apply(nil); err != nil || r.Redirect(i) != "" {
		t.Errorf("off, it sends on (%v)", err)
	}
}
