// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// selfSigned returns a certificate of 127.0.0.1 with this serial number, and its key.
func selfSigned(t *testing.T, serial int64, until time.Time) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: until.Add(-48 * time.Hour), NotAfter: until,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return text("CERTIFICATE", der), text("PRIVATE KEY", secret)
}

// served is the serial number of the certificate that is served at an address.
func served(t *testing.T, address string) int64 {
	t.Helper()
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Minute}, "tcp", address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

func TestGateway_DefaultsAreShownAndRestored(t *testing.T) {
	m := newMount(t, Options{})
	if got := m.read(gatewayName); got != nil {
		t.Errorf("off, it is shown as %v", got)
	}
	defaults := map[string]any{
		"address": "127.0.0.1:0", "vault_address": "http://127.0.0.1:1", "public_url": "", "tls_certificate": "", "plain_http": false,
		"vault_ca": "", "vault_namespace": "", "grant_ttl": 60, "grant_fields": "all", "redirect": "stream", "caller_address": "forwarded",
		"allowed_origins": []string{}, "max_body_bytes": 64 << 20, "max_connections": 10_000, "max_streams": 10_000,
		"upstream_timeout": 600, "idle_timeout": 300,
	}
	m.write(gatewayName, gatewayFieldsFor(nil))
	if got := m.read(gatewayName); !reflect.DeepEqual(got, overJSON(t, defaults)) {
		t.Errorf("the defaults are %v", got)
	}
	own := map[string]any{
		"public_url": "https://llm.example.com", "plain_http": true, "vault_namespace": "team/", "grant_ttl": "90s", "grant_fields": "model",
		"redirect": "all", "caller_address": "ignore", "allowed_origins": "https://a.example.com, https://b.example.com",
		"max_body_bytes": 1024, "max_connections": 1, "max_streams": 1_000_000, "upstream_timeout": "24h", "idle_timeout": "1s",
	}
	shown := map[string]any{
		"grant_ttl": 90, "allowed_origins": []string{"https://a.example.com", "https://b.example.com"}, "upstream_timeout": 86_400, "idle_timeout": 1,
	}
	m.write(gatewayName, own)
	for name, value := range own {
		if _, other := shown[name]; !other {
			shown[name] = value
		}
	}
	wantFields(t, m.read(gatewayName), shown)
	m.write(gatewayName, map[string]any{"grant_ttl": 0}) // means: ask every time
	m.write(gatewayName, map[string]any{"redirect": "stream"})
	shown["grant_ttl"], shown["redirect"] = 0, "stream"
	wantFields(t, m.read(gatewayName), shown)
	m.write(gatewayName, map[string]any{
		"public_url": "", "plain_http": false, "vault_namespace": "", "grant_ttl": "60s", "grant_fields": "", "redirect": "", "caller_address": "",
		"allowed_origins": "", "max_body_bytes": 0, "max_connections": 0, "max_streams": 0, "upstream_timeout": 0, "idle_timeout": 0,
	})
	wantFields(t, m.read(gatewayName), defaults)
}

