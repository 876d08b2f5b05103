// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"encoding/binary"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// from is a request that comes from an address.
func from(source string, req *http.Request) *http.Request {
	req.RemoteAddr = source
	return req
}

func TestGrant_IsForOneQuestionAlone(t *testing.T) {
	const base = `{"model":"m","stream":false,"n":1,"user":"1","stop":null,"tools":[{"a":1}]}`
	proxy := "/v1/" + testMount + "proxy/"
	same := map[string]func() *http.Request{
		"the same":        func() *http.Request { return chatRequest("tok", base) },
		"another port":    func() *http.Request { return from(testSource+":1", chatRequest("tok", base)) },
		"other headers":   func() *http.Request { return chatRequest("tok", base, "X-Request-Id", "1", "User-Agent", "x") },
		"token elsewhere": func() *http.Request { return chatRequest("", base, "X-Vault-Token", "tok") },
		"another nesting": func() *http.Request {
			return chatRequest("tok", `{"model":"m","stream":false,"n":1,"user":"1","stop":null,"tools":{"b":[2]}}`)
		},
		"spaces": func() *http.Request {
			return chatRequest("tok", `{ "model": "m" ,"stream":false,"n":1,"user":"1","stop":null,"tools":[] }`)
		},
		"mapped address": func() *http.Request { return from("[::ffff:"+testSource+"]:1", chatRequest("tok", base)) },
		"native path": func() *http.Request {
			return request("POST", "/v1/chat/completions", "tok", base, "x-portkey-virtual-key", "team-a")
		},
		"role in the model": func() *http.Request {
			return request("POST", "/v1/chat/completions", "tok", `{"model":"@team-a/m","stream":false,"n":1,"user":"1","stop":null,"tools":[{"a":1}]}`)
		},
	}
	other := map[string]func() *http.Request{
		"token":        func() *http.Request { return chatRequest("tok2", base) },
		"address":      func() *http.Request { return from("192.0.2.8:4711", chatRequest("tok", base)) },
		"IPv6 address": func() *http.Request { return from("[2001:db8::7]:4711", chatRequest("tok", base)) },
		"method":       func() *http.Request { return request("GET", chatPath, "tok", "") },
		"role":         func() *http.Request { return request("POST", proxy+"team-b/v1/chat/completions", "tok", base) },
		"path":         func() *http.Request { return request("POST", proxy+"team-a/v1/completions", "tok", base) },
		"model": func() *http.Request {
			return chatRequest("tok", `{"model":"m2","stream":false,"n":1,"user":"1","stop":null,"tools":[]}`)
		},
		"bool": func() *http.Request {
			return chatRequest("tok", `{"model":"m","stream":true,"n":1,"user":"1","stop":null,"tools":[]}`)
		},
		"number": func() *http.Request {
			return chatRequest("tok", `{"model":"m","stream":false,"n":2,"user":"1","stop":null,"tools":[]}`)
		},
		"string": func() *http.Request {
			return chatRequest("tok", `{"model":"m","stream":false,"n":1,"user":"2","stop":null,"tools":[]}`)
		},
		"null": func() *http.Request {
			return chatRequest("tok", `{"model":"m","stream":false,"n":1,"user":"1","stop":"x","tools":[]}`)
		},
		"type": func() *http.Request {
			return chatRequest("tok", `{"model":"m","stream":false,"n":1,"user":1,"stop":null,"tools":[]}`)
		},
		"one more": func() *http.Request {
			return chatRequest("tok", `{"model":"m","stream":false,"n":1,"user":"1","stop":null,"tools":[],"x":null}`)
		},
		"one less": func() *http.Request {
			return chatRequest("tok", `{"model":"m","stream":false,"n":1,"user":"1","stop":null}`)
		},
		"another field": func() *http.Request {
			return chatRequest("tok", `{"model":"m","stream":false,"n":1,"usr":"1","stop":null,"tools":[]}`)
		},
	}
	r := newRig(t)
	r.vault.token("tok", nil)
	r.vault.token("tok2", nil)
	for _, cases := range []struct {
		asks int
		of   map[string]func() *http.Request
	}{{0, same}, {1, other}} {
		for name, build := range cases.of {
			t.Run(name, func(t *testing.T) {
				r.apply(t) // which forgets the grants
				wantOK(t, r.send(chatRequest("tok", base)))
				before := r.vault.count()
				for range 2 { // the second time, it is granted
					wantOK(t, r.send(build()))
				}
				if n := r.vault.count() - before; n != cases.asks {
					t.Errorf("Vault was asked %d times more, want %d", n, cases.asks)
				}
			})
		}
	}
}

func TestGrant_OfAGetIsForItsQueryWithoutTheCredential(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	r.vault.token("tok2", nil)
	ask := func(query string) int {
		before := r.vault.count()
		wantOK(t, r.send(request("GET", "/v1/"+testMount+"proxy/team-a/v1/models"+query, "", "")))
		return r.vault.count() - before
	}
	for i, c := range []struct {
		query string
		asks  int
	}{{"?key=tok", 1}, {"?key=tok", 0}, {"?key=tok&limit=1", 1}, {"?limit=1&key=tok", 0}, {"?limit=2&key=tok", 1}, {"?key=tok2", 1}} {
		if n := ask(c.query); n != c.asks {
			t.Errorf("%d: %s: Vault was asked %d times, want %d", i, c.query, n, c.asks)
		}
	}
}

