// SPDX-License-Identifier: MPL-2.0

package provider

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

const testSecret = "sk-Test/very+distinctive=0123456789"

func load(t testing.TB) *Catalogue {
	t.Helper()
	c, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func get(t testing.TB, id string) *Provider {
	t.Helper()
	p, ok := load(t).Get(id)
	if !ok {
		t.Fatalf("no provider %q", id)
	}
	return p
}

// plainConfig is the least that a key of p needs.
func plainConfig(p *Provider) Config {
	c := Config{Fields: map[string]string{}}
	if p.Secret == SecretRequired {
		c.Secret = testSecret
	}
	if p.BaseURL == "" {
		c.BaseURL = "http://localhost:11434/v1"
	}
	samples := map[string]string{"resource": "my-resource", "region": "us-west-2"}
	for _, f := range p.Fields {
		if f.Required {
			c.Fields[f.Name] = samples[f.Name]
		}
	}
	return c
}

func resolve(t testing.TB, p *Provider, c Config) *Target {
	t.Helper()
	target, err := p.Resolve(c)
	if err != nil {
		t.Fatalf("Resolve(%s): %v", p.ID, err)
	}
	return target
}

func TestLoad_EveryEntryIsCompleteAndResolves(t *testing.T) {
	c := load(t)
	for _, id := range c.IDs() {
		p, ok := c.Get(id)
		if !ok || p.ID != id {
			t.Errorf("Get(%q) = %v, %v", id, p, ok)
			continue
		}
		target, err := p.Resolve(plainConfig(p))
		if err != nil {
			t.Errorf("%s: %v", id, err)
			continue
		}
		method, e, body, accepts := target.Probe()
		if method == "" || e.URL.Host == "" || !accepts(200) || accepts(401) || accepts(500) {
			t.Errorf("%s: probe %s %s accepts 200 %t, 401 %t", id, method, e.URL, accepts(200), accepts(401))
		}
		if method == "POST" && strings.HasSuffix(e.URL.Path, "s") && string(body) != "{}" {
			t.Errorf("%s: a probe of an endpoint that bills has the body %q, which might succeed", id, body)
		}
	}
}

func TestLoad_GivesAFreshValueThatACallerCannotSpoil(t *testing.T) {
	c := load(t)
	c.IDs()[0] = "spoilt"
	if slices.Contains(c.IDs(), "spoilt") {
		t.Error("IDs gives away the catalogue's own slice")
	}
	p, _ := c.Get("openai")
	p.Name = "spoilt"
	if get(t, "openai").Name == "spoilt" {
		t.Error("two loads share an entry")
	}
}

func TestCatalogue_EveryBaseURLIsHTTPSExceptTheSandboxAndGivenOnes(t *testing.T) {
	c := load(t)
	given := []string{"ollama", "openai-compatible", "vllm"}
	for _, id := range c.IDs() {
		p, _ := c.Get(id)
		if p.BaseURL == "" {
			if !slices.Contains(given, id) {
				t.Errorf("%s: no base URL", id)
			}
			continue
		}
		scheme := resolve(t, p, plainConfig(p)).Base().Scheme
		if want := map[bool]string{true: "sandbox", false: "https"}[id == "sandbox"]; scheme != want {
			t.Errorf("%s: scheme %q, want %q", id, scheme, want)
		}
	}
}

// chatURLs is where each provider documents what an OpenAI SDK calls
// chat/completions, or embeddings where it has no chat.
func chatURLs() map[string]string {
	return map[string]string{
		"ai21":              "https://api.ai21.com/studio/v1/chat/completions",
		"anthropic":         "https://api.anthropic.com/v1/chat/completions",
		"azure-openai":      "https://my-resource.openai.azure.com/openai/v1/chat/completions",
		"bedrock":           "https://bedrock-runtime.us-west-2.amazonaws.com/openai/v1/chat/completions",
		"cerebras":          "https://api.cerebras.ai/v1/chat/completions",
		"cohere":            "https://api.cohere.com/compatibility/v1/chat/completions",
		"deepinfra":         "https://api.deepinfra.com/v1/openai/chat/completions",
		"deepseek":          "https://api.deepseek.com/v1/chat/completions",
		"fireworks-ai":      "https://api.fireworks.ai/inference/v1/chat/completions",
		"google":            "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions",
		"groq":              "https://api.groq.com/openai/v1/chat/completions",
		"huggingface":       "https://router.huggingface.co/v1/chat/completions",
		"jina":              "https://api.jina.ai/v1/embeddings",
		"mistral-ai":        "https://api.mistral.ai/v1/chat/completions",
		"moonshot":          "https://api.moonshot.ai/v1/chat/completions",
		"novita-ai":         "https://api.novita.ai/openai/v1/chat/completions",
		"nvidia":            "https://integrate.api.nvidia.com/v1/chat/completions",
		"ollama":            "http://localhost:11434/v1/chat/completions",
		"openai":            "https://api.openai.com/v1/chat/completions",
		"openai-compatible": "http://localhost:11434/v1/chat/completions",
		"openrouter":        "https://openrouter.ai/api/v1/chat/completions",
		"perplexity-ai":     "https://api.perplexity.ai/chat/completions",
		"sambanova":         "https://api.sambanova.ai/v1/chat/completions",
		"sandbox":           "sandbox://sandbox/v1/chat/completions",
		"together-ai":       "https://api.together.ai/v1/chat/completions",
		"vllm":              "http://localhost:11434/v1/chat/completions",
		"voyage":            "https://api.voyageai.com/v1/embeddings",
		"x-ai":              "https://api.x.ai/v1/chat/completions",
		"z-ai":              "https://api.z.ai/api/paas/v4/chat/completions",
	}
}

func TestCatalogue_ChatPathReachesTheDocumentedURLOfEveryProvider(t *testing.T) {
	c, want := load(t), chatURLs()
	if len(want) != len(c.IDs()) {
		t.Errorf("the table has %d providers, the catalogue %d", len(want), len(c.IDs()))
	}
	for _, id := range c.IDs() {
		p, _ := c.Get(id)
		path := "v1/chat/completions"
		if strings.HasSuffix(want[id], "/embeddings") {
			path = "v1/embeddings"
		}
		e, err := resolve(t, p, plainConfig(p)).Locate(path, "")
		if err != nil {
			t.Errorf("%s: %v", id, err)
			continue
		}
		if e.URL.String() != want[id] || e.Format != "openai" {
			t.Errorf("%s: %s reaches %s (%s), want %s", id, path, e.URL, e.Format, want[id])
		}
	}
}

func TestCatalogue_EveryRouteStaysBelowTheBaseURL(t *testing.T) {
	c := load(t)
	for _, id := range c.IDs() {
		p, _ := c.Get(id)
		target := resolve(t, p, plainConfig(p))
		for _, r := range p.Routes {
			e, err := target.Locate(r.Prefix+"/x/y", "a=b")
			if err != nil {
				t.Errorf("%s %s: %v", id, r.Prefix, err)
				continue
			}
			want := target.Base()
			want.Path += r.To + "/x/y"
			want.RawQuery = "a=b"
			if e.URL.String() != want.String() {
				t.Errorf("%s %s: %s, want %s", id, r.Prefix, e.URL, want)
			}
		}
	}
}

// docsRow is p's line in docs/providers.md.
func docsRow(p *Provider) string {
	base := "given by the key: " + p.BaseURLHelp
	if p.BaseURL != "" {
		base = "`" + p.BaseURL + "`"
	}
	fields := make([]string, 0, len(p.Fields))
	for _, f := range p.Fields {
		text := fmt.Sprintf("`%s`: %s", f.Name, f.Description)
		if f.Required {
			text += " (required)"
		}
		fields = append(fields, text)
	}
	routes := make([]string, 0, len(p.Routes))
	for _, r := range slices.Backward(p.Routes) {
		routes = append(routes, fmt.Sprintf("`%s` → base`%s`", r.Prefix, r.To))
		if r.To == "" {
			routes[len(routes)-1] = fmt.Sprintf("`%s` → base", r.Prefix)
		}
	}
	notes := p.Note
	if p.BaseURL != "" && p.BaseURLHelp != "" {
		notes = strings.TrimSpace(notes + " As `base_url` give " + p.BaseURLHelp + ".")
	}
	cells := []string{"`" + p.ID + "`", p.Name, base, string(p.Secret), strings.Join(fields, "; "), strings.Join(routes, "; "), notes}
	for i, cell := range cells {
		cells[i] = " " + cell + " "
		if cell == "" {
			cells[i] = " "
		}
	}
	return "|" + strings.Join(cells, "|") + "|"
}

func TestDocs_ListEveryProviderAsTheCatalogueHasIt(t *testing.T) {
	doc, err := os.ReadFile("../../docs/providers.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(doc), "\n")
	c := load(t)
	for _, id := range c.IDs() {
		p, _ := c.Get(id)
		if row := docsRow(p); !slices.Contains(lines, row) {
			t.Errorf("docs/providers.md lacks this line:\n%s", row)
		}
	}
	for _, line := range lines {
		id, _, _ := strings.Cut(strings.TrimPrefix(line, "| `"), "`")
		if _, ok := c.Get(id); strings.HasPrefix(line, "| `") && !ok {
			t.Errorf("docs/providers.md lists %q, which the catalogue doesn't have", id)
		}
	}
}
