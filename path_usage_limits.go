// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/ledger"
)

const (
	// noEntity stands for callers without an entity, which share one count.
	noEntity = "none"
	// shownEntities is of how many entities the counts are shown unasked.
	shownEntities = 100
)

func (b *backend) pathUsageLimits() []*framework.Path {
	selection := func(more map[string]*framework.FieldSchema) map[string]*framework.FieldSchema {
		fields := map[string]*framework.FieldSchema{
			"role":   {Type: framework.TypeString, Description: "Name of the virtual key."},
			"limit":  {Type: framework.TypeString, Description: "One limit, as usd/month or usd=100/month; all of them if left out."},
			"entity": {Type: framework.TypeString, Description: "The entity of which the counts apart are meant, or none for callers without one; without it, what all callers share is."},
		}
		for name, field := range more {
			fields[name] = field
		}
		return fields
	}
	write := func(name, summary, help string, callback framework.OperationFunc, more map[string]*framework.FieldSchema) *framework.Path {
		return &framework.Path{
			Pattern: "usage/" + framework.GenericNameRegex("role") + "/" + name,
			Fields:  selection(more),
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.UpdateOperation: &framework.PathOperation{
					Callback: callback, Summary: summary, ForwardPerformanceStandby: true,
					Responses: ok("What the limits count now.", map[string]*framework.FieldSchema{"limits": limitsField()}),
				},
			},
			DisplayAttrs: &framework.DisplayAttributes{
				OperationPrefix: operationPrefix, OperationVerb: name, OperationSuffix: "usage-of-virtual-key",
			},
			HelpSynopsis:    summary,
			HelpDescription: help,
		}
	}
	return []*framework.Path{
		write("reset", "Make what limits have counted zero.", resetHelp, b.resetUsage, nil),
		write("write-off", "Take out of the counts what nobody's name is on after a crash.", writeOffHelp, b.writeOffUsage,
			map[string]*framework.FieldSchema{
				"unconfirmed": {Type: framework.TypeBool, Description: "Take out as well what was charged at its worst case because the outcome is unknown."},
			}),
	}
}

func limitsField() *framework.FieldSchema {
	return &framework.FieldSchema{Type: framework.TypeSlice, Required: true, Description: "What stands on each limit: used, reserved, remaining, unconfirmed, unattributed, resets_at."}
}

// limitedRole returns the role that a request on its counts names, and the
// ledger.
func (b *backend) limitedRole(ctx context.Context, req *logical.Request, name string) (*role, *ledger.Ledger, error) {
	if err := b.activity.await(ctx); err != nil {
		return nil, nil, storageErrorf("%w", err)
	}
	r, err := b.roles.get(ctx, req.Storage, name)
	if err != nil {
		return nil, nil, err
	}
	if r == nil {
		return nil, nil, errNoEntry
	}
	return r, b.ledger.Load(), nil
}

// selectionOf reads which counts a request means.
func (b *backend) selectionOf(ctx context.Context, req *logical.Request, d *framework.FieldData, r *role) (ledger.Selection, error) {
	settings, err := b.readSettings(ctx, req.Storage)
	if err != nil {
		return ledger.Selection{}, err
	}
	by := ledger.Selection{Zone: settings.location()}
	if entity, given := d.GetOk("entity"); given && entity != "" {
		by.PerEntity, by.Entity = true, entity.(string)
		if by.Entity == noEntity {
			by.Entity = ""
		}
		if strings.ContainsAny(by.Entity, "/ ") || len(by.Entity) > maxNameLen {
			return by, fmt.Errorf("entity: this is no entity's id; `vault list identity/entity/id` shows them")
		}
	}
	text, given := d.GetOk("limit")
	if !given || text == "" {
		return by, nil
	}
	by.Limit, err = r.limitCalled(text.(string), by.PerEntity)
	return by, err
}

