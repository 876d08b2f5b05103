// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/price"
)

// usageAnswer is an answer of the provider that reports this usage.
func usageAnswer(input, output int) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) {
		return answerWith(http.StatusOK, "application/json", fmt.Sprintf(
			`{"model":"m","choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":%d,"completion_tokens":%d}}`, input, output)), nil
	}
}

// newPricedMount answers each request with 1,000 input and 100 output tokens.
func newPricedMount(t *testing.T, storage logical.Storage) (*mount, *upstream, *clock) {
	t.Helper()
	up, c := &upstream{answer: usageAnswer(1000, 100)}, newClock()
	m := newMountOn(t, Options{Transport: up, Now: c.now}, storage)
	m.write("keys/a", openaiKey(secretA))
	m.write("roles/r", map[string]any{"key": "a"})
	return m, up, c
}

// costOf makes one request, and returns what the CLI's answer says it cost.
func (m *mount) costOf(model string) string {
	m.t.Helper()
	cost, ok := m.write("proxy/r", map[string]any{"model": model, "prompt": "Hello"}).Data["cost_usd"].(string)
	if !ok {
		m.t.Fatal("the answer has no cost_usd")
	}
	return cost
}

func TestPrices_TheBuiltInTableAnswersAndSaysWhy(t *testing.T) {
	m := newMount(t, Options{})
	data := m.read("prices/openai/gpt-4o-mini")
	wantFields(t, data, map[string]any{
		"provider": "openai", "model": "gpt-4o-mini", "priced": true, "matched": "openai/gpt-4o-mini", "source": "builtin",
		"per_request": "", "note": "",
	})
	rates, _ := data["usd_per_mtok"].(map[string]any)
	wantFields(t, rates, map[string]any{"input": "0.15", "cache_read": "0.075", "output": "0.6"})
	if rule, _ := data["rule"].(string); rule == "" {
		t.Error("no reason given")
	}
	if table, _ := data["table"].(string); !strings.Contains(table, "genai-prices") {
		t.Errorf("the table's source is %q", table)
	}
	dated := m.read("prices/openai/gpt-4o-mini-2024-07-18")
	if !reflect.DeepEqual(dated["usd_per_mtok"], data["usd_per_mtok"]) || dated["priced"] != true {
		t.Errorf("a dated snapshot costs %v", dated["usd_per_mtok"])
	}
	none := m.read("prices/openai/no-such-model")
	wantFields(t, none, map[string]any{"priced": false, "matched": "", "source": "", "usd_per_mtok": map[string]any{}})
	if rule, _ := none["rule"].(string); !strings.Contains(rule, "vault write") {
		t.Errorf("the way out is not said: %q", rule)
	}
	wantFields(t, m.read("prices/sandbox/sandbox-small:tokens=5"), map[string]any{"priced": true, "source": "sandbox"})
}

func TestPrices_AnOverrideWinsIsShownAndGoesWhenDeleted(t *testing.T) {
	m := newMount(t, Options{})
	builtin := m.read("prices/openai/gpt-4o")
	resp := m.write("prices/openai/gpt-4o", map[string]any{
		"input": "1.25", "cache_read": 0.5, "output": "10", "per_request": "0.005", "context_window": 4096, "note": "contract 7",
	})
	want := map[string]any{
		"source": "override", "matched": "openai/gpt-4o", "priced": true, "per_request": "0.005", "context_window": 4096, "note": "contract 7",
		"usd_per_mtok": map[string]any{"input": "1.25", "cache_read": "0.5", "output": "10"}, "tiers": map[string]any{},
	}
	wantFields(t, overJSON(t, resp.Data), want)
	wantFields(t, m.read("prices/openai/gpt-4o"), want)
	// A write replaces: what isn't named is gone.
	m.write("prices/openai/gpt-4o", map[string]any{"input": 0, "output": "0"})
	wantFields(t, m.read("prices/openai/gpt-4o"), map[string]any{
		"usd_per_mtok": map[string]any{"input": "0", "output": "0"}, "per_request": "", "note": "", "priced": true,
	})
	m.delete("prices/openai/gpt-4o")
	if now := m.read("prices/openai/gpt-4o"); !reflect.DeepEqual(now, builtin) {
		t.Errorf("after the deletion %v\nwant %v", now, builtin)
	}
	m.delete("prices/openai/gpt-4o") // once more is harmless
}

