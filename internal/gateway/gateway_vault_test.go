// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// fakeVault judges as Vault does: it knows tokens and what they may do, passes what
// it allows on to the plugin, makes the lease that the plugin wants, and answers.
type fakeVault struct {
	server  *httptest.Server
	gateway *Gateway

	mu        sync.Mutex
	tokens    map[string]*fakeToken
	asked     []asked
	newcomers bool           // tokens that are made have no lease yet
	leases    map[string]int // made, by the salted token
	open      map[string]bool
	// forgets says that X-Forwarded-For isn't believed.
	forgets bool
	// before and after stand around the plugin's testimony. If one says true, it
	// has answered in Vault's place.
	before, after func(w http.ResponseWriter, a *asked) bool
}

// fakeToken is a valid token: allow says what it may do, nil for all.
type fakeToken struct {
	caller Caller
	allow  func(*asked) bool
}

// asked is a question that reached Vault.
type asked struct {
	method, token string
	// below is the path below the mount; role and path are of one on a virtual key.
	below, role, path string
	// fields are the body, or the query of a GET or DELETE, with the nonce.
	fields map[string]any
	body   string
	header http.Header
	nonce  string
	// lease says that the plugin wanted one.
	lease bool
}

func newFakeVault(t testing.TB) *fakeVault {
	v := &fakeVault{tokens: map[string]*fakeToken{}, leases: map[string]int{}, open: map[string]bool{}}
	v.server = httptest.NewServer(v)
	t.Cleanup(v.server.Close)
	return v
}

// token makes a valid token. Its salted form is its name behind a word. Unless it is
// a newcomer, a lease watches over it already, so that its first grant is kept.
func (v *fakeVault) token(name string, allow func(*asked) bool) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if g := v.gateway; g != nil && !v.newcomers {
		s, _ := g.sessions.join("salted-"+name, true, g.sessions.count(), g.now())
		g.sessions.watch(s)
		v.open["salted-"+name] = true
	}
	v.tokens[name] = &fakeToken{allow: allow, caller: Caller{
		Entity: "entity-" + name, DisplayName: "display-" + name, Accessor: "accessor-" + name, Token: "salted-" + name,
	}}
	return name
}

// revoke ends a token, and its lease as Vault does, by a call of the plugin.
func (v *fakeVault) revoke(name string) {
	v.mu.Lock()
	delete(v.tokens, name)
	leased := v.open["salted-"+name]
	delete(v.open, "salted-"+name)
	v.mu.Unlock()
	if leased {
		v.gateway.Revoke("salted-" + name)
	}
}

// expire ends a token without the end of its lease, which revoke brings.
func (v *fakeVault) expire(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.tokens, name)
}

// misbehave sets what stands around the testimony.
func (v *fakeVault) misbehave(before, after func(http.ResponseWriter, *asked) bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.before, v.after = before, after
}

// count is how many questions came.
func (v *fakeVault) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.asked)
}

func (v *fakeVault) questions() []asked {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.asked)
}

// leasesOf is how many leases were made for a token.
func (v *fakeVault) leasesOf(name string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.leases["salted-"+name]
}

// ServeHTTP implements http.Handler.
func (v *fakeVault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a, ok := readAsked(r)
	if !ok {
		vaultSays(w, http.StatusBadRequest, "error parsing JSON")
		return
	}
	v.mu.Lock()
	v.asked = append(v.asked, *a)
	token := v.tokens[a.token]
	before, after := v.before, v.after
	remote := "127.0.0.1" // what Vault takes for the caller's address
	if !v.forgets && a.header.Get("X-Forwarded-For") != "" {
		remote = a.header.Get("X-Forwarded-For")
	}
	v.mu.Unlock()
	if before != nil && before(w, a) {
		return
	}
	if token == nil || token.allow != nil && !token.allow(a) {
		vaultSays(w, http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n")
		return
	}
	lease, err := v.gateway.Testify(a.testimony(token.caller, remote))
	if err != nil {
		err.Write(w)
		return
	}
	a.lease = lease
	if after != nil && after(w, a) {
		return
	}
	if lease && !v.makeLease(a.token, token.caller.Token) {
		vaultSays(w, http.StatusBadRequest, "failed to register lease")
		return
	}
	_, _ = io.WriteString(w, `{"data":{"granted":true}}`)
}

// makeLease fails for a token that is no more, as Vault's expiration manager does.
func (v *fakeVault) makeLease(token, salted string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.tokens[token] == nil {
		return false
	}
	v.leases[salted]++
	v.open[salted] = true
	return true
}

// readAsked reads a question as Vault and its plugin transport do: numbers are read
// as json.Number, and then once more, as float64.
func readAsked(r *http.Request) (*asked, bool) {
	below, found := strings.CutPrefix(r.URL.Path, "/v1/"+testMount)
	if !found {
		return nil, false
	}
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, false
	}
	a := &asked{method: r.Method, token: r.Header.Get("X-Vault-Token"), body: string(text), header: r.Header.Clone()}
	a.below = below
	if rest, found := strings.CutPrefix(below, "proxy/"); found {
		a.role, a.path, _ = strings.Cut(rest, "/")
	}
	if r.Method == http.MethodPost {
		a.fields, err = vaultDecodes(text)
	} else {
		a.fields, err = vaultDecodesQuery(r.URL.Query())
	}
	a.nonce, _ = a.fields[NonceField].(string)
	return a, err == nil
}

func vaultDecodes(text []byte) (map[string]any, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var exact map[string]any
	if err := decoder.Decode(&exact); err != nil {
		return nil, err
	}
	again, err := json.Marshal(exact)
	if err != nil {
		return nil, err
	}
	var fields map[string]any
	return fields, json.Unmarshal(again, &fields)
}

// vaultDecodesQuery is how Vault gives a query string to a plugin: one value is a
// string, several are a list.
func vaultDecodesQuery(query url.Values) (map[string]any, error) {
	fields := map[string]any{}
	for name, values := range query {
		if fields[name] = values[0]; len(values) > 1 {
			list := make([]any, len(values))
			for i, v := range values {
				list[i] = v
			}
			fields[name] = list
		}
	}
	return fields, nil
}

// testimony is what the plugin's handler makes of a question.
func (a *asked) testimony(caller Caller, remote string) *Testimony {
	t := &Testimony{Nonce: a.nonce, Method: a.method, Path: a.below, Remote: remote, Caller: caller}
	fields := maps.Clone(a.fields)
	delete(fields, NonceField)
	if a.method == http.MethodPost {
		t.Fields = fields
		return t
	}
	query := url.Values{}
	for name, value := range fields {
		switch v := value.(type) {
		case []any:
			for _, item := range v {
				query.Add(name, item.(string))
			}
		case string:
			query.Add(name, v)
		}
	}
	t.Query = query.Encode()
	return t
}

// vaultSays answers as Vault does when it doesn't do what was asked.
func vaultSays(w http.ResponseWriter, status int, what string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []string{what}})
}

// cutOff breaks the connection, as a Vault that is killed does.
func cutOff(w http.ResponseWriter, _ *asked) bool {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err) // httptest.Server can
	}
	_ = conn.Close()
	return true
}
