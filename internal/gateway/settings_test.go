// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
)

func TestSettings_CheckNamesTheOneThatIsWrong(t *testing.T) {
	good := Settings{
		Listen: ListenConfig{Address: "127.0.0.1:0", MaxConnections: 1}, VaultAddress: "http://127.0.0.1:8200",
		MaxBodyBytes: 1024, MaxStreams: 1, UpstreamTimeout: time.Minute, IdleTimeout: time.Minute,
	}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	certificate := issue(t, 1, nil)
	for name, c := range map[string]struct {
		change func(*Settings)
		names  string
	}{
		"no address":           {func(s *Settings) { s.Listen.Address = "" }, "address"},
		"no port":              {func(s *Settings) { s.Listen.Address = "127.0.0.1" }, "address"},
		"plain on all":         {func(s *Settings) { s.Listen.Address = ":8300" }, "plain_http"},
		"key alone":            {func(s *Settings) { s.Listen.Key = certificate.key }, "tls_certificate"},
		"certificate alone":    {func(s *Settings) { s.Listen.Certificate = certificate.certificate }, "tls_key"},
		"no connections":       {func(s *Settings) { s.Listen.MaxConnections = 0 }, "max_connections"},
		"public URL":           {func(s *Settings) { s.PublicURL = "llm.example.com:8300" }, "public_url"},
		"public URL's query":   {func(s *Settings) { s.PublicURL = "https://llm.example.com/?a=b" }, "public_url"},
		"public URL's user":    {func(s *Settings) { s.PublicURL = "https://user:word@llm.example.com" }, "public_url"},
		"public URL's end":     {func(s *Settings) { s.PublicURL = "https://llm.example.com/#" }, "public_url"},
		"public URL's mark":    {func(s *Settings) { s.PublicURL = "https://llm.example.com/?" }, "public_url"},
		"public URL's name":    {func(s *Settings) { s.PublicURL = "https://zürich.example.com" }, "public_url"},
		"public URL's space":   {func(s *Settings) { s.PublicURL = "https://llm.example.com/a b" }, "public_url"},
		"public URL's port":    {func(s *Settings) { s.PublicURL = "https://llm.example.com:83000" }, "public_url"},
		"Vault's port":         {func(s *Settings) { s.VaultAddress = "http://127.0.0.1:82000" }, "vault_address"},
		"Vault's namespace":    {func(s *Settings) { s.VaultNamespace = "a\r\nX-Vault-Token: b" }, "vault_namespace"},
		"public URL's scheme":  {func(s *Settings) { s.PublicURL = "ftp://llm.example.com" }, "public_url"},
		"no Vault":             {func(s *Settings) { s.VaultAddress = "" }, "vault_address"},
		"Vault's host":         {func(s *Settings) { s.VaultAddress = "http://" }, "vault_address"},
		"Vault's port alone":   {func(s *Settings) { s.VaultAddress = "http://:8200" }, "vault_address"},
		"Vault without scheme": {func(s *Settings) { s.VaultAddress = "127.0.0.1:8200" }, "vault_address"},
		"Vault's fragment":     {func(s *Settings) { s.VaultAddress = "http://127.0.0.1:8200/#x" }, "vault_address"},
		"Vault's CA":           {func(s *Settings) { s.VaultCA = []byte("no PEM") }, "vault_ca"},
		"Vault's CA is a key":  {func(s *Settings) { s.VaultCA = certificate.key }, "vault_ca"},
		"origin":               {func(s *Settings) { s.AllowedOrigins = []string{"app.example.com"} }, "allowed_origins"},
	} {
		s := good
		c.change(&s)
		err := s.Check()
		if err == nil || !strings.HasPrefix(err.Error(), c.names+":") {
			t.Errorf("%s: %v, want an error of %s", name, err, c.names)
		}
		if err != nil && (strings.Contains(err.Error(), "word") || strings.Contains(err.Error(), "PRIVATE KEY")) {
			t.Errorf("%s: the error shows a secret: %v", name, err)
		}
	}
}

