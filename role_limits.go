// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"

	"vault-plugin-secrets-portkey/internal/ledger"
	"vault-plugin-secrets-portkey/internal/relay"
)

// roleLimits is what a virtual key says of limits.
type roleLimits struct {
	Limits []limitEntry `json:"limits,omitempty"`
	// Retired are the anchors of limits that are gone, for as long as their
	// window runs: that a limit is removed and added again is no reset.
	Retired         []retiredLimit `json:"retired_limits,omitempty"`
	Soft            bool           `json:"soft,omitempty"`
	MinOutputTokens int            `json:"min_output_tokens,omitempty"`
	KeepCap         bool           `json:"keep_cap,omitempty"`
	AllowUnbounded  bool           `json:"allow_unbounded,omitempty"`
	AllowUnmetered  bool           `json:"allow_unmetered,omitempty"`
	// AlertThresholds are percentages; nil means the default.
	AlertThresholds []int `json:"alert_thresholds"`
}

// limitEntry is a limit as it is stored: its text, and from when windows of a
// fixed length count, in Unix seconds.
type limitEntry struct {
	Limit  string `json:"limit"`
	Anchor int64  `json:"anchor,omitempty"`
}

type retiredLimit struct {
	ID     string `json:"id"`
	Anchor int64  `json:"anchor"`
	Until  int64  `json:"until"` // Unix seconds
}

// maxRetired bounds the anchors that are kept; the oldest go first.
const maxRetired = 64

// The values of enforcement.
const (
	enforceHard = "hard"
	enforceSoft = "soft"
)

var defaultThresholds = []int{80, 95}

func (r *roleLimits) thresholds() []int {
	if r.AlertThresholds == nil {
		return defaultThresholds
	}
	return r.AlertThresholds
}

func (r *roleLimits) enforcement() string {
	if r.Soft {
		return enforceSoft
	}
	return enforceHard
}

// policy makes the limits of the virtual key of that name and id.
func (r *roleLimits) policy(name, id string) (*ledger.Policy, error) {
	limits := make([]ledger.Limit, len(r.Limits))
	for i, entry := range r.Limits {
		limit, err := ledger.ParseLimit(entry.Limit)
		if err != nil {
			return nil, err
		}
		limit.Anchor = entry.Anchor
		limits[i] = limit
	}
	return ledger.NewPolicy(ledger.PolicyOptions{
		Account: id, Name: name, Limits: limits, Soft: r.Soft, Thresholds: r.thresholds(),
	}), nil
}

func (r *roleLimits) state() map[string]any {
	return map[string]any{
		"limits": r.texts(), "enforcement": r.enforcement(), "min_output_tokens": r.MinOutputTokens, "lower_cap": !r.KeepCap,
		"allow_unbounded": r.AllowUnbounded, "allow_unmetered": r.AllowUnmetered, "alert_thresholds": r.thresholds(),
	}
}

func (r *roleLimits) texts() []string {
	texts := make([]string, len(r.Limits))
	for i, entry := range r.Limits {
		texts[i] = entry.Limit
	}
	return texts
}

func limitFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"limits": {
			Type: framework.TypeSlice,
			Description: "Caps, each as <unit>=<max>/<window>[ per entity][ on <model glob>], or as a JSON object; the list replaces the one before. " +
				"Units: usd, requests, tokens, input_tokens, output_tokens, concurrent (without a window). " +
				"Windows: minute, hour, day, week, month, total, or a length such as 30d. For example usd=100/month, requests=60/minute per entity, concurrent=8.",
		},
		"enforcement": {
			Type: framework.TypeString, Default: enforceHard, AllowedValues: []any{enforceHard, enforceSoft},
			Description: "hard reserves each request's worst case before it is sent, so that no limit is overspent; soft admits while used is less than max, and changes no request.",
		},
		"min_output_tokens": {
			Type: framework.TypeInt, Default: 0,
			Description: "The output cap of a request is never lowered below this; 0 means 256, or 4096 for reasoning models.",
		},
		"lower_cap": {
			Type: framework.TypeBool, Default: true,
			Description: "Whether the output cap of a request is lowered to what is left of a budget, instead of refusing the request.",
		},
		"allow_unbounded": {
			Type: framework.TypeBool, Default: false,
			Description: "Let requests through whose cost nobody can bound (tools that run at the provider, unknown service tiers). Limits may then be overspent.",
		},
		"allow_unmetered": {
			Type: framework.TypeBool, Default: false,
			Description: "Let routes through that aren't metered (images, audio, files, batches), although limits on money or tokens can't count them.",
		},
		"alert_thresholds": {
			Type: framework.TypeCommaIntSlice, Default: defaultThresholds,
			Description: "Percentages of a limit whose crossing is logged, sent as a Vault event, and shown as a warning; 0 for none. Windows of an hour or less aren't watched.",
		},
	}
}

