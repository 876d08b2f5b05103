// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-portkey/internal/price"
	"vault-plugin-secrets-portkey/internal/usage"
)

// usagePrefix holds the record of usage. It belongs to this cluster alone.
const usagePrefix = localPrefix + "usage/"

// usageDays is how far back a read looks that says no more.
const usageDays = 30

func (b *backend) pathUsage() []*framework.Path {
	query := map[string]*framework.FieldSchema{
		"role":     {Type: framework.TypeString, Description: "Name of the virtual key."},
		"from":     {Type: framework.TypeString, Query: true, Description: "First day, as 2027-01-31. 30 days are shown if neither from nor to is given."},
		"to":       {Type: framework.TypeString, Query: true, Description: "Last day, as 2027-01-31; today if left out."},
		"group_by": {Type: framework.TypeCommaStringSlice, Query: true, Description: "What rows are told apart by: any of day, model, entity, prompt (and role, over all virtual keys)."},
		"prompt":   {Type: framework.TypeString, Query: true, Description: "Count only the requests on this prompt template."},
	}
	answer := map[string]*framework.FieldSchema{
		"from":      {Type: framework.TypeString, Required: true, Description: "First day."},
		"to":        {Type: framework.TypeString, Required: true, Description: "Last day."},
		"time_zone": {Type: framework.TypeString, Required: true, Description: "The zone that days begin in."},
		"total":     {Type: framework.TypeMap, Required: true, Description: "What all rows add up to."},
		"rows":      {Type: framework.TypeSlice, Required: true, Description: "One for each combination of what was grouped by."},
	}
	read := func(callback framework.OperationFunc, summary string, answer map[string]*framework.FieldSchema) framework.OperationHandler {
		return &framework.PathOperation{Callback: callback, Summary: summary, ForwardPerformanceStandby: true, Responses: ok("The usage.", answer)}
	}
	ofRole := maps.Clone(answer)
	ofRole["limits"] = limitsField()
	queryOfRole := maps.Clone(query)
	queryOfRole["entity"] = &framework.FieldSchema{Type: framework.TypeString, Query: true, Description: "Show of limits that count entities apart only this entity's counts; none means callers without one."}
	return []*framework.Path{
		{
			Pattern: "usage/?$",
			Fields:  map[string]*framework.FieldSchema{"from": query["from"], "to": query["to"], "group_by": query["group_by"], "prompt": query["prompt"]},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: read(b.readAllUsage, "Read the usage of all virtual keys.", answer),
				logical.ListOperation: &framework.PathOperation{
					Callback: b.listUsage, Summary: "List the virtual keys that have usage.", ForwardPerformanceStandby: true,
					Responses: ok("The names.", map[string]*framework.FieldSchema{"keys": {Type: framework.TypeStringSlice, Description: "The names, in order."}}),
				},
			},
			DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "usage", Navigation: true},
			HelpSynopsis:    "What all virtual keys used and cost.",
			HelpDescription: usageHelp,
		},
		{
			Pattern: "usage/" + framework.GenericNameRegex("role"),
			Fields:  queryOfRole,
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: read(b.readUsage, "Read the usage and the limits of a virtual key.", ofRole),
			},
			DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "usage-of-virtual-key"},
			HelpSynopsis:    "What a virtual key used and cost.",
			HelpDescription: usageHelp,
		},
	}
}

