// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"fmt"
	"maps"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// greeting is a chat template with one variable.
func greeting(text string) map[string]any {
	return map[string]any{
		"virtual_key": "r", "model": "gpt-4o-mini", "variables": "name",
		"messages": []any{map[string]any{"role": "user", "content": text + " {{name}}"}},
	}
}

// with is data and some more.
func with(data, more map[string]any) map[string]any {
	all := maps.Clone(data)
	maps.Copy(all, more)
	return all
}

// contents are the messages' texts of a version.
func (m *mount) contents(path string) string {
	m.t.Helper()
	data := m.read(path)
	if data == nil {
		return ""
	}
	var texts []string
	for _, message := range data["messages"].([]any) {
		texts = append(texts, message.(map[string]any)["content"].(string))
	}
	return strings.Join(texts, "|")
}

func TestPrompt_EachChangeIsAVersionAndTheFirstIsPublished(t *testing.T) {
	m, _, c := newProxyMount(t, nil)
	first := m.write("prompts/p", with(greeting("One"), map[string]any{"note": "n", "metadata": "a=b", "parameters": `{"temperature":0.2}`, "locked": "model"}))
	wantFields(t, overJSON(t, first.Data), map[string]any{
		"name": "p", "version": 1, "published_version": 1, "latest_version": 1, "virtual_key": "r", "model": "gpt-4o-mini", "prompt": "",
		"messages": []any{map[string]any{"role": "user", "content": "One {{name}}"}}, "parameters": map[string]any{"temperature": 0.2},
		"variables": []any{map[string]any{"name": "name", "required": true}}, "locked": []string{"model"}, "partials": map[string]any{},
		"note": "n", "metadata": map[string]any{"a": "b"}, "uses": []string{"name"}, "created_at": "2026-05-01T12:00:00Z", "updated_at": "2026-05-01T12:00:00Z",
	})
	if len(first.Warnings) != 0 {
		t.Errorf("warnings: %q", first.Warnings)
	}
	c.advance(3600e9)
	second := m.write("prompts/p", map[string]any{"messages": greeting("Two")["messages"]})
	wantWarning(t, second, "version 2 is stored and not published", "get version 1", "vault write <mount>/prompts/p/publish version=2")
	// What isn't named stays.
	wantFields(t, overJSON(t, second.Data), map[string]any{
		"version": 2, "published_version": 1, "latest_version": 2, "model": "gpt-4o-mini", "parameters": map[string]any{"temperature": 0.2},
		"locked": []string{"model"}, "note": "n", "id": first.Data["id"], "created_at": "2026-05-01T13:00:00Z",
	})
	for path, want := range map[string]string{
		"prompts/p": "One {{name}}", "prompts/p@1": "One {{name}}", "prompts/p@2": "Two {{name}}", "prompts/p@latest": "Two {{name}}",
		"prompts/p@3": "", "prompts/p@0": "", "prompts/p@01": "", "prompts/p@99999999999999999999": "", "prompts/p@first": "", "prompts/q": "", "prompts/q@1": "",
	} {
		if got := m.contents(path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	published := m.write("prompts/p/publish", map[string]any{"version": 2})
	wantFields(t, overJSON(t, published.Data), map[string]any{"published_version": 2, "previous_version": 1, "latest_version": 2})
	if got := m.contents("prompts/p"); got != "Two {{name}}" {
		t.Errorf("published: %q", got)
	}
	// Back again, and the latest by its word.
	m.write("prompts/p/publish", map[string]any{"version": "1"})
	m.write("prompts/p", greeting("Three"))
	m.write("prompts/p/publish", map[string]any{"version": "latest"})
	wantFields(t, m.read("prompts/p"), map[string]any{"version": 3, "published_version": 3})
	list := m.must(logical.ListOperation, "prompts/p/versions", nil)
	if got := list.Data["keys"]; !reflect.DeepEqual(got, []string{"1", "2", "3"}) {
		t.Errorf("versions: %v", got)
	}
	wantFields(t, overJSON(t, list.Data["key_info"].(map[string]any)), map[string]any{
		"1": map[string]any{"created_at": "2026-05-01T12:00:00Z", "published": false}, "3": map[string]any{"created_at": "2026-05-01T13:00:00Z", "published": true},
	})
	list = m.must(logical.ListOperation, "prompts/", nil)
	wantFields(t, overJSON(t, list.Data), map[string]any{"keys": []string{"p"}, "key_info": map[string]any{"p": map[string]any{
		"published_version": 3, "latest_version": 3, "virtual_key": "r", "model": "gpt-4o-mini", "note": "n", "updated_at": "2026-05-01T13:00:00Z",
	}}})
}

func TestPrompt_WritingWhatIsThereMakesNoVersion(t *testing.T) {
	m, _, _ := newProxyMount(t, nil)
	m.write("prompts/p", map[string]any{"virtual_key": "r", "messages": `[{"role":"user","content":"Hi <b>"}]`, "parameters": map[string]any{"seed": 1, "a": []any{1}}})
	for name, same := range map[string]map[string]any{
		"nothing": {}, "the same text": {"messages": `[{"role":"user","content":"Hi <b>"}]`},
		"in another order and spacing": {"messages": `[ {"content":"Hi \u003cb\u003e", "role":"user"} ]`},
		"decoded":                      {"messages": []any{map[string]any{"role": "user", "content": "Hi <b>"}}, "parameters": `{"a":[1],"seed":1}`},
		"the model that is none":       {"model": "portkey-default"},
	} {
		resp := m.write("prompts/p", same)
		wantWarning(t, resp, "nothing changes: no new version", "still version 1")
		if resp.Data["version"] != 1 {
			t.Errorf("%s made version %v", name, resp.Data["version"])
		}
	}
	before := m.read("prompts/p")
	resp := m.write("prompts/p", map[string]any{"note": "new", "metadata": "a=b"})
	wantWarning(t, resp, "note or metadata changed", "no new version")
	now := m.read("prompts/p")
	wantFields(t, now, map[string]any{"note": "new", "metadata": map[string]any{"a": "b"}, "version": 1, "id": before["id"]})
	// 9007199254740993 and …992 are one number to a float64.
	m.write("prompts/p", map[string]any{"messages": `[{"role":"user","content":[{"type":"text","text":"Hi","n":9007199254740993}]}]`})
	if got := m.write("prompts/p", map[string]any{"messages": `[{"role":"user","content":[{"type":"text","text":"Hi","n":9007199254740992}]}]`}).Data["version"]; got != 3 {
		t.Errorf("a number that differs made version %v", got)
	}
}

func TestPrompt_FieldsAreTakenInEveryFormThatCallersSend(t *testing.T) {
	m, _, _ := newProxyMount(t, nil)
	message := map[string]any{"role": "user", "content": "Hi {{name}}"}
	const text = `{"role":"user","content":"Hi {{name}}"}`
	for name, c := range map[string]struct{ given any }{
		"a list": {[]any{message}}, "an object": {message}, "JSON text of a list": {"[" + text + "]"}, "JSON text of an object": {text},
		"JSON text in a list": {[]any{text}}, "lists in a list": {[]any{"[" + text + "]", ""}}, "spaces around": {"\n [ " + text + " ] \n"},
	} {
		resp := m.write("prompts/a-"+strings.ReplaceAll(name, " ", "-"), map[string]any{"virtual_key": "r", "messages": c.given})
		wantFields(t, overJSON(t, resp.Data), map[string]any{"messages": []any{message}})
	}
	required, optional := map[string]any{"name": "name", "required": true}, map[string]any{"name": "tone", "required": false, "default": "a=b "}
	full := map[string]any{"name": "n", "required": false, "default": []any{1.0, "x"}, "description": "d"}
	for name, c := range map[string]struct {
		given any
		want  []any
	}{
		"one":               {"name", []any{required}},
		"some":              {[]any{"name", "tone=a=b "}, []any{required, map[string]any{"name": "tone", "required": false, "default": "a=b"}}},
		"objects":           {[]any{required, optional, full}, []any{required, optional, full}},
		"JSON text":         {`["name",{"name":"n","default":[1,"x"],"description":"d"}]`, []any{required, full}},
		"shorthand in JSON": {`["name","tone=a=b "]`, []any{required, optional}},
		"none":              {"", []any{}},
		"an empty default":  {"name=", []any{map[string]any{"name": "name", "required": false, "default": ""}}},
	} {
		resp := m.write("prompts/v-"+strings.ReplaceAll(name, " ", "-"), map[string]any{"virtual_key": "r", "messages": text, "variables": c.given})
		if got := overJSON(t, resp.Data)["variables"]; !reflect.DeepEqual(got, overJSON(t, map[string]any{"v": c.want})["v"]) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	resp := m.write("prompts/c", map[string]any{
		"virtual_key": " r ", "prompt": "  Say {{> who}}\n", "model": " m ", "locked": "model, max_tokens,model", "partials": `{"who":" {{name}} "}`,
	})
	wantFields(t, overJSON(t, resp.Data), map[string]any{
		"prompt": "  Say {{> who}}\n", "model": "m", "virtual_key": "r", "locked": []string{"model", "max_tokens"}, "partials": map[string]any{"who": " {{name}} "},
		"messages": []any{}, "uses": []string{"name"},
	})
	wantWarning(t, resp, `the variable "name" is used but not declared`)
}

func TestPrompt_WhatIsWrongIsRefusedAndChangesNothing(t *testing.T) {
	m, _, _ := newProxyMount(t, nil)
	m.write("prompts/there", greeting("Hi"))
	before := entries(t, m.storage)
	for name, c := range map[string]struct {
		data map[string]any
		says []string
	}{
		"no virtual key":          {map[string]any{"virtual_key": ""}, []string{"virtual_key is missing", "vault list <mount>/roles"}},
		"unknown virtual key":     {map[string]any{"virtual_key": "r2"}, []string{`no virtual key "r2"`}},
		"a misspelt field":        {map[string]any{"mesages": "[]"}, []string{`unknown field "mesages"`, `did you mean "messages"`}},
		"no text":                 {map[string]any{"messages": ""}, []string{"neither messages nor a prompt"}},
		"both texts":              {map[string]any{"prompt": "x"}, []string{"both messages and a prompt"}},
		"messages that aren't":    {map[string]any{"messages": "Hello"}, []string{"messages must be a JSON list of objects", "messages=@file"}},
		"broken JSON":             {map[string]any{"messages": `[{"role":"user"`}, []string{"messages must be a JSON list"}},
		"more behind JSON":        {map[string]any{"messages": `[] []`}, []string{"messages must be a JSON list"}},
		"a number for messages":   {map[string]any{"messages": []any{3}}, []string{"not a JSON object"}},
		"a role that is none":     {map[string]any{"messages": `{"role":"boss","content":"x"}`}, []string{"messages[0].role must be one of"}},
		"keys twice":              {map[string]any{"messages": `{"role":"user","content":"x","content":"y"}`}, []string{"twice"}},
		"an open section":         {map[string]any{"messages": `{"role":"user","content":"{{#a}}x"}`}, []string{"messages[0].content"}},
		"an unknown partial":      {map[string]any{"messages": `{"role":"user","content":"{{> a}}"}`}, []string{`no partial "a"`}},
		"a reserved parameter":    {map[string]any{"parameters": map[string]any{"messages": 1}}, []string{"messages"}},
		"a parameter twice":       {map[string]any{"parameters": map[string]any{"stop": 1, "Stop": 2}}, []string{"differ in case"}},
		"parameters as a list":    {map[string]any{"parameters": []any{1}}, []string{"parameters must be a JSON object"}},
		"a variable of no kind":   {map[string]any{"variables": []any{5}}, []string{"5 is no variable", "name=default"}},
		"a variable's odd field":  {map[string]any{"variables": []any{map[string]any{"name": "a", "requird": true}}}, []string{"is no variable"}},
		"a variable twice":        {map[string]any{"variables": []any{"name", "name=x"}}, []string{`"name" is declared twice`}},
		"a variable without name": {map[string]any{"variables": "=x"}, []string{"can't be called"}},
		"variables with a comma":  {map[string]any{"variables": "a,b"}, []string{"can't be called"}},
		"required with default":   {map[string]any{"variables": `{"name":"a","required":true,"default":1}`}, []string{"required and has a default"}},
		"a model with variables":  {map[string]any{"model": "{{m}}"}, []string{"model can't hold variables"}},
		"a locked empty name":     {map[string]any{"locked": []any{strings.Repeat("x", 200)}}, []string{"locked[0]"}},
		"too large":               {map[string]any{"messages": []any{map[string]any{"role": "user", "content": strings.Repeat("x", 300<<10)}}}, []string{"at most"}},
		"null":                    {map[string]any{"model": nil}, []string{"model is null"}},
		"a long note":             {map[string]any{"note": strings.Repeat("x", maxNoteLen+1)}, []string{"note is"}},
		"cas of another version":  {map[string]any{"cas": 7, "model": "m"}, []string{"cas is 7"}},
		"cas that is no number":   {map[string]any{"cas": "x"}, []string{"cas must be a whole number"}},
	} {
		t.Run(name, func(t *testing.T) {
			m.t = t
			m.refused(logical.UpdateOperation, "prompts/new", with(greeting("Hi"), c.data), c.says...)
			if name != "no virtual key" { // what isn't given stays
				m.refused(logical.UpdateOperation, "prompts/there", c.data, c.says...)
			}
		})
	}
	m.t = t
	m.refused(logical.UpdateOperation, "prompts/"+strings.Repeat("x", maxNameLen+1), greeting("Hi"), "the name is")
	m.refused(logical.PatchOperation, "prompts/new", map[string]any{"model": "m"}, "no such entry")
	m.refused(logical.UpdateOperation, "prompts/new/publish", map[string]any{"version": 1}, "no such entry")
	m.refused(logical.UpdateOperation, "prompts/there/publish", map[string]any{}, "version is missing")
	m.refused(logical.UpdateOperation, "prompts/there/publish", map[string]any{"version": 1, "x": 1}, "unknown field")
	for _, version := range []any{0, -1, 2, "2", "x", "1.0", 1.5, "01", "+1"} {
		m.refused(logical.UpdateOperation, "prompts/there/publish", map[string]any{"version": version}, `has no version`, "1 to 1")
	}
	for _, path := range []string{"prompts/schlüssel", "prompts/a b", "prompts/-a", "prompts/a@1@2", "prompts/a/b"} {
		m.refused(logical.ReadOperation, path, nil, "there is nothing at")
	}
	m.refused(logical.ReadOperation, "prompts/a..b", nil, "two dots")
	if now := entries(t, m.storage); !reflect.DeepEqual(now, before) {
		t.Errorf("storage changed from %v\nto %v", before, now)
	}
}

func TestPrompt_PatchMergesIntoTheLatest(t *testing.T) {
	m, _, _ := newProxyMount(t, nil)
	m.write("prompts/p", with(greeting("Hi"), map[string]any{
		"parameters": `{"temperature":0.2,"top_p":1}`, "partials": "a=1", "locked": "model", "note": "n", "metadata": "x=1",
	}))
	m.write("prompts/p", map[string]any{"model": "second"})
	resp := m.patch("prompts/p", map[string]any{
		"parameters": map[string]any{"temperature": nil, "stop": []any{"x"}}, "locked": nil, "model": nil, "partials": map[string]any{"b": "2"}, "metadata": map[string]any{"x": nil},
	})
	wantFields(t, overJSON(t, resp.Data), map[string]any{
		"version": 3, "parameters": map[string]any{"top_p": 1, "stop": []any{"x"}}, "locked": []any{}, "model": "", "partials": map[string]any{"a": "1", "b": "2"},
		"messages": greeting("Hi")["messages"], "variables": []any{map[string]any{"name": "name", "required": true}}, "note": "n", "metadata": map[string]any{},
	})
	resp = m.patch("prompts/p", map[string]any{"messages": nil, "prompt": "Hi {{name}}", "note": nil})
	wantFields(t, overJSON(t, resp.Data), map[string]any{"version": 4, "messages": []any{}, "prompt": "Hi {{name}}", "note": ""})
	m.refused(logical.PatchOperation, "prompts/p", map[string]any{"virtual_key": nil}, "virtual_key is missing")
	m.refused(logical.PatchOperation, "prompts/p", map[string]any{"nothing": 1}, "unknown field")
	wantFields(t, m.read("prompts/p"), map[string]any{"version": 1})
}

func TestPrompt_CheckAndSetRefusesWhatWasMadeWithAnotherVersionInMind(t *testing.T) {
	m, _, _ := newProxyMount(t, nil)
	m.refused(logical.UpdateOperation, "prompts/p", with(greeting("a"), map[string]any{"cas": 1}), "the latest version is 0")
	m.write("prompts/p", with(greeting("a"), map[string]any{"cas": 0}))
	m.refused(logical.UpdateOperation, "prompts/p", with(greeting("b"), map[string]any{"cas": 0}), "the latest version is 1")
	m.write("prompts/p", with(greeting("b"), map[string]any{"cas": "1"}))
	m.patch("prompts/p", map[string]any{"cas": 2, "model": "m"})
	m.refused(logical.PatchOperation, "prompts/p", map[string]any{"cas": 2, "model": "n"}, "the latest version is 3")
}

func TestPrompt_ConcurrentWritesAreVersionsOfTheirOwn(t *testing.T) {
	m, _, _ := newProxyMount(t, nil)
	m.storage = yieldingStorage{m.storage}
	const writers = 20
	versions := make([]int, writers)
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			resp := m.write("prompts/p", greeting(fmt.Sprint("text", i)))
			versions[i] = resp.Data["version"].(int)
		})
	}
	all.Wait()
	seen := map[int]bool{}
	for i, version := range versions {
		if seen[version] || version < 1 || version > writers {
			t.Errorf("versions: %v", versions)
		}
		seen[version] = true
		if got, want := m.contents("prompts/p@"+strconv.Itoa(version)), fmt.Sprintf("text%d {{name}}", i); got != want {
			t.Errorf("version %d is %q, want %q", version, got, want)
		}
	}
	wantFields(t, m.read("prompts/p"), map[string]any{"version": 1, "latest_version": writers})
	// With a check, one of many that know the same version gets through.
	var through sync.Map
	for i := range writers {
		all.Go(func() {
			if resp, err := m.call(logical.UpdateOperation, "prompts/p", with(greeting(fmt.Sprint("more", i)), map[string]any{"cas": writers})); err == nil && !resp.IsError() {
				through.Store(i, true)
			}
		})
	}
	all.Wait()
	n := 0
	through.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d writes with cas=%d got through", n, writers)
	}
}

