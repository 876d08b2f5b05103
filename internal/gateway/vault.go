// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// askTimeout is how long Vault may take to judge a request.
const askTimeout = 15 * time.Second

// vaultClient asks Vault's API. It follows no redirect and uses no proxy, for it
// carries callers' tokens.
type vaultClient struct {
	address, namespace string
	transport          *http.Transport
}

func newVaultClient(address string, ca []byte, namespace string) (*vaultClient, error) {
	if err := checkURL("vault_address", address); err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(ca) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(ca) {
			return nil, errors.New("vault_ca: this holds no certificate; write PEM text that begins with -----BEGIN CERTIFICATE-----")
		}
	}
	return &vaultClient{
		address: strings.TrimSuffix(address, "/"), namespace: namespace,
		transport: &http.Transport{
			Proxy: nil, TLSClientConfig: config, ForceAttemptHTTP2: true, DisableCompression: true,
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSHandshakeTimeout: 5 * time.Second, MaxIdleConns: 512, MaxIdleConnsPerHost: 512, IdleConnTimeout: time.Minute,
		},
	}, nil
}

func (v *vaultClient) close() { v.transport.CloseIdleConnections() }

// vaultAnswer is what Vault said.
type vaultAnswer struct {
	status     int
	errors     []string
	code       string // of an error of the plugin's
	retryAfter time.Duration
}

// ask sends a request to path below /v1/. body is JSON, nil for none.
func (v *vaultClient) ask(ctx context.Context, method, path, token string, source netip.Addr, body io.Reader) (*vaultAnswer, error) {
	req, err := http.NewRequestWithContext(ctx, method, v.address+"/v1/"+path, body)
	if err != nil {
		return nil, errors.New("its address can't be used")
	}
	req.Header.Set("X-Vault-Token", token)
	req.Header.Set("User-Agent", "vault-plugin-secrets-portkey gateway") // for the audit log
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if v.namespace != "" {
		req.Header.Set("X-Vault-Namespace", v.namespace)
	}
	if source.IsValid() {
		req.Header.Set("X-Forwarded-For", source.String())
	}
	resp, err := v.transport.RoundTrip(req)
	if err != nil {
		return nil, vaultFailure(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return nil, vaultFailure(ctx, err)
	}
	a := &vaultAnswer{status: resp.StatusCode}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		a.retryAfter = time.Duration(seconds) * time.Second
	}
	if a.status >= http.StatusMultipleChoices {
		var said struct {
			Errors []string `json:"errors"`
			Error  struct {
				Code string `json:"code"`
			} `json:"error"`
		}
		if json.Unmarshal(text, &said) == nil {
			a.errors, a.code = said.Errors, said.Error.Code
		}
	}
	return a, nil
}

// vaultFailure is err without what it quotes, which may be the address with the
// nonce in it.
func vaultFailure(ctx context.Context, err error) error {
	var certificate *tls.CertificateVerificationError
	var operation *net.OpError
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("it didn't answer within %s", askTimeout)
	case errors.As(err, &certificate):
		return errors.New("its certificate can't be verified; vault_ca must hold its authority")
	case errors.As(err, &operation):
		return fmt.Errorf("%s failed", operation.Op)
	}
	return errors.New("the connection broke")
}