func TestGateway_BadInputIsRefusedAndChangesNothing(t *testing.T) {
	const huge = "99999999999999999999"
	m := newMount(t, Options{})
	m.refused(logical.UpdateOperation, gatewayName, map[string]any{"vault_address": "http://127.0.0.1:1"}, "address is missing")
	m.refused(logical.UpdateOperation, gatewayName, map[string]any{"address": "127.0.0.1:0"}, "vault_address is missing")
	m.refused(logical.UpdateOperation, gatewayName, map[string]any{}, "address is missing")
	m.write(gatewayName, gatewayFieldsFor(map[string]any{"max_streams": 7}))
	before, address := m.read(gatewayName), m.gateway.URL()
	for _, c := range []struct {
		field string
		value any
		want  string
	}{
		{"address", "", "address is missing"},
		{"address", "127.0.0.1", "address: this isn't host:port"},
		{"address", "127.0.0.1:65536", "address: the port"},
		{"address", "127.0.0.1:-1", "address: the port"},
		{"address", "127.0.0.1:８３００", "address: the port"},
		{"address", "zürich:8300", "address: the host"},
		{"address", strings.Repeat("x", 100_000) + ":1", "address: the host"},
		{"address", ":0", "plain_http: other machines can reach"},
		{"address", []any{"127.0.0.1:0"}, "address must be text"},
		{"public_url", "llm.example.com", "public_url: write a URL"},
		{"public_url", "https://zürich.example.com", "public_url: holds a space or a character that isn't ASCII"},
		{"public_url", "https://user:word@llm.example.com", "public_url: write a URL"},
		{"vault_address", "", "vault_address is missing"},
		{"vault_address", "127.0.0.1:8200", "vault_address: write a URL"},
		{"vault_ca", "x", "vault_ca: this holds no certificate"},
		{"vault_namespace", "a\r\nb", "vault_namespace: holds a control character"},
		{"tls_certificate", "x", "tls_key: missing"},
		{"tls_key", "x", "tls_certificate: missing"},
		{"tls_key", 7, "tls_key must be text"},
		{"plain_http", "perhaps", "plain_http must be true or false"},
		{"grant_ttl", -1, "grant_ttl"},
		{"grant_ttl", "-1s", "grant_ttl"},
		{"grant_ttl", "3601s", "between 0 and 3600"},
		{"grant_ttl", "300ms", "grant_ttl is shorter than a second"},
		{"grant_ttl", huge, "grant_ttl"},
		{"grant_ttl", huge + "h", "grant_ttl"},
		{"grant_ttl", "eine Minute", "grant_ttl must be a duration"},
		{"grant_fields", "Model", "grant_fields: this is none of its values; write one of [all model]"},
		{"redirect", "streams", "redirect: this is none of its values; write one of [stream all off]"},
		{"redirect", "off\u00a0", ""}, // trimmed, as blanks are
		{"caller_address", strings.Repeat("ö", 10_000), "caller_address: this is none of its values"},
		{"allowed_origins", "app.example.com", "allowed_origins:"},
		{"max_body_bytes", 1023, "between 1024 and 536870912"},
		{"max_body_bytes", 536870913, "between 1024 and 536870912"},
		{"max_body_bytes", -1, "between 1024 and"},
		{"max_body_bytes", 1.5, "max_body_bytes must be a whole number"},
		{"max_body_bytes", 1e300, "max_body_bytes"},
		{"max_body_bytes", huge, "max_body_bytes"},
		{"max_connections", -1, "between 1 and 1000000"},
		{"max_connections", 1_000_001, "between 1 and 1000000"},
		{"max_connections", "viele", "max_connections must be a whole number"},
		{"max_streams", -1, "between 1 and 1000000"},
		{"max_streams", 1e18, "between 1 and 1000000"},
		{"max_streams", 1e19, "max_streams"},
		{"upstream_timeout", "25h", "between 1 and 86400"},
		{"upstream_timeout", -5, "upstream_timeout"},
		{"upstream_timeout", "1ms", "upstream_timeout is shorter than a second"},
		{"idle_timeout", "86401s", "between 1 and 86400"},
		{"idle_timeout", "1µs", "idle_timeout is shorter than a second"},
		{"idle_timeout", huge, "idle_timeout"},
		{"max_stream", 7, `did you mean "max_streams"`},
		{"pub1ic_url", "https://llm.example.com", `did you mean "public_url"`},
		{"größe", 7, "unknown field"},
		{"tls_key", nil, "tls_key is null"},
	} {
		if c.want == "" {
			m.write(gatewayName, map[string]any{c.field: c.value})
			m.write(gatewayName, map[string]any{c.field: before[c.field]})
			continue
		}
		m.refused(logical.UpdateOperation, gatewayName, map[string]any{c.field: c.value}, c.want)
	}
	if now := m.read(gatewayName); !reflect.DeepEqual(now, before) {
		t.Errorf("now it is %v\nwas %v", now, before)
	}
	if now := m.gateway.URL(); now != address {
		t.Errorf("it has moved from %s to %s", address, now)
	}
}