func TestPrices_NamesWithSlashesGlobsAndOtherLettersKeepTheirSpelling(t *testing.T) {
	m := newMount(t, Options{})
	names := []string{
		"meta-llama/Llama-3.3-70B-Instruct", "accounts/fireworks/models/*", "arn:aws:bedrock:eu-west-1:1:x/y", "模型-ü", "a%2Fb", "a%b", "a+b", "*", "ft:gpt-4o:org::id",
	}
	for i, name := range names {
		m.write("prices/together-ai/"+name, map[string]any{"input": fmt.Sprint(i + 1), "output": "1"})
	}
	listed, _ := m.must(logical.ListOperation, "prices/together-ai/", nil).Data["keys"].([]string)
	if len(listed) != len(names) {
		t.Errorf("listed are %q", listed)
	}
	for i, name := range names {
		data := m.read("prices/together-ai/" + name)
		rates, _ := data["usd_per_mtok"].(map[string]any)
		if data["matched"] != "together-ai/"+name || rates["input"] != fmt.Sprint(i+1) {
			t.Errorf("%s: matched %v at %v", name, data["matched"], rates)
		}
		found := false
		for _, l := range listed {
			found = found || l == name
		}
		if !found {
			t.Errorf("%s is not listed: %q", name, listed)
		}
	}
	wantFields(t, m.read("prices/together-ai/accounts/fireworks/models/x"), map[string]any{"matched": "together-ai/accounts/fireworks/models/*"})
	for _, name := range names {
		m.delete("prices/together-ai/" + name)
	}
	for key := range entries(t, m.storage) {
		if strings.HasPrefix(key, pricePrefix) {
			t.Errorf("%s is still in storage", key)
		}
	}
}

func TestPrices_AreListedByProviderAndNeverTakenForAnotherPath(t *testing.T) {
	m := newMount(t, Options{})
	m.write("prices/openai/b", map[string]any{"input": 1, "output": 1})
	m.write("prices/openai/a", map[string]any{"input": 1, "output": 1})
	m.write("prices/*/a", map[string]any{"input": 2, "output": 2})
	for path, want := range map[string][]string{"prices/": {"*/", "openai/"}, "prices/openai/": {"a", "b"}, "prices/openai": {"a", "b"}, "prices/*/": {"a"}} {
		if got := m.must(logical.ListOperation, path, nil).Data["keys"]; !reflect.DeepEqual(got, want) {
			t.Errorf("%s lists %q", path, got)
		}
	}
	wantFields(t, m.read("prices/*/a"), map[string]any{"matched": "*/a", "priced": true})
	wantFields(t, m.read("prices/openai/a"), map[string]any{"matched": "openai/a"})
	wantFields(t, m.read("prices/groq/a"), map[string]any{"matched": "*/a"})
}

func TestPrices_BadInputIsRefusedAndChangesNothing(t *testing.T) {
	m := newMount(t, Options{})
	for _, c := range []struct {
		path string
		data map[string]any
		want string
	}{
		{"prices/openia/m", map[string]any{"input": 1}, "openia"},
		{"prices/openai/m", map[string]any{}, "no price given"},
		{"prices/openai/m", map[string]any{"input": ""}, "no price given"},
		{"prices/openai/m", map[string]any{"inputt": 1}, `did you mean "input"`},
		{"prices/openai/m", map[string]any{"input": "-1", "output": 1}, "input"},
		{"prices/openai/m", map[string]any{"input": "$1", "output": 1}, "input"},
		{"prices/openai/m", map[string]any{"input": "1e3", "output": 1}, "input"},
		{"prices/openai/m", map[string]any{"input": "0.0000000001", "output": 1}, "input"},
		{"prices/openai/m", map[string]any{"input": "NaN", "output": 1}, "input"},
		{"prices/openai/m", map[string]any{"input": "1000001", "output": 1}, "check the unit"},
		{"prices/openai/m", map[string]any{"cache_read": "1"}, "part of input"},
		{"prices/openai/m", map[string]any{"input": 1, "per_request": "free"}, "per_request"},
		{"prices/openai/m", map[string]any{"input": 1, "context_window": -1}, "context_window"},
		{"prices/openai/m", map[string]any{"input": 1, "note": strings.Repeat("x", price.MaxNote+1)}, "note"},
		{"prices/openai/a b", map[string]any{"input": 1}, "model"},
		{"prices/openai/a..b", map[string]any{"input": 1}, "two dots"},
		{"prices/openai/" + strings.Repeat("x", 600), map[string]any{"input": 1}, "model"},
		{"prices/openai/m", map[string]any{"input": []any{1}}, "input must be text"},
	} {
		m.refused(logical.UpdateOperation, c.path, c.data, c.want)
	}
	m.refused(logical.ReadOperation, "prices/nobody/m", nil, "nobody")
	for key := range entries(t, m.storage) {
		if strings.HasPrefix(key, pricePrefix) {
			t.Errorf("%s was stored", key)
		}
	}
}

