// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/vaulttest"
)

// TestGateway_TicketLetsOneIdenticalRequestIn: what Vault's redirect is worth.
func TestGateway_TicketLetsOneIdenticalRequestIn(t *testing.T) {
	g := startGateway(t, gatewayOptions{settings: map[string]any{"redirect": "all"}})
	for _, role := range []string{"mine", "other"} {
		g.role(t, role, nil)
	}
	n := &ticketTests{gatewayRig: g, token: g.token(t, "mine", "other")}
	old := n.ticket(t, errand{}) // used when it is too late
	made := time.Now()
	t.Run("OnlyRequestsThatTheSettingNamesAreRedirected", n.setting)
	t.Run("IdenticalRequestIsLetInOnceAndNeedsNoToken", n.once)
	t.Run("GuessedIsRefused", n.guessed)
	t.Run("ForAnotherRequestIsRefusedAndSpent", n.changed)
	t.Run("UsedAtOnceCountsOnce", n.atOnce)
	t.Run("RefusedByVaultGivesNone", n.refused)
	t.Run("WrappedAnswersAreNotRedirected", n.wrapped)
	t.Run("NobodyIsSentToTheirOwnMachine", n.elsewhere)
	t.Run("NobodyIsSentToAPublicURLOfPlainHTTP", n.plain)
	t.Run("ExpiredIsRefused", func(t *testing.T) {
		time.Sleep(time.Until(made.Add(10*time.Second + 500*time.Millisecond)))
		n.wantUseless(t, old, errand{})
	})
}

type ticketTests struct {
	*gatewayRig
	token string
}

// ask sends an errand to Vault's address and returns its answer.
func (n *ticketTests) ask(t *testing.T, e errand) *vaulttest.Response {
	t.Helper()
	e = e.complete()
	return e.send(t, n.atVault(t, n.token), proxyPath(n.mount, "mine", e.path))
}

// ticket has Vault redirect an errand, and returns where to.
func (n *ticketTests) ticket(t *testing.T, e errand) string {
	t.Helper()
	var resp *vaulttest.Response
	unasked(t, n.up, func() { resp = n.ask(t, e) })
	to := resp.Header.Get("Location")
	if resp.Status != http.StatusTemporaryRedirect || !strings.HasPrefix(to, n.url+"/t/") {
		t.Fatalf("the answer is %s, to %q", resp, to)
	}
	return to
}

