// SPDX-License-Identifier: MPL-2.0

package provider

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// The bounds of a secret, in bytes. A shorter one would be found by chance in
// ordinary answers and couldn't be redacted; a longer one, with every byte
// escaped, would not fit the relay's copy buffer.
const (
	minSecret = 8
	maxSecret = 4096
)

// maxHeaders bounds the number of extra headers of a provider key.
const maxHeaders = 32

// Config is what a stored provider key says about its upstream. The zero value
// of a field means "not given".
type Config struct {
	// BaseURL replaces the provider's own.
	BaseURL string
	// Secret is the API key. It is in no error, and no verb of fmt prints it
	// unless the Config stands in an unexported field of something printed.
	Secret string `json:"-"`
	// Fields are the provider-specific fields by name; an empty value means
	// "not given".
	Fields map[string]string
	// Headers are extra headers set by the operator.
	Headers map[string]string
}

// Format prints c without its secret and without header values.
func (c Config) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "provider.Config{BaseURL: %q, Fields: %q}", c.BaseURL, c.Fields)
}

// Resolve checks c against p and returns what requests are built from. An
// error is always the user's: it names the field and what to do, and never
// holds the secret. Resolve doesn't decide whether plain http, or this host, is
// allowed: ask Target.Base.
func (p *Provider) Resolve(c Config) (*Target, error) {
	t, err := p.resolve(c)
	if err == nil {
		return t, nil
	}
	// A key pasted into the wrong field must not come back in the error that
	// names that field.
	message := err.Error()
	if len(c.Secret) >= minSecret {
		for _, spelling := range spellings(c.Secret) {
			message = strings.ReplaceAll(message, spelling, "[redacted]")
		}
	}
	return nil, errors.New(message)
}

func (p *Provider) resolve(c Config) (*Target, error) {
	if err := p.checkSecret(c.Secret); err != nil {
		return nil, err
	}
	given, err := p.checkGiven(c)
	if err != nil {
		return nil, err
	}
	base, err := p.resolveBase(c.BaseURL, given)
	if err != nil {
		return nil, err
	}
	if c.Secret != "" && strings.Contains(base.String(), c.Secret) {
		return nil, errors.New("base_url holds the api_key, and would be shown by reads: remove it there")
	}
	headers, err := p.resolveHeaders(c, given)
	if err != nil {
		return nil, err
	}
	secret := func() string { return c.Secret }
	return &Target{provider: p, base: base, secret: secret, masks: masksOf(secret()), bearer: bearerOf(secret()), headers: headers}, nil
}

func (p *Provider) checkSecret(secret string) error {
	switch {
	case secret == "" && p.Secret == SecretRequired:
		return fmt.Errorf("provider %q needs api_key", p.ID)
	case secret == "":
		return nil
	case p.Secret == SecretNone:
		return fmt.Errorf("provider %q takes no api_key: leave it out", p.ID)
	case strings.TrimSpace(secret) != secret:
		return errors.New("api_key starts or ends with a space or line break: give it without (a file often ends in one)")
	case len(secret) < minSecret:
		return fmt.Errorf("api_key is shorter than %d bytes, too short to be kept out of answers: leave api_key out for a server without authentication", minSecret)
	case len(secret) > maxSecret:
		return fmt.Errorf("api_key is longer than %d bytes", maxSecret)
	}
	for i := range len(secret) {
		if secret[i] <= ' ' || secret[i] > '~' {
			return errors.New("api_key holds a space, a control character or a character outside ASCII, which no provider's key has")
		}
	}
	return nil
}

// checkGiven returns the provider-specific fields that c gives, checked.
func (p *Provider) checkGiven(c Config) (map[string]string, error) {
	given := make(map[string]string, len(c.Fields))
	for _, name := range slices.Sorted(maps.Keys(c.Fields)) {
		f := p.field(name)
		if f == nil {
			return nil, p.unknownField(name)
		}
		value := c.Fields[name]
		if value == "" {
			continue
		}
		if !f.match.MatchString(value) {
			return nil, fmt.Errorf("field %q (%s) must match %s", name, f.Description, f.Pattern)
		}
		if f.Header == "" && c.BaseURL != "" {
			return nil, fmt.Errorf("field %q is part of provider %q's own base URL, which base_url replaces: give one of the two", name, p.ID)
		}
		given[name] = value
	}
	for i := range p.Fields {
		f := &p.Fields[i]
		if !f.Required || given[f.Name] != "" {
			continue
		}
		if f.Header != "" {
			return nil, fmt.Errorf("provider %q needs field %q: %s", p.ID, f.Name, f.Description)
		}
		if c.BaseURL == "" {
			return nil, fmt.Errorf("provider %q needs field %q (%s), or base_url instead", p.ID, f.Name, f.Description)
		}
	}
	return given, nil
}