// limitCalled finds the identity of one of the role's limits by its text or its
// identity.
func (r *role) limitCalled(text string, perEntity bool) (string, error) {
	wanted := strings.Join(strings.Fields(text), " ")
	if limit, err := ledger.ParseLimit(text); err == nil {
		wanted = limit.ID()
	}
	for _, limit := range r.limits.Limits() {
		if limit.ID() != wanted {
			continue
		}
		if limit.PerEntity && !perEntity {
			return "", fmt.Errorf("limit: %s counts each entity apart; say whose count is meant with entity=<id>, or entity=%s", limit, noEntity)
		}
		if !limit.PerEntity && perEntity {
			return "", fmt.Errorf("limit: %s is shared by all callers; leave entity out", limit)
		}
		return wanted, nil
	}
	return "", fmt.Errorf("limit: the virtual key has no limit %.80q; it has %s", withoutLongWords(text), strings.Join(r.texts(), ", "))
}

func (b *backend) resetUsage(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	return b.changeCounts(ctx, req, d, func(l *ledger.Ledger, r *role, by ledger.Selection) error {
		return l.Reset(ctx, r.limits, by)
	})
}

func (b *backend) writeOffUsage(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	return b.changeCounts(ctx, req, d, func(l *ledger.Ledger, r *role, by ledger.Selection) error {
		return l.WriteOff(ctx, r.limits, by, d.Get("unconfirmed").(bool))
	})
}

// changeCounts changes what the limits of a role count, and answers with what
// they count then.
func (b *backend) changeCounts(ctx context.Context, req *logical.Request, d *framework.FieldData, change func(*ledger.Ledger, *role, ledger.Selection) error) (*logical.Response, error) {
	if err := unknownFields(req, d); err != nil {
		return respond(err)
	}
	r, l, err := b.limitedRole(ctx, req, d.Get("role").(string))
	if err != nil {
		return respond(err)
	}
	by, err := b.selectionOf(ctx, req, d, r)
	if err != nil {
		return respond(err)
	}
	if len(r.Limits) == 0 {
		return respond(fmt.Errorf("the virtual key has no limits, so there is nothing to change; its record of usage is kept"))
	}
	if err := r.selects(by); err != nil {
		return respond(err)
	}
	if err := change(l, r, by); err != nil {
		return nil, storageErrorf("%w", err)
	}
	statuses, err := l.Status(ctx, r.limits, by)
	if err != nil {
		return nil, storageErrorf("%w", err)
	}
	resp := &logical.Response{Data: map[string]any{"limits": statusRows(statuses)}}
	if left, ok := d.GetOk("unconfirmed"); ok && left.(bool) {
		for _, s := range statuses {
			if s.Limit.Window.Sliding() {
				resp.AddWarning(fmt.Sprintf("what is unconfirmed of the limit %s leaves with its window; it isn't written off", s.Limit))
			}
		}
	}
	return resp, nil
}

// selects says what is wrong with a selection that selects nothing.
func (r *role) selects(by ledger.Selection) error {
	for _, limit := range r.limits.Limits() {
		if limit.PerEntity == by.PerEntity {
			return nil
		}
	}
	if by.PerEntity {
		return fmt.Errorf("entity: no limit of the virtual key counts entities apart; leave entity out")
	}
	return fmt.Errorf("entity: every limit of the virtual key counts each entity apart; say whose count is meant with entity=<id>, or entity=%s", noEntity)
}

