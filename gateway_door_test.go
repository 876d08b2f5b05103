// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/apierror"
	"vault-plugin-secrets-portkey/internal/gateway"
)

// settings of a gateway that listens on a free port of loopback; its Vault is never
// asked.
func gatewayFieldsFor(more map[string]any) map[string]any {
	all := map[string]any{"address": "127.0.0.1:0", "vault_address": "http://127.0.0.1:1"}
	for name, value := range more {
		all[name] = value
	}
	return all
}

func (m *mount) statusOfGateway() map[string]any {
	m.t.Helper()
	status, _ := m.read("status")["gateway"].(map[string]any)
	return status
}

// redirectedTo makes a streamed request as Vault passes it on, and returns where it
// leads; empty if it was answered.
func (m *mount) redirectedTo(from *logical.Connection, wrap time.Duration) string {
	m.t.Helper()
	body := chatBody("m")
	body["stream"] = true
	req := &logical.Request{
		Operation: logical.UpdateOperation, Path: "proxy/r/v1/chat/completions", Data: overJSON(m.t, body),
		Storage: m.storage, MountPoint: "portkey/", Connection: from,
	}
	if wrap > 0 {
		req.WrapInfo = &logical.RequestWrapInfo{TTL: wrap}
	}
	resp, err := m.HandleRequest(m.t.Context(), req)
	if err != nil {
		m.t.Fatal(err)
	}
	if resp.Redirect == "" {
		if a, err := rawAnswer(resp); err != nil || a.Status != http.StatusOK {
			m.t.Fatalf("neither sent on nor answered: %v %v", resp, err)
		}
	}
	return resp.Redirect
}

func TestDoor_SendsCallersOnOnlyWhereItIsSafeAndLeadsSomewhere(t *testing.T) {
	certificate, key := selfSigned(t, 1, time.Now().Add(time.Hour))
	m := newMount(t, Options{Transport: &upstream{}})
	m.write("keys/k", openaiKey(secretA))
	m.write("roles/r", map[string]any{"key": "k"})
	secure := map[string]any{"address": ":0", "tls_certificate": certificate, "tls_key": key}
	plain := func(publicURL string) map[string]any { return map[string]any{"public_url": publicURL} }
	over, here := &tls.ConnectionState{}, "127.0.0.1"
	for name, c := range map[string]struct {
		settings  map[string]any
		remote    string
		connState *tls.ConnectionState // nil: over http, or by a standby, or by a proxy
		want      string               // how the location begins
	}{
		"to https":                          {plain("https://llm.example.com"), "10.0.0.9", nil, "https://llm.example.com/t/"},
		"from https to https":               {plain("https://llm.example.com"), "10.0.0.9", over, "https://llm.example.com/t/"},
		"from https to http":                {plain("http://llm.example.com"), "10.0.0.9", over, ""},
		"from https by a standby to http":   {plain("http://llm.example.com"), "10.0.0.9", nil, ""},
		"from here to http":                 {plain("http://llm.example.com"), here, nil, ""},
		"from https to http on loopback":    {plain("http://localhost:8300"), here, over, ""},
		"from http to http on loopback":     {plain("http://localhost:8300"), here, nil, "http://localhost:8300/t/"},
		"elsewhere, loopback that was said": {plain("http://localhost:8300"), "10.0.0.9", nil, "http://localhost:8300/t/"},
		"here, loopback":                    {nil, here, nil, "http://127.0.0.1:"},
		"here, loopback, over https":        {nil, here, over, ""},
		"here, loopback by IPv6":            {nil, "::1", nil, "http://127.0.0.1:"},
		"elsewhere, loopback":               {nil, "10.0.0.9", nil, ""},
		"here, all addresses":               {secure, here, over, "https://localhost:"},
		"elsewhere, all addresses":          {secure, "10.0.0.9", over, ""},
		"nobody knows where":                {secure, "", nil, ""},
	} {
		m.delete(gatewayName)
		m.write(gatewayName, gatewayFieldsFor(c.settings))
		got := m.redirectedTo(&logical.Connection{RemoteAddr: c.remote, ConnState: c.connState}, 0)
		if (got == "") != (c.want == "") || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: sent to %q, want %q", name, got, c.want)
		}
	}
	m.write(gatewayName, map[string]any{"public_url": "https://llm.example.com"})
	if got := m.redirectedTo(nil, 0); got == "" {
		t.Error("a request without a connection isn't sent to https")
	}
	if got := m.redirectedTo(&logical.Connection{RemoteAddr: here}, time.Minute); got != "" {
		t.Errorf("a wrapped answer would hide %q", got)
	}
	m.write(gatewayName, map[string]any{"redirect": "off"})
	if got := m.redirectedTo(&logical.Connection{RemoteAddr: here}, 0); got != "" {
		t.Errorf("with redirect=off, sent to %q", got)
	}
}