func TestPrompt_VersionsAreBounded(t *testing.T) {
	m, _, _ := newProxyMount(t, nil)
	m.write("prompts/p", greeting("a"))
	h, err := m.prompts.heads.get(t.Context(), m.storage, "p")
	if err != nil {
		t.Fatal(err)
	}
	v, err := m.prompts.version(t.Context(), m.storage, h, 1)
	if err != nil {
		t.Fatal(err)
	}
	full := *h
	for range maxPromptVersions - 2 {
		full.Made = append(full.Made, h.UpdatedAt)
	}
	if err := m.prompts.add(t.Context(), m.storage, &full, v); err != nil {
		t.Fatal(err)
	}
	if got := m.write("prompts/p", greeting("b")).Data["version"]; got != maxPromptVersions {
		t.Fatalf("version %v", got)
	}
	m.refused(logical.UpdateOperation, "prompts/p", greeting("c"), "1000 versions, the most", "delete this one")
	wantWarning(t, m.write("prompts/p", map[string]any{"note": "still"}), "no new version")
	if size := len(entries(t, m.storage)["prompts/p"]); size > 64<<10 {
		t.Errorf("the entry has %d bytes", size)
	}
	list := m.must(logical.ListOperation, "prompts/p/versions", nil)
	if n := len(list.Data["keys"].([]string)); n != maxPromptVersions {
		t.Errorf("%d versions are listed", n)
	}
	m.write("prompts/p/publish", map[string]any{"version": maxPromptVersions})
	if got := m.contents("prompts/p"); got != "b {{name}}" {
		t.Errorf("the last version is %q", got)
	}
}