func TestGrant_WithModelOnlyShowsAndComparesNoOtherValue(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.ModelOnly = true })
	r.vault.token("tok", nil)
	for i, c := range []struct {
		body string
		asks int
	}{
		{`{"model":"m","n":1,"user":"1"}`, 1}, {`{"model":"m","n":2,"user":"2"}`, 0},
		{`{"model":"m2","n":1,"user":"1"}`, 1}, {`{"model":"m","n":1}`, 1},
	} {
		before := r.vault.count()
		wantOK(t, r.chat("tok", c.body))
		if n := r.vault.count() - before; n != c.asks {
			t.Errorf("%d: Vault was asked %d times, want %d", i, n, c.asks)
		}
	}
	for _, a := range r.vault.questions() {
		if a.fields["model"] == nil || a.fields["n"] != nil || a.fields["user"] != nil {
			t.Errorf("Vault was shown %s", a.body)
		}
	}
}

func TestGrant_EndsAtItsTTLCountedFromTheQuestion(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	r.vault.misbehave(func(http.ResponseWriter, *asked) bool {
		r.clock.advance(20 * time.Second) // Vault is slow
		return false
	}, nil)
	wantOK(t, r.chat("tok", hello))
	r.clock.advance(40*time.Second - 1)
	wantOK(t, r.chat("tok", hello))
	if n := r.vault.count(); n != 1 {
		t.Errorf("Vault was asked %d times within the TTL", n)
	}
	r.clock.advance(1)
	wantOK(t, r.chat("tok", hello))
	if n := r.vault.count(); n != 2 {
		t.Errorf("Vault was asked %d times after the TTL", n)
	}
}

func TestGrant_PolicyThatChangesTakesEffectWithinTheTTL(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	wantOK(t, r.chat("tok", hello))
	r.vault.token("tok", func(*asked) bool { return false })
	r.clock.advance(time.Minute)
	wantRefusal(t, r.chat("tok", hello), 403, apierror.CodePermissionDenied)
}

func TestGrants_AreBoundedAndKeepWhatIsNew(t *testing.T) {
	var g grants
	expires := clockStart.Add(time.Hour)
	var key digest
	for i := range uint64(maxGrants + maxGrants/10) {
		binary.BigEndian.PutUint64(key[:], i)
		g.put(&key, &grant{expires: expires})
		if len(g.byKey) > maxGrants {
			t.Fatalf("%d grants are kept, the most is %d", len(g.byKey), maxGrants)
		}
		if found, _ := g.get(&key, clockStart); i%1000 == 0 && found == nil {
			t.Fatalf("the grant made last isn't kept")
		}
	}
	if len(g.byKey) < maxGrants*9/10 {
		t.Errorf("only %d grants are left", len(g.byKey))
	}
}

func TestGrants_SweepForgetsWhatCountsNoMore(t *testing.T) {
	r := newRig(t)
	for i, token := range []string{"a", "b", "c"} {
		r.vault.token(token, nil)
		wantOK(t, r.chat(token, hello))
		if i == 0 {
			r.clock.advance(time.Minute + knownFor)
		}
	}
	r.vault.revoke("b")
	r.Sweep()
	if n := len(r.grants.byKey); n != 1 {
		t.Errorf("%d grants are kept, want that of c alone", n)
	}
	before := r.vault.count()
	wantOK(t, r.chat("c", hello))
	if r.vault.count() != before {
		t.Error("the grant of c was forgotten")
	}
}

func TestGrantKey_TellsPartsApartAndIsAnotherInEachProcess(t *testing.T) {
	r, other := newRig(t), newRig(t)
	q := func(token, method, path, query, shown string, source netip.Addr) *question {
		return &question{token: token, method: method, path: path, query: query, shown: []byte(shown), source: source}
	}
	a := netip.MustParseAddr(testSource)
	seen := map[digest]int{}
	for i, q := range []*question{
		q("t", "POST", "proxy/r/p", "", "{}", a), q("tP", "OST", "proxy/r/p", "", "{}", a), q("t", "POSTp", "roxy/r/p", "", "{}", a),
		q("t", "POST", "proxy/rp", "", "{}", a), q("t", "POST", "proxy/r/p{}", "", "", a), q("t", "POST", "proxy/r/p", "{}", "", a),
		q("", "tPOST", "proxy/r/p", "", "{}", a), q("t", "POST", "proxy/r/p", "", "{}", netip.Addr{}), q("t", "POST", "prompts/r/p", "", "{}", a),
	} {
		key := r.live.Load().key(q)
		if key == other.live.Load().key(q) {
			t.Error("two gateways have the same key for a question, so it can be guessed from memory")
		}
		if before, ok := seen[key]; ok {
			t.Errorf("questions %d and %d have the same key", before, i)
		}
		if seen[key] = i; r.live.Load().key(q) != key {
			t.Error("a question has two keys")
		}
	}
}