func (b *backend) listUsage(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	names, err := b.usage.Roles(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	return logical.ListResponse(names), nil
}

// usageQuery is what a read asks for.
type usageQuery struct {
	usage.Query
	byRole bool
	zone   string
}

func (b *backend) usageQuery(ctx context.Context, req *logical.Request, d *framework.FieldData, dimensions ...usage.Dimension) (*usageQuery, error) {
	if err := unknownFields(req, d); err != nil {
		return nil, err
	}
	settings, err := b.readSettings(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	today := b.now().In(settings.location())
	q := &usageQuery{zone: settings.location().String()}
	setString(d, "from", &q.From)
	setString(d, "to", &q.To)
	setString(d, "prompt", &q.Prompt)
	if q.To == "" {
		q.To = today.Format(time.DateOnly)
	}
	for field, day := range map[string]string{"from": q.From, "to": q.To} {
		if _, err := time.Parse(time.DateOnly, day); day != "" && err != nil {
			return nil, fmt.Errorf("%s: %.40q is no day; write it like 2027-01-31", field, day)
		}
	}
	if q.From == "" {
		to, _ := time.Parse(time.DateOnly, q.To)
		q.From = to.AddDate(0, 0, 1-usageDays).Format(time.DateOnly)
	}
	if q.From > q.To {
		return nil, fmt.Errorf("from (%s) is after to (%s)", q.From, q.To)
	}
	return q, q.groupBy(d, dimensions)
}

// groupBy reads group_by; dimensions are the default.
func (q *usageQuery) groupBy(d *framework.FieldData, dimensions []usage.Dimension) error {
	names, given := d.GetOk("group_by")
	if !given {
		q.GroupBy = dimensions
		q.byRole = len(dimensions) == 0
		return nil
	}
	for _, name := range names.([]string) {
		switch dimension := usage.Dimension(strings.ToLower(name)); dimension {
		case usage.ByDay, usage.ByModel, usage.ByCaller, usage.ByPrompt:
			q.GroupBy = append(q.GroupBy, dimension)
		case "role":
			q.byRole = true
		default:
			return fmt.Errorf("group_by: %.40q is none of day, model, entity, prompt, role", name)
		}
	}
	return nil
}

func (b *backend) readUsage(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	q, err := b.usageQuery(ctx, req, d, usage.ByDay, usage.ByModel)
	if err != nil {
		return respond(err)
	}
	resp, err := b.usageOf(ctx, req.Storage, q, []string{d.Get("role").(string)})
	if err != nil {
		return nil, err
	}
	if err := b.addLimits(ctx, req, d, resp); err != nil {
		return respond(err)
	}
	return resp, nil
}

func (b *backend) readAllUsage(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	q, err := b.usageQuery(ctx, req, d)
	if err != nil {
		return respond(err)
	}
	roles, err := b.usage.Roles(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	return b.usageOf(ctx, req.Storage, q, roles)
}

// usageOf answers a query over roles. Rows of different roles that the query
// doesn't tell apart are added up.
func (b *backend) usageOf(ctx context.Context, storage logical.Storage, q *usageQuery, roles []string) (*logical.Response, error) {
	var total usage.Counts
	type rowKey struct{ role, day, model, caller, prompt string }
	sums, order := map[rowKey]*usage.Counts{}, []rowKey{}
	add := func(key rowKey, c usage.Counts) {
		if sums[key] == nil {
			sums[key] = &usage.Counts{}
			order = append(order, key)
		}
		sums[key].Add(c)
	}
	for _, role := range roles {
		q.Role = role
		rows, sum, err := b.usage.Query(ctx, storage, q.Query)
		if err != nil {
			return nil, err
		}
		total.Add(sum)
		name := ""
		if q.byRole {
			name = role
		}
		if len(q.GroupBy) == 0 && q.byRole && sum != (usage.Counts{}) {
			add(rowKey{role: name}, sum)
		}
		for _, r := range rows {
			add(rowKey{name, r.Day, r.Model, r.Caller, r.Prompt}, r.Counts)
		}
	}
	slices.SortFunc(order, func(a, b rowKey) int {
		return cmp.Or(cmp.Compare(a.role, b.role), cmp.Compare(a.day, b.day), cmp.Compare(a.model, b.model),
			cmp.Compare(a.caller, b.caller), cmp.Compare(a.prompt, b.prompt))
	})
	rows := make([]any, len(order))
	for i, key := range order {
		row := countsData(*sums[key])
		for name, value := range map[string]string{"role": key.role, "day": key.day, "model": key.model, "entity": key.caller, "prompt": key.prompt} {
			if q.tells(name) {
				row[name] = value
			}
		}
		rows[i] = row
	}
	return &logical.Response{Data: map[string]any{
		"from": q.From, "to": q.To, "time_zone": q.zone, "total": countsData(total), "rows": rows,
	}}, nil
}

// tells says whether rows are told apart by the dimension.
func (q *usageQuery) tells(name string) bool {
	if name == "role" {
		return q.byRole
	}
	for _, dimension := range q.GroupBy {
		if string(dimension) == name {
			return true
		}
	}
	return false
}

// countsData is what people see. Money is a decimal text, exact to the
// nano-dollar: Vault hands numbers on as floats.
func countsData(c usage.Counts) map[string]any {
	usd := func(nano int64) string { return price.NanoUSD(nano).String() }
	return map[string]any{
		"requests": c.Requests, "failed": c.Failed, "refused": c.Refused,
		"input_tokens": c.InputTokens, "cached_tokens": c.CachedTokens,
		"output_tokens": c.OutputTokens, "reasoning_tokens": c.ReasoningTokens,
		"cost_usd": usd(c.Cost), "unconfirmed_usd": usd(c.UnconfirmedCost), "estimated_usd": usd(c.EstimatedCost),
		"unconfirmed": c.Unconfirmed, "estimated": c.Estimated, "unpriced": c.Unpriced,
	}
}

const usageHelp = `
Tokens and cost, by day and model unless group_by says otherwise. Cached tokens
are among the input tokens, reasoning tokens among the output tokens. Of the
cost, what is unconfirmed was charged at its worst case because the provider's
answer broke off; what is unpriced is not in the cost at all, because the
model's price isn't known.

The figures belong to this cluster and to the name: a virtual key that is
deleted and made again goes on where it was. They are written once a second; a
crash loses at most what the last second added to this record.

    vault read <mount>/usage/team-a
    vault read <mount>/usage/team-a from=2027-01-01 to=2027-01-31 group_by=entity
    vault read <mount>/usage group_by=role,model
    vault read <mount>/usage group_by=prompt
    vault read <mount>/usage prompt=greeting group_by=day,model
`