func TestDoor_ADamagedEntryIsShownUntilItIsMended(t *testing.T) {
	storage := &faultyStorage{Storage: &logical.InmemStorage{}}
	for name, entry := range map[string]string{
		"no JSON":         "{",
		"no such address": `{"address":"127.0.0.1:0","vault_address":"nowhere"}`,
	} {
		if err := storage.Put(t.Context(), &logical.StorageEntry{Key: gatewayPrefix + gatewayEntry, Value: []byte(entry)}); err != nil {
			t.Fatal(err)
		}
		m := newMountOn(t, Options{}, storage)
		problem := func() string { p, _ := m.statusOfGateway()["problem"].(string); return p }
		eventually(t, "the problem of "+name, func() bool { return problem() != "" })
		for range 3 {
			if m.startGateway(t.Context(), storage) {
				t.Errorf("%s: started", name)
			}
		}
		if n := strings.Count(m.log.String(), "the gateway can't be started"); n != 1 {
			t.Errorf("%s: the log says so %d times", name, n)
		}
		m.delete(gatewayName)
		if problem() != "" {
			t.Errorf("%s: it is gone, and status says %q", name, problem())
		}
		m.write(gatewayName, gatewayFieldsFor(nil))
		if s := m.statusOfGateway(); s["on"] != true || s["url"] == "" || s["problem"] != "" {
			t.Errorf("%s: it is on, and status says %v", name, s)
		}
		m.delete(gatewayName)
	}
}

// What went wrong before says nothing of what is settled now.
func TestDoor_AProblemEndsWithWhatSettlesIt(t *testing.T) {
	for name, settle := range map[string]func(*mount){
		"nothing is stored": func(m *mount) { m.startGateway(t.Context(), m.storage) },
		"it is on": func(m *mount) {
			if err := m.gateway.Apply((&gatewaySettings{Address: "127.0.0.1:0", VaultAddress: "http://127.0.0.1:1"}).runtime()); err != nil {
				t.Fatal(err)
			}
			m.startGateway(t.Context(), m.storage)
		},
		"it is written": func(m *mount) { m.write(gatewayName, gatewayFieldsFor(nil)) },
		"it is deleted": func(m *mount) { m.delete(gatewayName) },
	} {
		m := newMount(t, Options{})
		eventually(t, "its start", func() bool { return m.door.storage.Load() != nil })
		m.startGateway(t.Context(), m.storage) // so that the start's own is over
		m.gatewayProblem.Store(new("an old problem"))
		if got := m.statusOfGateway()["problem"]; got != "an old problem" {
			t.Fatalf("%s: status says %q: the test proves nothing", name, got)
		}
		settle(m)
		if got := m.statusOfGateway()["problem"]; got != "" {
			t.Errorf("%s: status says %q", name, got)
		}
	}
}