func TestSettings_ThatAreWrongChangeNothing(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	wantOK(t, r.chat("tok", hello))
	url := r.URL()
	taken := newRig(t)
	for name, change := range map[string]func(*Settings){
		"Vault":          func(s *Settings) { s.VaultAddress = "nowhere" },
		"CA":             func(s *Settings) { s.VaultCA = []byte("x") },
		"origins":        func(s *Settings) { s.AllowedOrigins = []string{"x"} },
		"address in use": func(s *Settings) { s.Listen.Address = taken.address() },
		"certificate":    func(s *Settings) { s.Listen.Certificate, s.Listen.Key = []byte("x"), []byte("y") },
	} {
		s := r.settings
		s.GrantTTL = 0
		if change(&s); r.Apply(&s) == nil {
			t.Errorf("%s: it was taken", name)
		}
		if _, text, err := r.overTheWire(t, r.client(t), url, hello); err != nil || !strings.Contains(text, "caller_address_unknown") && text != completion {
			t.Errorf("%s: the old listener answers %q %v", name, text, err)
		}
		before := r.vault.count()
		if wantOK(t, r.chat("tok", hello)); r.vault.count() != before || r.URL() != url {
			t.Errorf("%s: the grant is gone, or the URL is %s", name, r.URL())
		}
	}
}

func TestSettings_ChangeWithoutBreakingWhatIsUnderWay(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	s := stall(r)
	old := r.inBackground(chatRequest("tok", hello))
	received(t, "a request", s.arrived)
	r.apply(t, func(s *Settings) { s.MaxStreams = 2 })
	if err := r.Apply(nil); err != nil {
		t.Fatal(err)
	}
	r.apply(t)
	close(s.gate)
	wantOK(t, received(t, "its answer", old))
}

func TestSettings_TurningOnEndsADrain(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	r.Drain(soon)
	if err := r.Apply(nil); err != nil {
		t.Fatal(err)
	}
	r.apply(t)
	if r.Status().Draining {
		t.Error("it drains still")
	}
	wantOK(t, r.chat("tok", hello))
}

func TestSettings_AChangeLeavesADrainAsItIs(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	s := stall(r)
	goOn := sync.OnceFunc(func() { close(s.gate) })
	defer goOn()
	old := r.inBackground(chatRequest("tok", hello))
	received(t, "a request", s.arrived)
	r.Drain(10 * soon)
	r.apply(t, func(s *Settings) { s.MaxStreams = 2 })
	r.apply(t, func(s *Settings) { s.Listen.MaxConnections = 10 })
	if !r.Status().Draining || r.Status().Streams != 1 {
		t.Fatalf("after a change of settings it is %+v", r.Status())
	}
	wantRefusal(t, r.chat("tok", hello), http.StatusServiceUnavailable, apierror.CodeGatewayUnavailable)
	resp, err := r.client(t).Get(r.URL() + "/healthz")
	if err != nil || !resp.Close {
		t.Errorf("a caller isn't asked to go elsewhere: %v %v", resp, err)
	}
	goOn()
	wantOK(t, received(t, "its answer", old))
}

// Those that outlast a drain's timeout are ended, whatever was written meanwhile.
func TestSettings_AChangeLeavesADrainsEndAsItIs(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	s := stall(r)
	defer close(s.gate)
	old := r.inBackground(chatRequest("tok", hello))
	received(t, "a request", s.arrived)
	r.Drain(100 * time.Millisecond)
	r.apply(t, func(s *Settings) { s.MaxStreams = 3 })
	wantRefusal(t, received(t, "its end", old), http.StatusServiceUnavailable, apierror.CodeGatewayUnavailable)
}

