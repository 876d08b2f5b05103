// SPDX-License-Identifier: MPL-2.0

package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Parse reads a catalogue: {"providers":[…]}, and beside it the globs of models
// that hold whoever serves them. It is strict, so that a slip in the data is an
// error here and not a request to the wrong place: unknown JSON fields are
// refused, every rule of the types is checked, and errors name the entry.
func Parse(data []byte) (*Catalogue, error) {
	var doc struct {
		ReasoningModels globs             `json:"reasoning_models"`
		OpenEndedModels globs             `json:"open_ended_models"`
		MaxOutputs      []OutputLimit     `json:"max_output"`
		Providers       []json.RawMessage `json:"providers"`
	}
	if err := decodeStrict(data, &doc); err != nil {
		return nil, fmt.Errorf("provider catalogue: %w", err)
	}
	if len(doc.Providers) == 0 {
		return nil, errors.New("provider catalogue: it has no providers")
	}
	c := &Catalogue{byID: make(map[string]*Provider, len(doc.Providers))}
	for i, raw := range doc.Providers {
		p, err := parseEntry(raw, doc.ReasoningModels, doc.OpenEndedModels, doc.MaxOutputs)
		if err != nil {
			return nil, fmt.Errorf("provider catalogue: entry %d (id %q): %w", i+1, p.ID, err)
		}
		if _, ok := c.byID[p.ID]; ok {
			return nil, fmt.Errorf("provider catalogue: entry %d (id %q): the id is taken", i+1, p.ID)
		}
		c.byID[p.ID] = p
		c.ids = append(c.ids, p.ID)
	}
	slices.Sort(c.ids)
	return c, nil
}

// parseEntry returns a provider even with an error, for its id. To its own globs
// of models it adds those of all providers; its own maximum of output goes first.
func parseEntry(raw json.RawMessage, reasoning, openEnded globs, maxOutputs []OutputLimit) (*Provider, error) {
	p := new(Provider)
	if err := decodeStrict(raw, p); err != nil {
		return p, err
	}
	p.ReasoningModels = slices.Concat(reasoning, p.ReasoningModels)
	p.OpenEndedModels = slices.Concat(openEnded, p.OpenEndedModels)
	p.MaxOutputs = slices.Concat(p.MaxOutputs, maxOutputs)
	checks := []func() error{
		p.checkIdentity, p.checkAuth, p.checkHeaders, p.checkFields, p.checkBase,
		p.checkFormats, p.checkRoutes, p.checkVerify, p.checkModels,
	}
	for _, check := range checks {
		if err := check(); err != nil {
			return p, err
		}
	}
	return p, nil
}

func decodeStrict(data []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something after the end of the JSON value")
	}
	return nil
}

func (p *Provider) checkIdentity() error {
	if !isName(p.ID, '-') {
		return errors.New("id must be lower-case letters, digits and single hyphens, 64 at most")
	}
	if p.Name == "" {
		return errors.New("name is missing")
	}
	for _, s := range []string{p.Name, p.Note, p.BaseURLHelp} {
		if strings.ContainsAny(s, "\r\n|") || strings.TrimSpace(s) != s {
			return errors.New("name, note and base_url_help must be one line without '|' (they stand in tables)")
		}
	}
	if p.DocsURL == "" && p.FixedBase {
		return nil
	}
	if u, err := url.Parse(p.DocsURL); err != nil || u.Scheme != "https" || u.Host == "" {
		return errors.New("docs_url must be an https URL: the page that the facts come from")
	}
	return nil
}

func (p *Provider) checkAuth() error {
	if !slices.Contains([]SecretUse{SecretRequired, SecretOptional, SecretNone}, p.Secret) {
		return fmt.Errorf("secret %q must be required, optional or none", p.Secret)
	}
	return p.checkScheme("auth", &p.Auth)
}