// applyLimits sets the fields that d gives. old is what was there before, for
// the windows of its limits.
func (b *backend) applyLimits(r, old *roleLimits, d *framework.FieldData) error {
	limits := r.parsed()
	if raw, ok := d.GetOk("limits"); ok {
		var err error
		if limits, err = ledger.ParseLimits(raw.([]any)); err != nil {
			return fmt.Errorf("limits: %s", withoutLongWords(err.Error()))
		}
	}
	r.setLimits(limits, old, b.now())
	if v, ok := d.GetOk("enforcement"); ok {
		switch v := strings.ToLower(strings.TrimSpace(v.(string))); v {
		case enforceHard, "":
			r.Soft = false
		case enforceSoft:
			r.Soft = true
		default:
			return fmt.Errorf("enforcement: %.40q is neither %s nor %s", withoutLongWords(v), enforceHard, enforceSoft)
		}
	}
	if v, ok := d.GetOk("min_output_tokens"); ok {
		if r.MinOutputTokens = v.(int); r.MinOutputTokens < 0 || r.MinOutputTokens > maxOutputCap {
			return fmt.Errorf("min_output_tokens is %d; it must be between 1 and %d, or 0 for the default", r.MinOutputTokens, maxOutputCap)
		}
	}
	if v, ok := d.GetOk("lower_cap"); ok {
		r.KeepCap = !v.(bool)
	}
	for name, to := range map[string]*bool{"allow_unbounded": &r.AllowUnbounded, "allow_unmetered": &r.AllowUnmetered} {
		if v, ok := d.GetOk(name); ok {
			*to = v.(bool)
		}
	}
	if v, ok := d.GetOk("alert_thresholds"); ok {
		return r.setThresholds(v.([]int))
	}
	return nil
}

// longWord is longer than any word of a limit, but for some models' names.
var longWord = regexp.MustCompile(`[^\s"=/,]{25,}`)

// withoutLongWords is an error's text without what may be a secret that was put
// in the wrong place.
func withoutLongWords(text string) string { return longWord.ReplaceAllString(text, "…") }

func (r *roleLimits) setThresholds(percents []int) error {
	list := slices.DeleteFunc(append([]int{}, percents...), func(n int) bool { return n == 0 }) // never nil, which means the default
	slices.Sort(list)
	list = slices.Compact(list)
	for _, n := range list {
		if n < 1 || n > 100 {
			return fmt.Errorf("alert_thresholds: %d is no percentage from 1 to 100; write them as 50,80,95", n)
		}
	}
	r.AlertThresholds = list
	return nil
}

// setLimits replaces the limits. Those with windows of a fixed length keep the
// anchor that they had, also if they were away for a while.
func (r *roleLimits) setLimits(limits []ledger.Limit, old *roleLimits, now time.Time) {
	anchors := map[string]int64{}
	var retired []retiredLimit
	for _, gone := range old.Retired {
		if gone.Until > now.Unix() {
			anchors[gone.ID] = gone.Anchor
			retired = append(retired, gone)
		}
	}
	for _, limit := range old.parsed() {
		if limit.Window.Kind != ledger.Fixed {
			continue
		}
		_, until := limit.Window.Span(now, time.UTC, limit.Anchor)
		anchors[limit.ID()] = limit.Anchor
		retired = append(retired, retiredLimit{ID: limit.ID(), Anchor: limit.Anchor, Until: until})
	}
	r.Limits = make([]limitEntry, len(limits))
	for i, limit := range limits {
		entry := limitEntry{Limit: limit.String()}
		if limit.Window.Kind == ledger.Fixed {
			id := limit.ID()
			anchor, known := anchors[id]
			if !known {
				anchor = now.Unix()
			}
			entry.Anchor = anchor
			retired = slices.DeleteFunc(retired, func(gone retiredLimit) bool { return gone.ID == id })
		}
		r.Limits[i] = entry
	}
	r.Retired = retired[max(0, len(retired)-maxRetired):]
}

// parsed are the limits that can be read, which all are that were stored.
func (r *roleLimits) parsed() []ledger.Limit {
	var limits []ledger.Limit
	for _, entry := range r.Limits {
		if limit, err := ledger.ParseLimit(entry.Limit); err == nil {
			limit.Anchor = entry.Anchor
			limits = append(limits, limit)
		}
	}
	return limits
}

// limitWarnings says what of the limits is odd, and which are gone.
func (r *role) limitWarnings(old *role) (warnings []string) {
	limits := r.parsed()
	models := make([]string, len(r.Models)) // limits know models in lower case
	for i, model := range r.Models {
		models[i] = strings.ToLower(model)
	}
	kept := map[string]bool{}
	for _, limit := range limits {
		kept[limit.ID()] = true
		if limit.Models != "" && len(r.Models) == 0 {
			warnings = append(warnings, fmt.Sprintf("the limit %s counts some models only, and the virtual key allows all: a name that it doesn't foresee passes it; say in models which may be used", limit))
		}
		if limit.Max == 0 {
			warnings = append(warnings, fmt.Sprintf("the limit %s allows nothing", limit))
		}
		if limit.Models != "" && !strings.Contains(limit.Models, "*") && !relay.Allows(models, limit.Models) {
			warnings = append(warnings, fmt.Sprintf("the limit %s is on a model that isn't among those allowed (%s)", limit, strings.Join(r.Models, ", ")))
		}
	}
	if old != nil {
		for _, limit := range old.parsed() {
			switch {
			case kept[limit.ID()]:
			case limit.Unit == ledger.Concurrent:
				warnings = append(warnings, fmt.Sprintf("the limit %s is gone", limit))
			default:
				warnings = append(warnings, fmt.Sprintf("the limit %s is gone; what it counted stays until its window ends, should it come back", limit))
			}
		}
	}
	return warnings
}

// percentOf says how much of a limit is used, such as "83%".
func percentOf(s ledger.Status) string {
	if s.Limit.Max == 0 {
		return "100%"
	}
	return strconv.FormatFloat(100*float64(s.Used)/float64(s.Limit.Max), 'f', 0, 64) + "%"
}