// TestGateway_TheKeyIsNeverReadable: not where it belongs, and not where it was put by
// mistake.
func TestGateway_TheKeyIsNeverReadable(t *testing.T) {
	m := newMount(t, Options{})
	certificate, key := selfSigned(t, 1, time.Now().Add(time.Hour))
	mark := strings.Split(key, "\n")[1]
	unseen := func(what string, resp *logical.Response, err error) {
		t.Helper()
		text := fmt.Sprint(err)
		if resp != nil {
			data, jsonErr := json.Marshal(resp.Data)
			if jsonErr != nil {
				t.Fatal(jsonErr)
			}
			text += string(data) + fmt.Sprint(resp.Warnings)
		}
		if strings.Contains(text, mark) {
			t.Errorf("%s: the key is shown: %s", what, text)
		}
	}
	m.write(gatewayName, gatewayFieldsFor(map[string]any{"tls_certificate": certificate, "tls_key": key}))
	for _, name := range []string{"address", "public_url", "tls_certificate", "vault_address", "vault_ca", "vault_namespace", "grant_fields", "redirect", "caller_address", "allowed_origins", "grant_ttl", "max_streams"} {
		for _, text := range []string{key, certificate + key, strings.TrimSuffix(key, "-----END PRIVATE KEY-----\n") + "\n" + certificate} {
			resp, err := m.call(logical.UpdateOperation, gatewayName, map[string]any{name: text})
			unseen(name, resp, err)
			if err == nil && !resp.IsError() {
				t.Errorf("%s takes a private key", name)
			}
		}
	}
	m.refused(logical.UpdateOperation, gatewayName, map[string]any{"vault_ca": certificate + key}, "vault_ca: holds a private key")
	m.refused(logical.UpdateOperation, gatewayName, map[string]any{"vault_namespace": strings.ReplaceAll(key, "\n", "")}, "vault_namespace: holds a private key")
	_, other := selfSigned(t, 2, time.Now().Add(time.Hour))
	m.refused(logical.UpdateOperation, gatewayName, map[string]any{"tls_key": other}, "tls_key: doesn't belong to tls_certificate")
	for _, path := range []string{gatewayName, "config", "status"} {
		resp, err := m.call(logical.ReadOperation, path, nil)
		unseen(path, resp, err)
	}
	if _, shown := m.read(gatewayName)["tls_key"]; shown {
		t.Error("a read has the field tls_key")
	}
	if strings.Contains(m.log.String(), mark) {
		t.Error("the log has the key")
	}
	stored, line := false, strings.ReplaceAll(mark, "/", `\/`)
	for where, value := range entries(t, m.storage) {
		if strings.Contains(value, mark) || strings.Contains(value, line) {
			stored = true
			if !strings.HasPrefix(where, gatewayPrefix) {
				t.Errorf("the key is in storage at %s, which isn't seal-wrapped", where)
			}
		}
	}
	if !stored {
		t.Error("the key isn't stored: the test proves nothing")
	}
}