// checkScheme checks a and makes its header's name canonical.
func (p *Provider) checkScheme(what string, a *Auth) error {
	switch a.Scheme {
	case SchemeHeader:
		// Authenticate takes such headers from callers away by their names.
		if !isHeaderName(a.Header) || !carriesCredential(a.Header) {
			return fmt.Errorf("%s.header %q must be the name of a header that carries a key", what, a.Header)
		}
		a.Header = http.CanonicalHeaderKey(a.Header)
	case SchemeBearer, SchemeNone:
		if a.Header != "" {
			return fmt.Errorf("%s.header belongs to the scheme header only", what)
		}
	default:
		return fmt.Errorf("%s.scheme %q must be bearer, header or none", what, a.Scheme)
	}
	if (a.Scheme == SchemeNone) != (p.Secret == SecretNone) {
		return fmt.Errorf("%s.scheme %q doesn't go with secret %q", what, a.Scheme, p.Secret)
	}
	return nil
}

func (p *Provider) checkHeaders() error {
	canonical := make(map[string]string, len(p.Headers))
	for name, value := range p.Headers {
		key, err := checkHeader(name, value)
		if err != nil {
			return fmt.Errorf("headers: %w", err)
		}
		if _, ok := canonical[key]; ok {
			return fmt.Errorf("headers: %q is there twice", key)
		}
		canonical[key] = value
	}
	p.Headers = canonical
	return nil
}

// commonField reports whether every provider key has a field of this name.
func commonField(name string) bool {
	switch name {
	case "name", "provider", "api_key", "base_url", "headers", "note", "metadata", "verify",
		"fingerprint", "version", "created_at", "rotated_at":
		return true
	}
	return false
}

func (p *Provider) checkFields() error {
	names, headers := map[string]bool{}, map[string]bool{}
	for i := range p.Fields {
		f := &p.Fields[i]
		if err := p.checkField(f); err != nil {
			return fmt.Errorf("field %q: %w", f.Name, err)
		}
		if names[f.Name] {
			return fmt.Errorf("field %q is there twice", f.Name)
		}
		names[f.Name] = true
		if f.Header == "" {
			continue
		}
		if _, ok := p.Headers[f.Header]; ok || headers[f.Header] {
			return fmt.Errorf("field %q: header %q is there twice", f.Name, f.Header)
		}
		headers[f.Header] = true
	}
	return nil
}

// checkField checks f, compiles its pattern and makes its header's name
// canonical.
func (p *Provider) checkField(f *Field) error {
	switch {
	case !isName(f.Name, '_') || commonField(f.Name):
		return errors.New("name must be lower-case letters, digits and single underscores, and no field of every key")
	case f.Description == "":
		return errors.New("description is missing")
	case !strings.HasPrefix(f.Pattern, "^") || !strings.HasSuffix(f.Pattern, "$"):
		return errors.New("pattern must start with ^ and end with $")
	}
	// The group keeps a|b from escaping the anchors.
	match, err := regexp.Compile(`\A(?:` + f.Pattern + `)\z`)
	if err != nil {
		return fmt.Errorf("pattern: %w", err)
	}
	f.match = match
	placed := strings.Contains(p.BaseURL, "{"+f.Name+"}")
	if f.Header == "" {
		if !placed || !f.Required {
			return errors.New("without a header it must be required, and stand as {name} in base_url")
		}
		return nil
	}
	if placed {
		return errors.New("it has a header and stands in base_url too")
	}
	f.Header, err = checkHeader(f.Header, "x")
	return err
}

func (p *Provider) checkBase() error {
	if p.BaseURL == "" {
		if p.FixedBase || p.BaseURLHelp == "" {
			return errors.New("without base_url it needs base_url_help, and can't have fixed_base")
		}
		return nil
	}
	example := p.BaseURL
	for i := range p.Fields {
		example = strings.ReplaceAll(example, "{"+p.Fields[i].Name+"}", "x")
	}
	scheme := "https"
	if p.FixedBase {
		scheme = URLSchemeSandbox
		if p.Secret != SecretNone || p.BaseURLHelp != "" {
			return errors.New("fixed_base goes with secret none, and without base_url_help")
		}
	}
	// A placeholder without a field still has its braces, which no host or
	// path of a catalogue has.
	if strings.ContainsAny(example, "{}") {
		return errors.New("base_url has a placeholder that no field fills")
	}
	u, err := parseBase(example, scheme)
	if err != nil {
		return err
	}
	if u.String() != example {
		return fmt.Errorf("base_url must be written in its plain form, %s", u)
	}
	return nil
}