func TestPrompt_ATemplateMadeAnewHasNothingOfTheFormerOne(t *testing.T) {
	storage := &faultyStorage{Storage: &logical.InmemStorage{}}
	m := newMountOn(t, Options{Transport: &upstream{}}, storage)
	m.write("keys/a", openaiKey(secretA))
	m.write("roles/r", map[string]any{"key": "a"})
	for _, text := range []string{"one", "two", "three"} {
		m.write("prompts/p", greeting(text))
	}
	former := m.read("prompts/p")["id"]
	storage.arm(3, false) // the template and a version go; the next version stays
	m.delete("prompts/p")
	if !storage.disarm() || !strings.Contains(m.log.String(), "versions of a deleted prompt template stay") {
		t.Error("the failure was to be logged")
	}
	if m.read("prompts/p") != nil || m.read("prompts/p@2") != nil || m.must(logical.ListOperation, "prompts/p/versions", nil).Data["keys"] != nil {
		t.Error("something of the template is left to see")
	}
	m.write("prompts/p", greeting("new"))
	now := m.read("prompts/p")
	wantFields(t, now, map[string]any{"version": 1, "latest_version": 1})
	if now["id"] == former || m.read("prompts/p@2") != nil {
		t.Error("the new template is the old one")
	}
	m.write("prompts/p", greeting("newer"))
	if got := m.contents("prompts/p@2"); got != "newer {{name}}" {
		t.Errorf("version 2 is %q", got)
	}
	m.delete("prompts/p")
	m.delete("prompts/p") // which is no error
	for key := range entries(t, storage) {
		if strings.HasPrefix(key, "prompt") {
			t.Errorf("%s is left", key)
		}
	}
}