func TestDoor_AnUnreadableEntryIsTriedAgain(t *testing.T) {
	storage := &faultyStorage{Storage: &logical.InmemStorage{}}
	newMountOn(t, Options{}, storage).write(gatewayName, gatewayFieldsFor(nil))
	m := newStandby(t, Options{}, 0, storage)
	storage.failReads(errFault)
	if m.startGateway(t.Context(), storage) {
		t.Error("started with no settings")
	}
	if p := m.gatewayStatus()["problem"].(string); !strings.Contains(p, errFault.Error()) {
		t.Errorf("status says %q", p)
	}
	storage.disarm()
	if !m.startGateway(t.Context(), storage) || m.gatewayStatus()["on"] != true || m.gatewayStatus()["problem"] != "" {
		t.Errorf("storage works again, and status says %v", m.gatewayStatus())
	}
	eventually(t, "its listening", func() bool { return m.gateway.URL() != "" })
}

// The next process may get its first request by the gateway, and must know the path
// in Vault by then.
func TestDoor_TheMountsPathIsKeptForTheNextProcess(t *testing.T) {
	storage := &faultyStorage{Storage: &logical.InmemStorage{}}
	first := newMountOn(t, Options{}, storage)
	keep := first.door.open(t.Context(), storage)
	first.door.learn("team/portkey/")
	first.door.learn("")
	storage.arm(1, false)
	keep(t.Context())
	if !storage.disarm() || !strings.Contains(first.log.String(), "the path of the mount could not be written") {
		t.Fatalf("nothing was written, or nobody was told: %s", first.log)
	}
	keep(t.Context()) // again
	var stored string
	if err := json.Unmarshal([]byte(entries(t, storage)[mountPathEntry]), &stored); err != nil || stored != "team/portkey/" {
		t.Fatalf("stored is %q (%v)", stored, err)
	}
	storage.arm(1, false)
	if keep(t.Context()); storage.disarm() {
		t.Error("what hasn't changed is written again")
	}

	second := newStandby(t, Options{}, 0, storage)
	second.door.open(t.Context(), storage)
	if got := second.door.Path(); got != "team/portkey/" {
		t.Errorf("the next process takes the path for %q", got)
	}
	moved := newStandby(t, Options{}, 0, storage)
	moved.door.learn("moved/")
	moved.door.open(t.Context(), storage)
	if got := moved.door.Path(); got != "moved/" {
		t.Errorf("after a move, the path is taken for %q", got)
	}
}

// A nonce never reaches the provider, whoever made it up.
func TestDoor_ANonceThatTheGatewayDidNotMakeIsRefused(t *testing.T) {
	up := &upstream{}
	m := newMount(t, Options{Transport: up})
	m.write("keys/k", openaiKey(secretA))
	m.write("roles/r", map[string]any{"key": "k"})
	m.write(gatewayName, gatewayFieldsFor(nil))
	for _, nonce := range []any{"", "guess", 7, nil, []any{"a"}, true} {
		for _, op := range []logical.Operation{logical.UpdateOperation, logical.ReadOperation, logical.DeleteOperation} {
			body := chatBody("m")
			body[gateway.NonceField] = nonce
			answer, err := m.proxyRequest(op, "", "r/v1/chat/completions", body)
			if err != nil {
				t.Fatal(err)
			}
			answer.want(t, http.StatusForbidden, apierror.CodeNonceInvalid)
		}
	}
	if n := len(up.requests()); n != 0 {
		t.Errorf("%d requests reached the provider", n)
	}
}

// A sentinel's end is told to the gateway, and never an error: Vault would try for
// ever.
func TestDoor_ASentinelsEndAlwaysSucceeds(t *testing.T) {
	m := newMount(t, Options{})
	for _, internal := range []map[string]any{nil, {sentinelToken: "salted"}, {sentinelToken: 7}} {
		secret := &logical.Secret{InternalData: map[string]any{"secret_type": sentinelType}}
		for name, value := range internal {
			secret.InternalData[name] = value
		}
		resp, err := m.HandleRequest(t.Context(), &logical.Request{Operation: logical.RevokeOperation, Path: "proxy/r/v1/models", Secret: secret, Storage: m.storage})
		if err != nil || resp.IsError() {
			t.Errorf("%v: %v %v", internal, resp, err)
		}
	}
}