// What can't be stored doesn't count, and the gateway goes on as before: its address,
// its certificate although that has expired, and what Vault has granted.
func TestSettings_ThatCannotBeStoredChangeNothing(t *testing.T) {
	expired := issue(t, 1, nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	r := newRig(t)
	r.vault.token("tok", nil)
	if err := r.Apply(nil); err != nil {
		t.Fatal(err)
	}
	s := r.settings
	expired.in(&s.Listen)
	if err := r.Start(&s); err != nil {
		t.Fatal(err)
	}
	until(t, "it listens", func() bool { return r.URL() != "" })
	address := r.address()
	wantOK(t, r.chat("tok", hello))
	asked := r.vault.count()

	full := errors.New("storage is full")
	for name, change := range map[string]func(*Settings){
		"certificate": func(s *Settings) { issue(t, 2, nil).in(&s.Listen) },
		"plain":       func(s *Settings) { s.Listen.Certificate, s.Listen.Key = nil, nil },
		"limits":      func(s *Settings) { issue(t, 3, nil).in(&s.Listen); s.MaxStreams, s.Listen.MaxConnections = 1, 1 },
	} {
		next := s
		change(&next)
		listened := false
		err := r.ApplyIf(&next, func() error {
			listened = r.listener.Status().CertificateExpires != expired.leaf.NotAfter
			return full
		})
		if !errors.Is(err, full) || !listened {
			t.Fatalf("%s: %v; it listened before the settings were stored: %t", name, err, listened)
		}
		until(t, "the old certificate is back", func() bool { return r.listener.Status().CertificateExpires.Equal(expired.leaf.NotAfter) })
		c, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := c.ConnectionState().PeerCertificates[0].SerialNumber.Int64(); got != 1 {
			t.Errorf("%s: certificate %d is served", name, got)
		}
		_ = c.Close()
		if live := r.live.Load(); live.MaxStreams != s.MaxStreams || r.address() != address {
			t.Errorf("%s: the settings in force are %+v at %s", name, live.Settings, r.address())
		}
		wantOK(t, r.chat("tok", hello))
		if n := r.vault.count(); n != asked {
			t.Errorf("%s: Vault was asked %d times more", name, n-asked)
		}
	}
}

// The first settings are on trial too.
func TestSettings_TheFirstThatCannotBeStoredLeaveItOff(t *testing.T) {
	r := newRig(t)
	if err := r.Apply(nil); err != nil {
		t.Fatal(err)
	}
	s := r.settings
	var address string
	err := r.ApplyIf(&s, func() error {
		address = r.address()
		return errors.New("storage is full")
	})
	if err == nil || r.Status().On || r.URL() != "" || address == "" || accepts(address) {
		t.Errorf("%v; it is %+v at %s", err, r.Status(), address)
	}
}

func TestSettings_URLIsHowAppsReachIt(t *testing.T) {
	certificate := issue(t, 1, nil)
	r := newRig(t)
	port := r.address()[strings.LastIndex(r.address(), ":"):]
	for _, c := range []struct {
		change func(*Settings)
		want   string
	}{
		{func(*Settings) {}, "http://127.0.0.1" + port},
		{func(s *Settings) { s.PublicURL = "https://llm.example.com/" }, "https://llm.example.com"},
		{func(s *Settings) { s.PublicURL = "https://llm.example.com/base" }, "https://llm.example.com/base"},
	} {
		r.apply(t, c.change)
		if got := r.URL(); got != c.want {
			t.Errorf("the URL is %q, want %q", got, c.want)
		}
	}
	r.apply(t, func(s *Settings) {
		s.PublicURL, s.Listen.Address = "", ":0"
		s.Listen.Certificate, s.Listen.Key = certificate.certificate, certificate.key
	})
	if got := r.URL(); !strings.HasPrefix(got, "https://localhost:") {
		t.Errorf("the URL on all addresses is %q", got)
	}
}

func TestSettings_StartGoesOnTryingWhereTheAddressIsInUse(t *testing.T) {
	first := newRig(t)
	r := newRig(t)
	r.vault.token("tok", nil)
	if err := r.Apply(nil); err != nil {
		t.Fatal(err)
	}
	s := r.settings
	s.Listen.Address = first.address()
	if err := r.Start(&s); err != nil {
		t.Fatal(err)
	}
	until(t, "the problem is shown", func() bool { return r.Status().Problem != "" })
	if !r.Status().On || r.URL() != "" {
		t.Errorf("%+v at %q", r.Status(), r.URL())
	}
	if err := first.Apply(nil); err != nil {
		t.Fatal(err)
	}
	until(t, "it listens", func() bool { return r.Status().Problem == "" && r.URL() != "" })
	resp, err := r.client(t).Get(r.URL() + "/readyz")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%v %v", resp, err)
	}
}
