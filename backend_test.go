// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/errutil"
	"github.com/hashicorp/vault/sdk/helper/testhelpers/schema"
	"github.com/hashicorp/vault/sdk/logical"
)

// Every secret in these tests begins with secretMark, so that the harness can
// look for it where no secret may be: in each answer and error, in the log,
// and in storage outside keys/.
const (
	secretMark = "sk-test-"
	secretA    = secretMark + "AAAAAAAAAAAAAAAA"
	secretB    = secretMark + "BBBBBBBBBBBBBBBB"
	// By `printf %s <secret> | sha256sum | cut -c1-8`.
	fingerprintA = "aa345458"
	fingerprintB = "73c06fb8"
)

// mount is a backend with in-memory storage, for unit tests.
type mount struct {
	*backend
	t       *testing.T
	storage logical.Storage
	system  *identityView
	log     *lockedBuffer
}

// identityView is Vault's word on who callers are; it can fail.
type identityView struct {
	logical.StaticSystemView
	entityErr, groupsErr error
}

func (v *identityView) EntityInfo(string) (*logical.Entity, error) { return v.EntityVal, v.entityErr }
func (v *identityView) GroupsForEntity(string) ([]*logical.Group, error) {
	return v.GroupsVal, v.groupsErr
}

// lockedBuffer is a log that tests can read while it is written.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// newMount returns an active mount. Options are those of the engine.
func newMount(t *testing.T, o Options) *mount {
	t.Helper()
	return newMountOn(t, o, &logical.InmemStorage{})
}

// newMountOn is newMount on a storage that may hold something already.
func newMountOn(t *testing.T, o Options, storage logical.Storage) *mount {
	t.Helper()
	m := newStandby(t, o, consts.ReplicationUnknown, storage)
	m.initialize()
	if err := m.activity.await(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m
}

// newStandby returns a mount that Vault has not initialised yet.
func newStandby(t *testing.T, o Options, state consts.ReplicationState, storage logical.Storage) *mount {
	t.Helper()
	if o.Version == "" {
		o.Version = "v0.0.0-test"
	}
	b, err := newBackend(o)
	if err != nil {
		t.Fatal(err)
	}
	system := &identityView{StaticSystemView: *logical.TestSystemView()}
	system.ReplicationStateVal = state
	system.PluginEnvironment = &logical.PluginEnvironment{VaultVersion: "1.21.1"}
	m := &mount{backend: b, t: t, storage: storage, system: system, log: &lockedBuffer{}}
	logger := hclog.New(&hclog.LoggerOptions{Output: m.log, Level: hclog.Trace})
	if err := b.Setup(t.Context(), &logical.BackendConfig{Logger: logger, System: system, StorageView: storage}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.Cleanup(context.Background())
		m.checkCustody()
	})
	return m
}

func (m *mount) initialize() {
	m.t.Helper()
	if err := m.Initialize(m.t.Context(), &logical.InitializationRequest{Storage: m.storage}); err != nil {
		m.t.Fatal("Initialize must never fail:", err)
	}
}

// checkCustody finds secrets in the log and in storage outside keys/.
func (m *mount) checkCustody() {
	m.t.Helper()
	if log := m.log.String(); strings.Contains(log, secretMark) {
		m.t.Errorf("a secret is in the log: %s", log)
	}
	for key, value := range entries(m.t, m.storage) {
		if strings.Contains(key+value, secretMark) && !strings.HasPrefix(key, keyPrefix) {
			m.t.Errorf("a secret is in storage outside %s, at %s", keyPrefix, key)
		}
	}
}