func TestPrompt_AVersionThatIsOfAnotherTemplateIsNeverUsed(t *testing.T) {
	m, _, _ := newProxyMount(t, nil)
	m.write("prompts/p", greeting("mine"))
	m.write("prompts/q", greeting("other"))
	foreign := entries(t, m.storage)["promptversions/q/1"]
	if err := m.storage.Put(t.Context(), &logical.StorageEntry{Key: "promptversions/p/1", Value: []byte(foreign)}); err != nil {
		t.Fatal(err)
	}
	m.Invalidate(t.Context(), "promptversions/p/1")
	if resp, err := m.call(logical.ReadOperation, "prompts/p", nil); err == nil {
		t.Errorf("read %v", resp.Data)
	}
	m.promptAs("", "p/render", map[string]any{"variables": map[string]any{"name": "x"}}).want(t, 503, "storage_unavailable")
}

// TestPrompt_WhatAnotherNodeChangesIsSeen: this node has it in memory, and Vault says
// that its entries changed.
func TestPrompt_WhatAnotherNodeChangesIsSeen(t *testing.T) {
	m, _, _ := newProxyMount(t, nil)
	other := newMountOn(t, Options{Transport: &upstream{}}, m.storage)
	m.write("prompts/p", greeting("one"))
	if got := other.contents("prompts/p"); got != "one {{name}}" {
		t.Fatalf("the other node reads %q", got)
	}
	tell := func(keys ...string) {
		for _, key := range keys {
			other.Invalidate(t.Context(), key)
		}
	}
	m.write("prompts/p", greeting("two"))
	m.write("prompts/p/publish", map[string]any{"version": 2})
	tell("prompts/p")
	if got := other.contents("prompts/p"); got != "two {{name}}" {
		t.Errorf("after a publication, the other node reads %q", got)
	}
	m.delete("prompts/p")
	m.write("prompts/p", greeting("anew"))
	tell("prompts/p", "promptversions/p/1", "promptversions/p/2")
	if got := other.contents("prompts/p"); got != "anew {{name}}" {
		t.Errorf("after a deletion, the other node reads %q", got)
	}
	m.delete("prompts/p")
	tell("prompts/p", "promptversions/p/1")
	if got := other.contents("prompts/p"); got != "" {
		t.Errorf("the other node still reads %q", got)
	}
}