// present sends an errand to where a redirect leads, with no credential.
func (n *ticketTests) present(t *testing.T, to string, e errand) *vaulttest.Response {
	t.Helper()
	e = e.complete()
	c := n.atGateway(t, "")
	var body *strings.Reader
	if e.body != nil {
		body = strings.NewReader(string(jsonOf(t, e.body)))
	} else {
		body = strings.NewReader("")
	}
	req, err := http.NewRequestWithContext(t.Context(), e.method, to, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	return roundTrip(t, c, req)
}

// wantUseless fails the test unless an errand is refused with this ticket.
func (n *ticketTests) wantUseless(t *testing.T, to string, e errand) {
	t.Helper()
	unasked(t, n.up, func() {
		wantError(t, n.present(t, to, e), http.StatusForbidden, "ticket_invalid", "send the request to Vault again")
	})
}

func (n *ticketTests) setting(t *testing.T) {
	stream := errand{body: streamed(hello("up-ok"))}
	unstreamed := errand{body: with(hello("up-ok"), map[string]any{"stream": false})}
	text := errand{body: with(hello("up-ok"), map[string]any{"stream": "true"})}
	models := errand{method: http.MethodGet, path: "v1/models?limit=3"}
	for setting, redirected := range map[string][]errand{
		"all": {stream, {}, models}, "stream": {stream}, "off": nil,
	} {
		n.open(t, map[string]any{"redirect": setting})
		for _, e := range redirected {
			n.ticket(t, e)
		}
		for _, e := range map[string][]errand{"stream": {{}, unstreamed, text, models}, "off": {stream, {}, models}}[setting] {
			if resp := n.ask(t, e); resp.Status/100 == 3 {
				t.Errorf("with redirect=%s, %+v is redirected", setting, e)
			}
		}
	}
	n.open(t, map[string]any{"redirect": "all"})
}

func (n *ticketTests) once(t *testing.T) {
	for name, e := range map[string]errand{
		"Post":   {},
		"Stream": {body: streamed(hello("up-ok"))},
		"Get":    {method: http.MethodGet, path: "v1/models?limit=3&after=a%26b&order=x%20y"},
		"Nested": chatWith(map[string]any{"stop": []any{"a", 1.5, nil, true}, "metadata": map[string]any{"b": "1", "a": "é<>&\u2028"}, "seed": 12345678901}),
		// Vault and the plugin between them lose what float64 doesn't hold.
		"Numbers": chatWith(map[string]any{"seed": json.RawMessage("9007199254740993"), "a": json.RawMessage("1.0"), "b": json.RawMessage("1e2"),
			"c": json.RawMessage("-0"), "d": json.RawMessage("0.1000000000000000055511151231257827")}),
	} {
		t.Run(name, func(t *testing.T) {
			to := n.ticket(t, e)
			if resp := n.present(t, to, e); resp.Status != http.StatusOK {
				t.Fatalf("the answer is %s", resp)
			}
			if got, want := lastRequest(t, n.up).Path, "/"+strings.Split(e.complete().path, "?")[0]; got != want {
				t.Errorf("the provider was asked for %s, expected %s", got, want)
			}
			n.wantUseless(t, to, e)
		})
	}
}

func (n *ticketTests) guessed(t *testing.T) {
	to := n.ticket(t, errand{})
	ticket := strings.Split(strings.TrimPrefix(to, n.url+"/t/"), "/")[0]
	for _, guess := range []string{strings.Repeat("A", len(ticket)), ticket[1:] + ticket[:1], ticket[:len(ticket)-1], ticket + "A", strings.ToLower(ticket)} {
		n.wantUseless(t, strings.Replace(to, ticket, guess, 1), errand{})
	}
	if resp := n.present(t, to, errand{}); resp.Status != http.StatusOK {
		t.Errorf("guesses spoil the ticket: %s", resp)
	}
}

// changed: the ticket comes with another request than Vault has judged.
func (n *ticketTests) changed(t *testing.T) {
	replaced := func(from, to string) func(string) string {
		return func(location string) string { return strings.Replace(location, from, to, 1) }
	}
	same := func(location string) string { return location }
	models := errand{method: http.MethodGet, path: "v1/models?limit=3"}
	for name, row := range map[string]struct {
		judged errand
		to     func(location string) string
		sent   errand
	}{
		"Model":        {errand{}, same, errand{body: hello("up-echo")}},
		"FieldMore":    {errand{}, same, chatWith(map[string]any{"user": "u"})},
		"FieldLess":    {chatWith(map[string]any{"user": "u"}), same, errand{}},
		"FieldNull":    {errand{}, same, chatWith(map[string]any{"user": nil})},
		"Number":       {chatWith(map[string]any{"n": 1}), same, chatWith(map[string]any{"n": 2})},
		"NumberAsText": {chatWith(map[string]any{"n": 1}), same, chatWith(map[string]any{"n": "1"})},
		"Nested":       {chatWith(map[string]any{"stop": []any{"a"}}), same, chatWith(map[string]any{"stop": []any{"b"}})},
		"Order":        {chatWith(map[string]any{"stop": []any{"a", "b"}}), same, chatWith(map[string]any{"stop": []any{"b", "a"}})},
		"NoBody":       {errand{}, same, errand{body: map[string]any{}}},
		"Role":         {errand{}, replaced("/mine/", "/other/"), errand{}},
		"Path":         {errand{}, replaced("chat/completions", "completions"), errand{}},
		"Method":       {errand{}, same, errand{method: http.MethodGet}},
		"Delete":       {models, same, errand{method: http.MethodDelete}},
		"Query":        {models, replaced("limit=3", "limit=4"), models},
		"QueryMore":    {models, replaced("limit=3", "limit=3&after=a"), models},
		"QueryLess":    {models, replaced("?limit=3", ""), models},
		"QueryOfAPost": {errand{}, func(location string) string { return location + "?a=b" }, errand{}},
	} {
		t.Run(name, func(t *testing.T) {
			to := n.ticket(t, row.judged)
			n.wantUseless(t, row.to(to), row.sent)
			n.wantUseless(t, to, row.judged) // it was a trial
		})
	}
}

// atOnce: of 32 who bring the same ticket at the same time, one is let in.
func (n *ticketTests) atOnce(t *testing.T) {
	for range rounds(5, 100) {
		to := n.ticket(t, errand{})
		before := n.up.Received()
		statuses := map[int]int{}
		var mu sync.Mutex
		var all sync.WaitGroup
		for range 32 {
			all.Go(func() {
				resp, err := http.Post(to, "application/json", strings.NewReader(string(jsonOf(t, hello("up-ok")))))
				if err != nil {
					t.Error(err)
					return
				}
				_ = resp.Body.Close()
				mu.Lock()
				defer mu.Unlock()
				statuses[resp.StatusCode]++
			})
		}
		all.Wait()
		if statuses[200] != 1 || statuses[403] != 31 || n.up.Received()-before != 1 {
			t.Fatalf("32 that brought one ticket got %v, and the provider received %d requests", statuses, n.up.Received()-before)
		}
	}
}

func (n *ticketTests) refused(t *testing.T) {
	nobody := n.atVault(t, n.vault.Token(t, "no-such-policy"))
	resp := post(t, nobody, n.chatOf("mine"), streamed(hello("up-ok")))
	wantVaults403(t, resp)
	if to := resp.Header.Get("Location"); to != "" {
		t.Errorf("a refusal leads to %s", to)
	}
}

func (n *ticketTests) wrapped(t *testing.T) {
	c := n.atVault(t, n.token)
	e := errand{body: hello("up-ok"), header: http.Header{"X-Vault-Wrap-Ttl": {"60s"}}}.complete()
	before := n.up.Received()
	resp := e.send(t, c, n.chatOf("mine"))
	if n.up.Received() != before+1 {
		t.Error("the request isn't answered where it is")
	}
	if wrap, _ := resp.JSON()["wrap_info"].(map[string]any); resp.Status != http.StatusOK || fmt.Sprint(wrap["token"]) == "" {
		t.Errorf("a wrapped answer is %s", resp)
	}
}

// askFrom sends an errand to the listener of Vault's that believes where it comes from,
// and returns where it is sent on to; empty if it is answered.
func (n *ticketTests) askFrom(t *testing.T, source string) (to string) {
	t.Helper()
	e := errand{body: hello("up-ok"), header: http.Header{"X-Forwarded-For": {source}}}.complete()
	resp := e.send(t, from(t, "127.0.0.1", n.believing, n.token), n.chatOf("mine"))
	if to = resp.Header.Get("Location"); to == "" {
		wantStatus(t, resp, http.StatusOK)
	}
	return to
}

// warnings are those that a write of the gateway's settings answers with.
func (n *ticketTests) warnings(t *testing.T, settings map[string]any) string {
	t.Helper()
	return fmt.Sprint(n.root.Write(t, n.mount+"/config/gateway", settings).JSON()["warnings"])
}

// elsewhere: the gateway is on loopback, and nobody has said how apps reach it.
func (n *ticketTests) elsewhere(t *testing.T) {
	for source, sent := range map[string]bool{"127.0.0.1": true, "127.0.0.2": true, "10.1.2.3": false, "192.0.2.9": false, "2001:db8::1": false} {
		to := n.askFrom(t, source)
		if (to != "") != sent || sent && !strings.HasPrefix(to, n.url+"/t/") {
			t.Errorf("a caller from %s is sent to %q", source, to)
		}
	}
	said := n.warnings(t, map[string]any{"public_url": ""})
	if !strings.Contains(said, "public_url is empty, and "+n.url+" leads to the gateway from Vault's own machine alone") {
		t.Errorf("the write warns of %s", said)
	}
	n.vault.Policy(t, "leases", fmt.Sprintf("path %q { capabilities = [\"read\"] }", n.mount+"/creds/mine"))
	lease := n.atVault(t, n.vault.Token(t, "leases")).Read(t, n.mount+"/creds/mine")
	if said := fmt.Sprint(lease.JSON()["warnings"]); lease.Data()["base_url"] != n.url+"/v1" || !strings.Contains(said, "public_url=") {
		t.Errorf("a leased key's base_url is %v, with the warnings %s", lease.Data()["base_url"], said)
	}
	if said := n.warnings(t, map[string]any{"public_url": "https://llm.example.com"}); strings.Contains(said, "public_url") {
		t.Errorf("the write warns of %s", said)
	}
	for _, source := range []string{"127.0.0.1", "10.1.2.3"} {
		if to := n.askFrom(t, source); !strings.HasPrefix(to, "https://llm.example.com/t/") {
			t.Errorf("a caller from %s is sent to %q", source, to)
		}
	}
	n.open(t, map[string]any{"public_url": ""})
}

// plain: a caller over https may have come to a standby, which doesn't say so.
func (n *ticketTests) plain(t *testing.T) {
	if said := n.warnings(t, map[string]any{"public_url": "http://llm.example.com"}); !strings.Contains(said, "no caller of Vault is sent to a gateway on http") {
		t.Errorf("the write warns of %s", said)
	}
	for _, source := range []string{"127.0.0.1", "10.1.2.3"} {
		if to := n.askFrom(t, source); to != "" {
			t.Errorf("a caller from %s is sent to %q", source, to)
		}
	}
	n.open(t, map[string]any{"public_url": ""})
}