func TestPrices_AChangeAppliesFromTheNextRequestToTheModelsThatItNames(t *testing.T) {
	m, up, _ := newPricedMount(t, &logical.InmemStorage{})
	if got := m.costOf("own-model"); got != "" {
		t.Errorf("a model without a price cost %q", got)
	}
	m.write("prices/openai/own-*", map[string]any{"input": 1, "output": 10})
	if got := m.costOf("own-model"); got != "0.002" {
		t.Errorf("cost %q", got)
	}
	m.write("prices/openai/own-model", map[string]any{"input": 2, "output": 20})
	if got := m.costOf("own-model"); got != "0.004" {
		t.Errorf("the exact name cost %q", got)
	}
	if got := m.costOf("own-other"); got != "0.002" {
		t.Errorf("another model cost %q", got)
	}
	// A request under way keeps the price of its beginning.
	up.answer = func(r *http.Request) (*http.Response, error) {
		m.write("prices/openai/own-model", map[string]any{"input": 500, "output": 500})
		return usageAnswer(1000, 100)(r)
	}
	if got := m.costOf("own-model"); got != "0.004" {
		t.Errorf("a request under way cost %q", got)
	}
	up.answer = usageAnswer(1000, 100)
	if got := m.costOf("own-model"); got != "0.55" {
		t.Errorf("the next request cost %q", got)
	}
	m.write("prices/openai/own-model", map[string]any{"input": 0, "output": 0})
	if got := m.costOf("own-model"); got != "0" {
		t.Errorf("a model that is free cost %q", got)
	}
	m.delete("prices/openai/own-model")
	m.delete("prices/openai/own-*")
	if got := m.costOf("own-model"); got != "" {
		t.Errorf("after the deletion it cost %q", got)
	}
}

func TestPrices_AnotherNodesChangeAppliesAfterItsInvalidation(t *testing.T) {
	storage := &logical.InmemStorage{}
	here, _, _ := newPricedMount(t, storage)
	there := newMountOn(t, Options{}, storage)
	there.write("prices/openai/m/1", map[string]any{"input": 1, "output": 10})
	if got := here.costOf("m/1"); got != "0.002" { // first use: read from storage
		t.Fatalf("cost %q", got)
	}
	there.write("prices/openai/m/1", map[string]any{"input": 2, "output": 20})
	if got := here.costOf("m/1"); got != "0.002" {
		t.Fatal("prices are not kept in memory: the test proves nothing")
	}
	here.InvalidateKey(t.Context(), "roles/m")
	if got := here.costOf("m/1"); got != "0.002" {
		t.Errorf("another entry's invalidation had prices read again: %q", got)
	}
	here.InvalidateKey(t.Context(), overrideKey("openai", "m/1"))
	if got := here.costOf("m/1"); got != "0.004" {
		t.Errorf("after the invalidation it cost %q", got)
	}
}

func TestPrices_AWriteThatStorageRefusesLeavesTheOldPriceInForce(t *testing.T) {
	storage := &faultyStorage{Storage: &logical.InmemStorage{}}
	m, _, _ := newPricedMount(t, storage)
	m.write("prices/openai/m", map[string]any{"input": 1, "output": 10})
	for _, change := range []struct {
		op   logical.Operation
		data map[string]any
	}{{logical.UpdateOperation, map[string]any{"input": 9, "output": 9}}, {logical.DeleteOperation, nil}} {
		before := m.read("prices/openai/m")
		refusing := &refusingStorage{Storage: storage}
		m.storage = refusing
		if resp, err := m.call(change.op, "prices/openai/m", change.data); !errors.Is(err, errFault) || resp.IsError() {
			t.Errorf("%s: answered %v %v", change.op, resp, err)
		}
		m.storage = storage
		if now := m.read("prices/openai/m"); !reflect.DeepEqual(now, before) {
			t.Errorf("%s changed %v\nto %v", change.op, before, now)
		}
		if got := m.costOf("m"); got != "0.002" {
			t.Errorf("%s: cost %q", change.op, got)
		}
	}
}

// A write whose answer is lost may have been done: storage is asked what counts.
func TestPrices_AWriteWhoseAnswerIsLostCountsAsStorageHasIt(t *testing.T) {
	storage := &faultyStorage{Storage: &logical.InmemStorage{}}
	m, _, _ := newPricedMount(t, storage)
	m.write("prices/openai/m", map[string]any{"input": 1, "output": 10})
	m.costOf("m")
	m.storage = &lostAnswers{storage}
	if _, err := m.call(logical.UpdateOperation, "prices/openai/m", map[string]any{"input": 2, "output": 20}); !errors.Is(err, errFault) {
		t.Errorf("answered %v", err)
	}
	m.storage = storage
	if got := m.costOf("m"); got != "0.004" {
		t.Errorf("storage has the new price, and a request cost %q", got)
	}
}