// TestGateway_WhatCannotBeStoredChangesNothing: the certificate in force has expired,
// which is no reason to go on with one that isn't stored.
func TestGateway_WhatCannotBeStoredChangesNothing(t *testing.T) {
	expired, expiredKey := selfSigned(t, 1, time.Now().Add(-time.Minute))
	storage := &faultyStorage{Storage: &logical.InmemStorage{}}
	entry, err := logical.StorageEntryJSON(gatewayPrefix+gatewayEntry, &gatewaySettings{
		Address: "127.0.0.1:0", VaultAddress: "http://127.0.0.1:1", Certificate: expired, Key: expiredKey, Redirect: "off",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := storage.Put(t.Context(), entry); err != nil {
		t.Fatal(err)
	}
	m := newMountOn(t, Options{}, storage)
	eventually(t, "its listening", func() bool { return m.gateway.URL() != "" })
	address := m.gateway.Status().Address
	before, expires := m.read(gatewayName), m.gateway.Status().CertificateExpires

	certificate, key := selfSigned(t, 2, time.Now().Add(time.Hour))
	change := map[string]any{"tls_certificate": certificate, "tls_key": key, "redirect": "all", "public_url": "https://llm.example.com", "max_connections": 5}
	storage.arm(1, false)
	resp, err := m.call(logical.UpdateOperation, gatewayName, change)
	if failed := storage.disarm(); !failed || resp != nil || !errors.Is(err, errFault) {
		t.Fatalf("storage failed: %t; answered %v %v", failed, resp, err)
	}
	eventually(t, "the return of the old certificate", func() bool { return m.gateway.Status().CertificateExpires.Equal(expires) })
	if got := served(t, address); got != 1 || m.gateway.Status().Address != address {
		t.Errorf("certificate %d is served, at %s", got, m.gateway.Status().Address)
	}
	if url := m.gateway.URL(); url != "https://"+address {
		t.Errorf("apps are told to go to %s", url)
	}
	if now := m.read(gatewayName); !reflect.DeepEqual(now, before) {
		t.Errorf("now it is %v\nwas %v", now, before)
	}
	m.write(gatewayName, change)
	if got := served(t, address); got != 2 || m.gateway.URL() != "https://llm.example.com" {
		t.Errorf("written again, certificate %d is served, and the URL is %s", got, m.gateway.URL())
	}
}

func TestGateway_TheFirstWriteThatCannotBeStoredLeavesItOff(t *testing.T) {
	storage := &faultyStorage{Storage: &logical.InmemStorage{}}
	m := newMountOn(t, Options{}, storage)
	storage.arm(1, false)
	resp, err := m.call(logical.UpdateOperation, gatewayName, gatewayFieldsFor(nil))
	if failed := storage.disarm(); !failed || resp != nil || !errors.Is(err, errFault) {
		t.Fatalf("storage failed: %t; answered %v %v", failed, resp, err)
	}
	if s := m.statusOfGateway(); s["on"] != false || s["address"] != "" || m.read(gatewayName) != nil {
		t.Errorf("it is %v, with the settings %v", s, m.read(gatewayName))
	}
}

func TestGateway_ADeleteThatFailsLeavesItOn(t *testing.T) {
	storage := &faultyStorage{Storage: &logical.InmemStorage{}}
	m := newMountOn(t, Options{}, storage)
	m.write(gatewayName, gatewayFieldsFor(nil))
	before, url := m.read(gatewayName), m.gateway.URL()
	storage.arm(1, false)
	resp, err := m.call(logical.DeleteOperation, gatewayName, nil)
	if failed := storage.disarm(); !failed || resp != nil || !errors.Is(err, errFault) {
		t.Fatalf("storage failed: %t; answered %v %v", failed, resp, err)
	}
	if now := m.read(gatewayName); !reflect.DeepEqual(now, before) || m.gateway.URL() != url || m.statusOfGateway()["on"] != true {
		t.Errorf("now it is %v at %s", now, m.gateway.URL())
	}
	m.delete(gatewayName)
	if s := m.statusOfGateway(); s["on"] != false || s["url"] != "" || m.read(gatewayName) != nil {
		t.Errorf("deleted, it is %v", s)
	}
	m.delete(gatewayName) // there being none is no error
}

func TestGateway_WarnsOfWhatWorksOtherwiseThanOneMightThink(t *testing.T) {
	certificate, key := selfSigned(t, 1, time.Now().Add(time.Hour))
	const (
		noURL   = "set public_url to the URL by which apps reach the gateway"
		plain   = "no caller of Vault is sent to a gateway on http"
		toPlain = "callers of Vault over https are never sent to a gateway on http"
		inClear = "every caller's token crosses the network to"
		expires = "tls_certificate expires at"
		noTLS   = "plain_http: tokens, prompts and answers cross the network in clear"
	)
	m := newMount(t, Options{})
	for name, c := range map[string]struct {
		settings map[string]any
		want     []string // all of them, and no more
	}{
		"loopback":                  {nil, []string{noURL}},
		"all addresses":             {map[string]any{"address": ":0", "tls_certificate": certificate, "tls_key": key}, []string{noURL, expires}},
		"https":                     {map[string]any{"public_url": "https://llm.example.com"}, nil},
		"http":                      {map[string]any{"public_url": "http://llm.example.com"}, []string{plain}},
		"http in capitals":          {map[string]any{"public_url": "HTTP://llm.example.com"}, []string{plain}},
		"http, no redirects":        {map[string]any{"public_url": "http://llm.example.com", "redirect": "off"}, nil},
		"http on loopback":          {map[string]any{"public_url": "http://127.0.0.1:8300"}, nil},
		"http on loopback, https":   {map[string]any{"public_url": "http://127.0.0.1:8300", "vault_address": "https://127.0.0.1:1"}, []string{toPlain}},
		"plain":                     {map[string]any{"address": ":0", "plain_http": true, "public_url": "https://llm.example.com"}, []string{noTLS}},
		"Vault in a network":        {map[string]any{"public_url": "https://llm.example.com", "vault_address": "http://10.0.0.1:8200"}, []string{inClear + " 10.0.0.1:8200"}},
		"Vault by name":             {map[string]any{"public_url": "https://llm.example.com", "vault_address": "HTTP://vault:8200"}, []string{inClear + " vault:8200"}},
		"Vault's look-alike":        {map[string]any{"public_url": "https://llm.example.com", "vault_address": "http://127.0.0.1.example.com"}, []string{inClear}},
		"Vault at localhost":        {map[string]any{"public_url": "https://llm.example.com", "vault_address": "http://localhost:8200"}, nil},
		"Vault at ::1":              {map[string]any{"public_url": "https://llm.example.com", "vault_address": "http://[::1]:8200"}, nil},
		"Vault by https":            {map[string]any{"public_url": "https://llm.example.com", "vault_address": "https://10.0.0.1:8200"}, nil},
		"caller's address, unknown": {map[string]any{"public_url": "https://llm.example.com", "caller_address": "ignore"}, []string{"caller_address=ignore"}},
		"model alone":               {map[string]any{"public_url": "https://llm.example.com", "grant_fields": "model"}, []string{"grant_fields=model"}},
	} {
		m.delete(gatewayName)
		resp := m.write(gatewayName, gatewayFieldsFor(c.settings))
		var warnings []string
		if resp != nil {
			warnings = resp.Warnings
		}
		if len(warnings) != len(c.want) {
			t.Errorf("%s: the warnings are %q, want %q", name, warnings, c.want)
			continue
		}
		for _, want := range c.want {
			wantWarning(t, resp, want)
		}
	}
}

// A leased key's base_url must lead its app to the gateway.
func TestGateway_ALeasedKeyIsToldWhereTheGatewayIs(t *testing.T) {
	m, _, _ := newLeaseMount(t)
	m.write(gatewayName, gatewayFieldsFor(nil))
	l, resp := m.lease(nil)
	if l.data["base_url"] != m.gateway.URL()+"/v1" || !strings.HasPrefix(m.gateway.URL(), "http://127.0.0.1:") {
		t.Errorf("base_url is %v", l.data["base_url"])
	}
	wantWarning(t, resp, "base_url leads to the gateway from Vault's own machine alone", "public_url=")
	for _, public := range []string{"https://llm.example.com", "http://localhost:8300"} {
		m.write(gatewayName, map[string]any{"public_url": public})
		if l, resp = m.lease(nil); l.data["base_url"] != public+"/v1" || len(resp.Warnings) != 0 {
			t.Errorf("base_url is %v, with the warnings %q", l.data["base_url"], resp.Warnings)
		}
	}
}

func TestGateway_DrainIsWithinItsBounds(t *testing.T) {
	m := newMount(t, Options{})
	drain := func(data map[string]any) map[string]any {
		t.Helper()
		return overJSON(t, m.write(gatewayName+"/drain", data).Data)
	}
	m.refused(logical.UpdateOperation, gatewayName+"/drain", nil, "the gateway is off")
	m.refused(logical.UpdateOperation, gatewayName+"/drain", map[string]any{"cancel": true}, "the gateway is off")
	m.write(gatewayName, gatewayFieldsFor(nil))
	for _, c := range []struct {
		data map[string]any
		want string
	}{
		{map[string]any{"timeout": -1}, "timeout"},
		{map[string]any{"timeout": "-1s"}, "timeout"},
		{map[string]any{"timeout": 3601}, "between 0s and 1h"},
		{map[string]any{"timeout": "61m"}, "between 0s and 1h"},
		{map[string]any{"timeout": "300ms"}, "shorter than a second"},
		{map[string]any{"timeout": "99999999999999999999"}, "timeout"},
		{map[string]any{"timeout": "99999999999h"}, "timeout"},
		{map[string]any{"timeout": "zwei Minuten"}, "timeout must be a duration"},
		{map[string]any{"timeout": "２m"}, "timeout must be a duration"},
		{map[string]any{"timeout": nil}, "timeout is null"},
		{map[string]any{"timeuot": "2m"}, `did you mean "timeout"`},
		{map[string]any{"cancel": "no, thanks"}, "cancel must be true or false"},
		{map[string]any{"cancel": true, "timeout": "2h"}, "between 0s and 1h"},
	} {
		m.refused(logical.UpdateOperation, gatewayName+"/drain", c.data, c.want)
		if m.statusOfGateway()["draining"] != false {
			t.Fatalf("%v was refused, and it drains", c.data)
		}
	}
	for _, timeout := range []any{0, "1s", 3600, "1h"} {
		wantFields(t, drain(map[string]any{"timeout": timeout}), map[string]any{"draining": true, "streams": 0})
		wantFields(t, drain(map[string]any{"cancel": true}), map[string]any{"draining": false})
	}
	wantFields(t, drain(nil), map[string]any{"draining": true, "streams": 0})
}

// A change of settings is no word on a drain: a certificate may be renewed meanwhile.
func TestGateway_AWriteLeavesADrainAsItIs(t *testing.T) {
	m := newMount(t, Options{})
	m.write(gatewayName, gatewayFieldsFor(nil))
	m.write(gatewayName+"/drain", map[string]any{"timeout": "1h"})
	wantWarning(t, m.write(gatewayName, map[string]any{"grant_ttl": 5}), "the gateway is draining still", "cancel=true")
	if s := m.statusOfGateway(); s["draining"] != true || s["on"] != true {
		t.Errorf("after a write it is %v", s)
	}
	m.write(gatewayName+"/drain", map[string]any{"cancel": true})
	if m.statusOfGateway()["draining"] != false {
		t.Error("cancelled, it drains still")
	}
	m.write(gatewayName+"/drain", nil)
	m.delete(gatewayName)
	m.write(gatewayName, gatewayFieldsFor(nil))
	if m.statusOfGateway()["draining"] != false {
		t.Error("turned off and on, it drains still")
	}
}