// entries is all that storage holds.
func entries(t *testing.T, storage logical.Storage) map[string]string {
	t.Helper()
	ctx := context.Background() // also asked when the test's own has ended
	if f, ok := storage.(interface{ direct() logical.Storage }); ok {
		storage = f.direct()
	}
	all := map[string]string{}
	err := logical.ScanView(ctx, storage, func(key string) {
		entry, err := storage.Get(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		if entry != nil { // else a concurrent test deleted it
			all[key] = string(entry.Value)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// call makes one request as Vault does: a write is a create or an update by
// what the existence check says, and the answer to a success is held against
// the operation's schema.
func (m *mount) call(op logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	m.t.Helper()
	if op == logical.UpdateOperation {
		check := &logical.Request{Operation: op, Path: path, Data: overJSON(m.t, data), Storage: m.storage, MountPoint: "portkey/"}
		checked, exists, err := m.HandleExistenceCheck(m.t.Context(), check)
		if err != nil {
			// Vault makes 500 of any other kind, and logs it.
			if !isUserError(err) && !errors.As(err, new(*storageError)) {
				m.t.Errorf("existence check of %s: Vault doesn't understand %T", path, err)
			}
			m.noSecret(op, path, nil, err)
			return nil, err
		}
		if checked && !exists {
			op = logical.CreateOperation
		}
	}
	req := &logical.Request{Operation: op, Path: path, Data: overJSON(m.t, data), Storage: m.storage, MountPoint: "portkey/"}
	resp, err := m.HandleRequest(m.t.Context(), req)
	m.noSecret(op, path, resp, err)
	if err == nil && !resp.IsError() {
		m.checkSchema(op, path, resp)
	}
	return resp, err
}

// isUserError says what Vault says of an existence check's error.
func isUserError(err error) bool {
	_, isUser := err.(errutil.UserError)
	return isUser
}

func (m *mount) checkSchema(op logical.Operation, path string, resp *logical.Response) {
	m.t.Helper()
	route := m.Route(path)
	if resp != nil {
		schema.ValidateResponse(m.t, schema.GetResponseSchema(m.t, route, op), resp, true)
		return
	}
	if _, declared := route.Operations[op].Properties().Responses[http.StatusNoContent]; !declared && op != logical.ReadOperation {
		m.t.Fatalf("%s %s answers nothing, which its schema doesn't say", op, path)
	}
}

func (m *mount) noSecret(op logical.Operation, path string, resp *logical.Response, err error) {
	m.t.Helper()
	text := fmt.Sprint(err)
	if resp != nil {
		data, jsonErr := json.Marshal(resp.Data)
		if jsonErr != nil {
			m.t.Error(jsonErr)
		}
		text += string(data) + fmt.Sprint(resp.Warnings, resp.Headers)
		if raw, ok := resp.Data[logical.HTTPRawBody].([]byte); ok {
			text += string(raw)
		}
	}
	if strings.Contains(text, secretMark) {
		m.t.Errorf("%s %s gives a secret away: %s", op, path, text)
	}
}

// overJSON is what data looks like after its way through HTTP and gRPC.
func overJSON(t *testing.T, data map[string]any) map[string]any {
	t.Helper()
	if data == nil {
		return nil
	}
	text, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// must is call for what has to succeed.
func (m *mount) must(op logical.Operation, path string, data map[string]any) *logical.Response {
	m.t.Helper()
	resp, err := m.call(op, path, data)
	if err != nil || resp.IsError() {
		m.t.Fatalf("%s %s: %v %v", op, path, err, resp)
	}
	return resp
}

func (m *mount) write(path string, data map[string]any) *logical.Response {
	m.t.Helper()
	return m.must(logical.UpdateOperation, path, data)
}

func (m *mount) patch(path string, data map[string]any) *logical.Response {
	m.t.Helper()
	return m.must(logical.PatchOperation, path, data)
}

func (m *mount) delete(path string) {
	m.t.Helper()
	m.must(logical.DeleteOperation, path, nil)
}

// read returns what is at path as JSON shows it, nil for nothing.
func (m *mount) read(path string) map[string]any {
	m.t.Helper()
	resp := m.must(logical.ReadOperation, path, nil)
	if resp == nil {
		return nil
	}
	return overJSON(m.t, resp.Data)
}

// refused is call for what has to fail as the caller's fault, with an error
// that says each of want.
func (m *mount) refused(op logical.Operation, path string, data map[string]any, want ...string) {
	m.t.Helper()
	resp, err := m.call(op, path, data)
	text := ""
	coded, isCoded := err.(logical.HTTPCodedError)
	switch {
	case isUserError(err), isCoded && coded.Code() < 500:
		text = err.Error()
	case err != nil:
		m.t.Fatalf("%s %s %v: %v is not said to be the caller's fault", op, path, data, err)
	case resp.IsError():
		text = resp.Error().Error()
	default:
		m.t.Fatalf("%s %s %v was accepted", op, path, data)
	}
	for _, w := range want {
		if !strings.Contains(text, w) {
			m.t.Fatalf("%s %s: the error %q does not say %q", op, path, text, w)
		}
	}
}

// everything is all that reads show, for comparing two states.
func (m *mount) everything() map[string]any {
	m.t.Helper()
	all := map[string]any{"config": m.read("config"), gatewayName: m.read(gatewayName)}
	for _, prefix := range []string{keyPrefix, rolePrefix} {
		names, _ := m.must(logical.ListOperation, prefix, nil).Data["keys"].([]string)
		for _, name := range names {
			all[prefix+name] = m.read(prefix + name)
		}
	}
	return all
}

// wantFields compares fields of data, given as JSON would show them.
func wantFields(t *testing.T, data map[string]any, want map[string]any) {
	t.Helper()
	for name, w := range overJSON(t, want) {
		if !reflect.DeepEqual(data[name], w) {
			t.Errorf("%s is %#v, want %#v", name, data[name], w)
		}
	}
}

func wantWarning(t *testing.T, resp *logical.Response, want ...string) {
	t.Helper()
	if resp == nil {
		t.Fatalf("no answer, want a warning that says %q", want)
	}
	for _, w := range want {
		if !strings.Contains(strings.Join(resp.Warnings, "\n"), w) {
			t.Errorf("the warnings %q don't say %q", resp.Warnings, w)
		}
	}
}

// clock is a settable time.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func TestBackend_UnknownPathIs404WithGuidance(t *testing.T) {
	m := newMount(t, Options{})
	for _, path := range []string{"role/x", "roles/schlüssel", "keys/a b", "roles/x/y"} {
		m.refused(logical.ReadOperation, path, nil, "portkey/"+path, "vault path-help portkey/")
	}
}

func TestBackend_SecretsAreSealWrappedAndLocalEntriesAreLocal(t *testing.T) {
	m := newMount(t, Options{})
	special := m.SpecialPaths()
	for _, prefix := range append(special.SealWrapStorage, special.LocalStorage...) {
		if !strings.HasSuffix(prefix, "/") {
			t.Errorf("%q: Vault matches a prefix only when it ends in /", prefix)
		}
	}
	m.write("keys/a", map[string]any{"provider": "openai", "api_key": secretA})
	for key, value := range entries(t, m.storage) {
		if strings.Contains(value, secretA) && !strings.HasPrefix(key, special.SealWrapStorage[0]) {
			t.Errorf("%s holds the secret and is not seal-wrapped", key)
		}
	}
	if _, found := entries(t, m.storage)[special.LocalStorage[0]+"instance"]; !found {
		t.Error("the instance entry is not among the local ones")
	}
	if got := special.Unauthenticated; !reflect.DeepEqual(got, []string{"healthz"}) {
		t.Errorf("unauthenticated paths: %q; only healthz may be one", got)
	}
	if got := special.Root; !reflect.DeepEqual(got, []string{"config", "config/gateway", "config/gateway/drain"}) {
		t.Errorf("paths that need sudo: %q", got)
	}
}

func TestFactory_ServesRequests(t *testing.T) {
	system := logical.TestSystemView()
	b, err := Factory(Options{Version: "v1.2.3"})(t.Context(), &logical.BackendConfig{Logger: hclog.NewNullLogger(), System: system})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Cleanup(t.Context())
	resp, err := b.HandleRequest(t.Context(), &logical.Request{Operation: logical.ReadOperation, Path: "status"})
	if err != nil || resp.Data["version"] != "v1.2.3" {
		t.Fatalf("%v %v", resp, err)
	}
	var versioned logical.PluginVersioner = b.(*backend)
	if v := versioned.PluginVersion().Version; v != "v1.2.3" {
		t.Errorf("Vault is told version %q", v)
	}
	if b.Type() != logical.TypeLogical {
		t.Error("not a secrets engine")
	}
}