// allStatuses returns what stands on every limit of a role: for limits that
// count entities apart, of the entity asked for, else of those that there are.
func (b *backend) allStatuses(ctx context.Context, req *logical.Request, d *framework.FieldData, r *role) (list []ledger.Status, warning string, err error) {
	by, err := b.selectionOf(ctx, req, d, r)
	if err != nil {
		return nil, "", err
	}
	l := b.ledger.Load()
	if l == nil || len(r.Limits) == 0 {
		return nil, "", nil
	}
	entities, asked := []string{by.Entity}, by.PerEntity
	if !asked && r.limits.PerEntity() {
		if entities, err = l.Entities(ctx, r.ID); err != nil {
			return nil, "", storageErrorf("%w", err)
		}
		if len(entities) > shownEntities {
			warning = fmt.Sprintf("%d entities have counts of their own, of which %d are shown; ask for others with entity=<id>", len(entities), shownEntities)
			entities = entities[:shownEntities]
		}
	}
	shared := by
	shared.PerEntity, shared.Entity = false, ""
	if list, err = l.Status(ctx, r.limits, shared); err != nil {
		return nil, "", storageErrorf("%w", err)
	}
	if !r.limits.PerEntity() {
		return list, warning, nil
	}
	for _, entity := range entities {
		by.PerEntity, by.Entity = true, entity
		own, err := l.Status(ctx, r.limits, by)
		if err != nil {
			return nil, "", storageErrorf("%w", err)
		}
		if asked || slices.ContainsFunc(own, counts) {
			list = append(list, own...)
		}
	}
	return list, warning, nil
}

// counts says whether anything stands on a limit.
func counts(s ledger.Status) bool { return s.Used > 0 || s.Reserved > 0 }

// statusRows is what people see. Money is a decimal text, exact to the
// nano-dollar; everything else is a number.
func statusRows(statuses []ledger.Status) []any {
	rows := make([]any, len(statuses))
	for i, s := range statuses {
		amount := func(n int64) any {
			if s.Limit.Unit == ledger.USD {
				return s.Limit.Unit.Format(n)
			}
			return n
		}
		row := map[string]any{
			"limit": s.Limit.String(), "unit": s.Limit.Unit.String(), "max": amount(s.Limit.Max),
			"used": amount(s.Used), "reserved": amount(s.Reserved), "remaining": amount(s.Remaining),
			"unconfirmed": amount(s.Unconfirmed), "unattributed": amount(s.Unattributed), "exceeded": amount(s.Exceeded),
			"resets_at": timeText(s.ResetsAt), "percent_used": percentOf(s),
		}
		if s.Limit.PerEntity {
			row["entity"] = s.Entity
			if s.Entity == "" {
				row["entity"] = noEntity
			}
		}
		rows[i] = row
	}
	return rows
}

// addLimits adds to an answer on a role's usage what stands on its limits.
func (b *backend) addLimits(ctx context.Context, req *logical.Request, d *framework.FieldData, resp *logical.Response) error {
	r, err := b.roles.get(ctx, req.Storage, d.Get("role").(string))
	if err != nil {
		return err
	}
	resp.Data["limits"] = []any{}
	if r == nil {
		return nil // what is left is the record of one that was deleted
	}
	statuses, warning, err := b.allStatuses(ctx, req, d, r)
	if err != nil {
		return err
	}
	if warning != "" {
		resp.AddWarning(warning)
	}
	resp.Data["limits"] = statusRows(statuses)
	addThresholdWarnings(resp, statuses)
	return nil
}

const resetHelp = `
Counts of the windows that are running become zero, of all limits that callers
share, or of one. What requests under way hold is counted when they end. The
record of usage stays.

    vault write -f <mount>/usage/team-a/reset
    vault write <mount>/usage/team-a/reset limit=usd/month
    vault write <mount>/usage/team-a/reset entity=8e0e2c4f-1f51-4b7a-8c0e-9c2f8ad3a111
`

const writeOffHelp = `
After a crash of the plugin, limits count all that may have been used: what was
under way, and what was kept free for the next moment. How much of that nobody's
name is on is shown as unattributed by usage/<name>. This takes it out, when you
know (from the provider's bill, say) that it wasn't spent.

    vault write -f <mount>/usage/team-a/write-off
    vault write <mount>/usage/team-a/write-off limit=usd/month unconfirmed=true
`
