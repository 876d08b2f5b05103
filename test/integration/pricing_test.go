// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"vault-plugin-secrets-portkey/test/upstream"
)

// pricing: which price holds, and what becomes of models without one.
func (s *suite) pricing(t *testing.T) {
	t.Run("AModelWithoutAPriceIsUnpricedUntilItGetsOne", s.unpriced)
	t.Run("AnOverrideReplacesTheBuiltInPriceAndItsDeletionRestoresIt", s.override)
	t.Run("ModelsWithSlashesAndGlobsAreListedReadAndDeleted", s.oddModels)
	t.Run("PricesThatCannotBeAre400", s.badPrices)
}

func (s *suite) unpriced(t *testing.T) {
	const model = "house-model"
	secret := s.secret()
	up := s.provider(t, upstream.Options{Keys: []string{secret}, Models: []string{model}})
	s.key(t, mount, "house", up, secret)
	app := s.app(t, mount, "house", map[string]any{"key": "house"})
	path := mount + "/prices/openai-compatible/" + model
	ask := func() { wantCompletion(t, post(t, app, chatPath(mount, "house"), s.chat(model))) }
	wantPriced := func(priced bool, source string) {
		t.Helper()
		data := s.root.Read(t, path).Data()
		if data["priced"] != priced || data["source"] != source {
			t.Errorf("%s is %v, expected priced=%t by %q", path, data, priced, source)
		}
		if rule, _ := data["rule"].(string); !priced && !strings.Contains(rule, "vault write <mount>/prices/") {
			t.Errorf("it gives no hint, but %q", rule)
		}
	}

	wantPriced(false, "")
	ask()
	want := spent(1, s.promptTokens(), 5, "0")
	want.Unpriced = 1
	s.wantUsage(t, mount, "house", want)

	// A timeout or the like of such a model is no more priced than that.
	wantStatus(t, post(t, app, chatPath(mount, "house"), s.chat("up-reset")), http.StatusBadGateway)
	got := usageOf(t, s.root, mount+"/usage/house?group_by=model").Rows
	if i := slices.IndexFunc(got, func(c counts) bool { return c.Model == "up-reset" }); i < 0 || got[i].Unpriced != 0 || got[i].Unconfirmed != 1 {
		t.Errorf("the rows are %+v", got)
	}

	s.root.Write(t, path, map[string]any{"input": inputPrice, "output": outputPrice, "note": "ours"})
	wantPriced(true, "override")
	ask()
	cost := completionUSD(s.promptTokens(), 5)
	wantRow := func(requests, unpriced int64) {
		t.Helper()
		want := spent(requests, requests*s.promptTokens(), requests*5, cost)
		want.Model, want.Unpriced = model, unpriced
		rows := usageOf(t, s.root, mount+"/usage/house?group_by=model").Rows
		if !slices.Contains(rows, want) {
			t.Errorf("the rows are\n%+v\nexpected among them\n%+v", rows, want)
		}
	}
	wantRow(2, 1)

	// Zero is a price when it is said.
	s.root.Write(t, path, map[string]any{"input": "0", "output": 0})
	wantPriced(true, "override")
	ask()
	wantRow(3, 1)

	s.root.Delete(t, path)
	wantPriced(false, "")
	ask()
	wantRow(4, 2)
}

func (s *suite) override(t *testing.T) {
	up, secret := s.own(t, mount, "openai")
	s.root.Write(t, mount+"/keys/openai", map[string]any{"provider": "openai", "base_url": up.URL(), "api_key": secret})
	app := s.app(t, mount, "openai", map[string]any{"key": "openai"})
	path := mount + "/prices/openai/gpt-4o-mini"
	var total counts
	costs := func(source, cost string) {
		t.Helper()
		data := s.root.Read(t, path).Data()
		if data["source"] != source || data["matched"] == "" || data["rule"] == "" || data["table"] == "" {
			t.Errorf("%s is %v, expected it from %q", path, data, source)
		}
		wantCompletion(t, post(t, app, chatPath(mount, "openai"), s.chat("gpt-4o-mini")))
		total.add(spent(1, s.promptTokens(), 5, cost))
		s.wantUsage(t, mount, "openai", total)
	}
	// OpenAI's published prices of it: 0.15 and 0.60 USD.
	builtIn := usd(tokens{s.promptTokens(), "0.15"}, tokens{5, "0.60"})
	costs("builtin", builtIn)
	s.root.Write(t, path, map[string]any{"input": inputPrice, "output": outputPrice, "per_request": "0.000000007"})
	costs("override", sum(completionUSD(s.promptTokens(), 5), "0.000000007"))
	s.root.Delete(t, path)
	costs("builtin", builtIn)
}

func (s *suite) oddModels(t *testing.T) {
	for _, model := range []string{"vendor/model-1", "any-*", "a%2Fc", "ft:gpt-4o:org::id"} {
		path := mount + "/prices/vllm/" + strings.ReplaceAll(model, "%", "%25")
		s.root.Write(t, path, map[string]any{"input": "1", "output": "2"})
		if data := s.root.Read(t, path).Data(); data["model"] != model || data["source"] != "override" || data["matched"] != "vllm/"+model {
			t.Errorf("%q: %v", model, data)
		}
		if names := s.root.List(t, mount+"/prices/vllm"); !slices.Equal(names, []string{model}) {
			t.Errorf("%q: listed are %q", model, names)
		}
		s.root.Delete(t, path)
		if data := s.root.Read(t, path).Data(); data["priced"] != false {
			t.Errorf("%q after its deletion: %v", model, data)
		}
	}
	if names := s.root.List(t, mount+"/prices"); !slices.Contains(names, "openai-compatible/") {
		t.Errorf("providers with overrides are %q", names)
	}
}

func (s *suite) badPrices(t *testing.T) {
	for _, c := range []struct {
		path string
		body map[string]any
		says string
	}{
		{"openai/x", map[string]any{}, "explicitly"},
		{"openai/x", map[string]any{"input": "cheap", "output": "1"}, "input"},
		{"openai/x", map[string]any{"input": "-1", "output": "1"}, "negative"},
		{"openai/x", map[string]any{"input": "1e3", "output": "1"}, "input"},
		{"openai/x", map[string]any{"input": "0.0000000001", "output": "1"}, "nine"},
		{"openai/x", map[string]any{"input": "99999999", "output": "1"}, "unit"},
		{"openai/x", map[string]any{"cache_read": "1"}, "input"},
		{"openai/x", map[string]any{"imput": "1", "output": "1"}, "input"},
		{"opena/x", map[string]any{"input": "1", "output": "1"}, "openai"},
	} {
		resp := post(t, s.root, mount+"/prices/"+c.path, c.body)
		if resp.Status != http.StatusBadRequest || !strings.Contains(strings.Join(resp.Errors(), " "), c.says) {
			t.Errorf("%s %v: %s, expected a 400 that says %q", c.path, c.body, resp, c.says)
		}
	}
	if names := s.root.List(t, mount+"/prices/openai"); len(names) != 0 {
		t.Errorf("stored are %q", names)
	}
}