func (p *Provider) field(name string) *Field {
	for i := range p.Fields {
		if p.Fields[i].Name == name {
			return &p.Fields[i]
		}
	}
	return nil
}

func (p *Provider) unknownField(name string) error {
	if len(p.Fields) == 0 {
		return fmt.Errorf("provider %q has no field %q; it has no fields of its own", p.ID, name)
	}
	names := make([]string, len(p.Fields))
	for i := range p.Fields {
		names[i] = p.Fields[i].Name
	}
	return fmt.Errorf("provider %q has no field %q; it has %s", p.ID, name, strings.Join(names, ", "))
}

func (p *Provider) resolveBase(own string, given map[string]string) (*url.URL, error) {
	switch {
	case own != "" && p.FixedBase:
		return nil, fmt.Errorf("provider %q takes no base_url: leave it out", p.ID)
	case own == "" && p.BaseURL == "":
		return nil, fmt.Errorf("provider %q needs base_url: %s", p.ID, p.BaseURLHelp)
	case own == "":
		return p.fillBase(given)
	}
	u, err := parseBase(own, "http", "https")
	if err != nil {
		return nil, err
	}
	for i := range p.Routes {
		// What an SDK takes as its base is often the base plus the route.
		if to := p.Routes[i].To; to != "" && strings.HasSuffix(u.Path, to) {
			u.Path = strings.TrimSuffix(u.Path, to)
			return nil, fmt.Errorf("base_url ends in %s, which is added for each request: give %s", to, u)
		}
	}
	return u, nil
}

// fillBase puts field values into the provider's own base URL.
func (p *Provider) fillBase(given map[string]string) (*url.URL, error) {
	base := p.BaseURL
	for i := range p.Fields {
		f := &p.Fields[i]
		if f.Header != "" {
			continue
		}
		// The pattern is data; that a value can't change the host isn't left to it.
		if !isLabel(given[f.Name]) {
			return nil, fmt.Errorf("field %q may hold only letters, digits, hyphens and underscores, 63 at most", f.Name)
		}
		base = strings.ReplaceAll(base, "{"+f.Name+"}", given[f.Name])
	}
	return parseBase(base, "https", URLSchemeSandbox)
}

// resolveHeaders returns the headers that fields and the operator set, by
// canonical name and sorted.
func (p *Provider) resolveHeaders(c Config, given map[string]string) ([]header, error) {
	if len(c.Headers) > maxHeaders {
		return nil, fmt.Errorf("%d extra headers were given: %d is the most", len(c.Headers), maxHeaders)
	}
	setBy := make(map[string]string)
	var out []header
	for i := range p.Fields {
		if f := &p.Fields[i]; f.Header != "" && given[f.Name] != "" {
			if err := checkHeaderValue(given[f.Name]); err != nil {
				return nil, fmt.Errorf("field %q: %w", f.Name, err)
			}
			setBy[f.Header] = fmt.Sprintf("field %q", f.Name)
			out = append(out, header{f.Header, given[f.Name]})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		value := c.Headers[name]
		canonical, err := checkHeader(name, value)
		if err != nil {
			return nil, err
		}
		if by, ok := setBy[canonical]; ok {
			return nil, fmt.Errorf("header %q is already set by %s: give one of the two", name, by)
		}
		setBy[canonical] = fmt.Sprintf("header %q", name)
		out = append(out, header{canonical, value})
	}
	for _, h := range out {
		if c.Secret != "" && strings.Contains(h.value, c.Secret) {
			return nil, fmt.Errorf("%s holds the api_key, and would be shown by reads: remove it there", setBy[h.name])
		}
	}
	slices.SortFunc(out, func(a, b header) int { return strings.Compare(a.name, b.name) })
	return out, nil
}