func (p *Provider) checkFormats() error {
	for i, format := range p.Formats {
		if !isName(format, '-') || slices.Contains(p.Formats[:i], format) {
			return fmt.Errorf("format %q must be a lower-case name, given once", format)
		}
		speaks := func(r Route) bool { return r.Format == format }
		if !slices.ContainsFunc(p.Routes, speaks) {
			return fmt.Errorf("format %q is spoken on no route", format)
		}
	}
	if len(p.Formats) == 0 {
		return errors.New("formats is empty")
	}
	return nil
}

// checkRoutes checks the routes and sorts them, longest prefix first.
func (p *Provider) checkRoutes() error {
	seen := map[string]bool{}
	addsVersion := false
	for i := range p.Routes {
		r := &p.Routes[i]
		if err := p.checkRoute(r); err != nil {
			return fmt.Errorf("route %q: %w", r.Prefix, err)
		}
		if seen[r.Prefix] {
			return fmt.Errorf("route %q is there twice", r.Prefix)
		}
		seen[r.Prefix] = true
		addsVersion = addsVersion || r.To != "" && !strings.Contains(r.Prefix, "/")
	}
	slices.SortFunc(p.Routes, func(a, b Route) int {
		if len(a.Prefix) != len(b.Prefix) {
			return len(b.Prefix) - len(a.Prefix)
		}
		return strings.Compare(a.Prefix, b.Prefix)
	})
	// There the base URL isn't the one that people know from their SDK.
	if addsVersion && p.BaseURLHelp == "" && !p.FixedBase {
		return errors.New("a route adds to what an SDK's base URL ends in, so base_url_help must say what to give")
	}
	return nil
}

func (p *Provider) checkRoute(r *Route) error {
	if err := checkPath(r.Prefix); err != nil {
		return fmt.Errorf("prefix: %w", err)
	}
	if err := checkSuffix(r.To); r.To != "" && err != nil {
		return fmt.Errorf("to: %w", err)
	}
	if !slices.Contains(p.Formats, r.Format) {
		return fmt.Errorf("format %q is not among formats", r.Format)
	}
	if r.Auth != nil {
		return p.checkScheme("auth", r.Auth)
	}
	return nil
}

func (p *Provider) checkVerify() error {
	v := &p.Verify
	if v.Method != http.MethodGet && v.Method != http.MethodPost {
		return fmt.Errorf("verify.method %q must be GET or POST", v.Method)
	}
	if err := checkSuffix(v.Path); err != nil {
		return fmt.Errorf("verify.path: %w", err)
	}
	if v.Method == http.MethodGet && len(v.Body) > 0 {
		return errors.New("verify.body doesn't go with GET")
	}
	for _, status := range slices.Concat(v.Valid, v.Refused) {
		if status < 400 || status > 499 || status == http.StatusUnauthorized || status == http.StatusForbidden {
			return fmt.Errorf("verify: status %d must be 400 to 499, and neither 401 nor 403, which always mean refused", status)
		}
		if slices.Contains(v.Valid, status) && slices.Contains(v.Refused, status) {
			return fmt.Errorf("verify: status %d can't mean both valid and refused", status)
		}
	}
	return nil
}

// checkSuffix checks what is appended to a base URL.
func checkSuffix(path string) error {
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return fmt.Errorf("%q must start with a slash", path)
	}
	return checkPath(rest)
}

// isName reports whether s is made of lower-case letters and digits, starts
// with a letter, and has only single separators between them.
func isName(s string, separator byte) bool {
	if s == "" || len(s) > 64 || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		lower := isAlphanumeric(c) && (c < 'A' || c > 'Z')
		if !lower && (c != separator || i == len(s)-1 || s[i+1] == separator) {
			return false
		}
	}
	return true
}