// lostAnswers writes, and says that it didn't.
type lostAnswers struct{ logical.Storage }

func (s *lostAnswers) Put(ctx context.Context, entry *logical.StorageEntry) error {
	return errors.Join(s.Storage.Put(ctx, entry), errFault)
}

// refusingStorage takes no writes.
type refusingStorage struct{ logical.Storage }

func (s *refusingStorage) Put(context.Context, *logical.StorageEntry) error { return errFault }
func (s *refusingStorage) Delete(context.Context, string) error             { return errFault }

func (s *refusingStorage) direct() logical.Storage { return s.Storage }

func TestPrices_WhileStorageCannotBeReadNothingIsSentUnpriced(t *testing.T) {
	storage := &faultyStorage{Storage: &logical.InmemStorage{}}
	m, up, _ := newPricedMount(t, storage)
	if got := m.costOf("gpt-4o-mini"); got == "" {
		t.Fatal("no cost")
	}
	sent := len(up.requests())
	m.InvalidateKey(t.Context(), pricePrefix+"openai/x")
	storage.failLists(errFault)
	m.chat("r", "gpt-4o-mini").want(t, http.StatusServiceUnavailable, "storage_unavailable")
	if _, err := m.call(logical.ListOperation, "prices/", nil); !errors.Is(err, errFault) {
		t.Errorf("listing: %v", err)
	}
	if _, err := m.call(logical.ReadOperation, "prices/openai/x", nil); !errors.Is(err, errFault) {
		t.Errorf("reading: %v", err)
	}
	storage.disarm()
	if len(up.requests()) != sent {
		t.Error("a request was sent whose price couldn't be read")
	}
	m.chat("r", "gpt-4o-mini").want(t, http.StatusOK, "")
}

func TestPrices_ADamagedOverrideIsNamedAndCanBeDeleted(t *testing.T) {
	m, up, _ := newPricedMount(t, &logical.InmemStorage{})
	damage := func(value string) {
		t.Helper()
		key := overrideKey("openai", "gpt-4o")
		if err := m.storage.Put(t.Context(), &logical.StorageEntry{Key: key, Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
		m.InvalidateKey(t.Context(), key)
	}
	damage("{")
	answer := m.chat("r", "gpt-4o")
	answer.want(t, http.StatusServiceUnavailable, "storage_unavailable")
	if !strings.Contains(answer.Body, "prices/openai/gpt-4o") {
		t.Errorf("the damaged entry isn't named: %s", answer.Body)
	}
	wantNothingSent(t, up)
	m.delete("prices/openai/gpt-4o") // the way out
	if got := m.costOf("gpt-4o"); got == "" {
		t.Error("no cost after the way out")
	}
	// What decodes, and isn't valid, prices nothing: never at the table's price.
	damage(`{"provider":"openai","model":"gpt-4o","prices":{"input":-1,"output":1}}`)
	if got := m.costOf("gpt-4o"); got != "" {
		t.Errorf("cost %q by a negative price", got)
	}
	wantFields(t, m.read("prices/openai/gpt-4o"), map[string]any{"priced": false})
	if got := m.costOf("gpt-4o-mini"); got == "" {
		t.Error("another model has lost its price")
	}
}

func TestPrices_ConcurrentChangesAndCompletionsAreChargedAtOneOfThePrices(t *testing.T) {
	m, _, _ := newPricedMount(t, yieldingStorage{&logical.InmemStorage{}})
	m.write("prices/openai/m", map[string]any{"input": 1, "output": 1})
	valid := map[string]bool{"0.0011": true, "0.0022": true}
	var all sync.WaitGroup
	for n := range 3 {
		all.Go(func() {
			for i := range 30 {
				rate := 1 + (n+i)%2
				if _, err := m.call(logical.UpdateOperation, "prices/openai/m", map[string]any{"input": rate, "output": rate}); err != nil {
					t.Error(err)
				}
				m.InvalidateKey(t.Context(), overrideKey("openai", "m"))
			}
		})
		all.Go(func() {
			for range 30 {
				if got := m.costOf("m"); !valid[got] {
					t.Errorf("cost %q", got)
				}
			}
		})
	}
	all.Wait()
	last := m.read("prices/openai/m")["usd_per_mtok"].(map[string]any)["input"]
	want := map[any]string{"1": "0.0011", "2": "0.0022"}[last]
	if got := m.costOf("m"); got != want {
		t.Errorf("the price is %v, and a request cost %q", last, got)
	}
}
