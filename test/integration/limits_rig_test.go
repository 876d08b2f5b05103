// SPDX-License-Identifier: MPL-2.0

//go:build integration

package integration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/test/upstream"
	"vault-plugin-secrets-portkey/test/vaulttest"
)

// The tests of limits have Vaults of their own, for they spend, kill and cut
// off, and can be run one by one. They are short in `make test`, and long in
// `make soak`, which sets PORTKEY_SOAK.

// soaking says whether this is `make soak`.
func soaking() bool { return os.Getenv("PORTKEY_SOAK") != "" }

// rounds is how often a test does something: few times in `make test`, many in
// `make soak`.
func rounds(few, many int) int {
	if soaking() {
		return many
	}
	return few
}

// The prices of these tests, in USD per million tokens. A token of either kind
// costs a whole number of nano-dollars, so that a sum over tokens is the sum
// over requests.
const (
	exactInput, exactOutput = "2.501", "10.007"
	inputNano, outputNano   = 2_501, 10_007
)

// rig is a Vault with the plugin at mount.
type rig struct {
	vault *vaulttest.Vault
	// root goes to whichever node is active.
	root *vaulttest.Client
	// gateway is the door that callers of virtual keys take; nil is Vault's own.
	gateway *gatewayDoor
	seed    uint64
	dice    *rand.Rand // of the test's own goroutine
}

// startRig starts a Vault and mounts the plugin, ready for hundreds of clients.
// In `make soak` the race detector watches the plugin.
func startRig(t *testing.T, o vaulttest.Options) *rig {
	t.Helper()
	o.Race = soaking()
	r := &rig{vault: vaulttest.Start(t, o), seed: seed(t)}
	t.Cleanup(func() {
		for _, word := range []string{"DATA RACE", "a request panicked", "panic: "} {
			if i := bytes.Index(r.vault.Log(), []byte(word)); i >= 0 {
				t.Errorf("the log has: %.3000s", r.vault.Log()[i:])
			}
		}
	})
	r.dice = rand.New(rand.NewPCG(r.seed, 0))
	r.root = r.vault.Balanced(r.vault.RootToken, patience)
	r.vault.Enable(t, mount, map[string]any{"allowed_response_headers": []string{"retry-after", "x-portkey-capped", "x-portkey-trace-id"}})
	r.root.Write(t, mount+"/config", map[string]any{"inline_max_concurrent": 512})
	r.root.Write(t, mount+"/prices/openai-compatible/up-*", map[string]any{"input": exactInput, "output": exactOutput})
	return r
}

// seed is where this run's random numbers begin.
func seed(t *testing.T) uint64 {
	t.Helper()
	n := uint64(time.Now().UnixNano()) % 1_000_000
	if text := os.Getenv("PORTKEY_SEED"); text != "" {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("PORTKEY_SEED: %v", err)
		}
	}
	t.Logf("the seed is %d; PORTKEY_SEED=%d begins there again", n, n)
	return n
}

// random returns the random numbers of one of many goroutines.
func (r *rig) random(which int) *rand.Rand { return rand.New(rand.NewPCG(r.seed, uint64(which)+1)) }

// virtual is a virtual key with an imitated provider of its own.
type virtual struct {
	*rig
	name string
	up   *upstream.Server
}

// virtual makes a virtual key.
func (r *rig) virtual(t *testing.T, name string, fields map[string]any) *virtual {
	t.Helper()
	v := &virtual{rig: r, name: name, up: upstream.Start(t, upstream.Options{Discard: true, Seed: int64(r.seed) + 1})}
	r.root.Write(t, mount+"/keys/"+name, map[string]any{
		"provider": "openai-compatible", "base_url": v.up.URL(), "api_key": "a-provider-key-of-" + name,
	})
	v.write(t, fields)
	r.vault.Policy(t, name, policyFile(t, "app.hcl", mount, name))
	return v
}

// limited makes a virtual key with these limits.
func (r *rig) limited(t *testing.T, name string, limits ...string) *virtual {
	t.Helper()
	return r.virtual(t, name, map[string]any{"limits": limits})
}

// write writes the role of the virtual key.
func (v *virtual) write(t *testing.T, fields map[string]any) {
	t.Helper()
	v.root.Write(t, mount+"/roles/"+v.name, with(map[string]any{"key": v.name}, fields))
}

// attempt bounds a call where nodes come and go: one that was cut off must not
// be waited for.
const attempt = 15 * time.Second

// client returns a client that may use the virtual key and nothing else.
func (v *virtual) client(t *testing.T) *vaulttest.Client {
	t.Helper()
	return v.caller(t, 0, patience)
}

// caller returns a client with a credential of its own. At the gateway, those with
// an odd number have leased keys.
func (v *virtual) caller(t *testing.T, which int, timeout time.Duration) *vaulttest.Client {
	t.Helper()
	switch {
	case v.gateway == nil:
		return v.vault.Balanced(v.vault.Token(t, v.name), timeout)
	case which%2 == 0:
		return v.gateway.client(v.vault.Token(t, v.name), timeout)
	}
	return v.gateway.client(v.lease(t, v.vault.Token(t, v.leaser(t))), timeout)
}

// post sends one request and returns the answer.
func (v *virtual) post(t *testing.T, c *vaulttest.Client, a ask) *vaulttest.Response {
	t.Helper()
	return post(t, c, chatPath(mount, v.name), a.body())
}

// limitRow is what usage/<role> shows of one limit. Amounts of money are in
// nano-dollars.
type limitRow struct {
	Limit        string `json:"limit"`
	Unit         string `json:"unit"`
	Entity       string `json:"entity"`
	Max          amount `json:"max"`
	Used         amount `json:"used"`
	Reserved     amount `json:"reserved"`
	Remaining    amount `json:"remaining"`
	Unconfirmed  amount `json:"unconfirmed"`
	Unattributed amount `json:"unattributed"`
	Exceeded     amount `json:"exceeded"`
	ResetsAt     string `json:"resets_at"`
}

// amount is a number, or decimal text in USD.
type amount int64

// UnmarshalJSON implements json.Unmarshaler.
func (a *amount) UnmarshalJSON(text []byte) error {
	if text[0] != '"' {
		return json.Unmarshal(text, (*int64)(a))
	}
	var usd string
	if err := json.Unmarshal(text, &usd); err != nil {
		return err
	}
	n, err := nano(usd)
	*a = amount(n)
	return err
}

// nano is decimal text in USD as nano-dollars.
func nano(usd string) (int64, error) {
	r, ok := new(big.Rat).SetString(usd)
	if !ok {
		return 0, fmt.Errorf("%q is no amount", usd)
	}
	if r.Mul(r, big.NewRat(1_000_000_000, 1)); !r.IsInt() {
		return 0, fmt.Errorf("%q is no whole number of nano-dollars", usd)
	}
	return r.Num().Int64(), nil
}

// standing is what usage/<role> says.
type standing struct {
	Total  counts     `json:"total"`
	Limits []limitRow `json:"limits"`
}

// cost is what the record says was spent, in nano-dollars.
func (s standing) cost(t *testing.T) int64 {
	t.Helper()
	n, err := nano(s.Total.Cost)
	if err != nil {
		t.Fatalf("cost_usd: %v", err)
	}
	return n
}

// standing reads usage/<role>, trying again while no node is ready.
func (v *virtual) standing(t *testing.T) (s standing) {
	t.Helper()
	eventually(t, "usage/"+v.name, func() bool {
		resp, err := v.root.Do(t.Context(), http.MethodGet, mount+"/usage/"+v.name, nil)
		if err != nil || resp.Status != http.StatusOK {
			return false
		}
		var answer struct{ Data standing }
		if err := resp.Decode(&answer); err != nil {
			t.Fatalf("usage/%s: %v in %s", v.name, err, resp)
		}
		s = answer.Data
		return true
	})
	return s
}

// row returns what stands on the only limit.
func (v *virtual) row(t *testing.T) limitRow {
	t.Helper()
	s := v.standing(t)
	if len(s.Limits) != 1 {
		t.Fatalf("%s has the limits %+v, expected one", v.name, s.Limits)
	}
	return s.Limits[0]
}

// settled waits until the provider has nothing under way and no limit holds
// anything, and returns what stands then. It fails the test if something stays
// reserved.
func (v *virtual) settled(t *testing.T) standing {
	t.Helper()
	v.up.WaitIdle(t)
	var s standing
	eventually(t, "nothing of "+v.name+" to be reserved", func() bool {
		s = v.standing(t)
		return !slices.ContainsFunc(s.Limits, func(r limitRow) bool { return r.Reserved != 0 })
	})
	return s
}

// in is what was delivered in the unit of a limit, priced by what this test
// wrote as prices.
func in(unit string, d upstream.Delivered) int64 {
	switch unit {
	case "usd":
		return int64(d.PromptTokens)*inputNano + int64(d.CompletionTokens)*outputNano
	case "requests":
		return int64(d.Requests)
	case "tokens":
		return int64(d.PromptTokens + d.CompletionTokens)
	case "input_tokens":
		return int64(d.PromptTokens)
	case "output_tokens":
		return int64(d.CompletionTokens)
	case "concurrent":
		return 0
	}
	panic("no unit: " + unit)
}

// wantExact fails the test unless every limit counts exactly what the provider
// delivered, and so does the record: nobody crashed.
func (v *virtual) wantExact(t *testing.T) standing {
	t.Helper()
	s, d := v.settled(t), v.up.DeliveredTotal()
	for _, r := range s.Limits {
		if got, want := int64(r.Used), in(r.Unit, d); got != want {
			t.Errorf("%s: %s has %d used, and the provider delivered %d (%+v)", v.name, r.Limit, got, want, d)
		}
		if r.Unconfirmed != 0 || r.Unattributed != 0 || r.Exceeded != 0 {
			t.Errorf("%s: %+v, though every request ended well", v.name, r)
		}
		if r.Unit != "concurrent" && int64(r.Used) > int64(r.Max) {
			t.Errorf("%s: %s is overspent: %d used", v.name, r.Limit, r.Used)
		}
	}
	if got, want := s.cost(t), in("usd", d); got != want {
		t.Errorf("%s: the record has a cost of %d nano-dollars, and the provider delivered %d", v.name, got, want)
	}
	if got := s.Total; got.Requests != int64(d.Requests) || got.Input != int64(d.PromptTokens) || got.Output != int64(d.CompletionTokens) {
		t.Errorf("%s: the record is %+v, and the provider delivered %+v", v.name, got, d)
	}
	return s
}

// ask is one request.
type ask struct {
	model  string
	prompt int // bytes
	cap    int
	stream bool
}

func (a ask) body() map[string]any {
	return map[string]any{
		"model": a.model, "max_tokens": a.cap, "stream": a.stream,
		"messages": []any{map[string]any{"role": "user", "content": strings.Repeat("p", a.prompt)}},
	}
}

// The most that the plugin may take the request's input for, and the least
// output that it may lower the cap to: from what the documentation says.
const (
	framing   = 128 // tokens, for a message and for the whole
	minOutput = 256
)

// atMost is the most that the plugin may reserve for the request, in a unit,
// with so much output.
func (a ask) atMost(unit string, output int) int64 {
	text, err := json.Marshal(a.body())
	if err != nil {
		panic(err)
	}
	return in(unit, upstream.Delivered{Requests: 1, PromptTokens: len(text) + framing, CompletionTokens: output})
}

// worst is the most that the plugin may reserve for the request, and least what
// it may need when its cap is lowered as far as it may be.
func (a ask) worst(unit string) int64 { return a.atMost(unit, a.cap) }
func (a ask) least(unit string) int64 { return a.atMost(unit, min(a.cap, minOutput)) }

// randomAsk asks with prompts and caps of random size, streamed or not.
func randomAsk(model string) func(*rand.Rand) ask {
	return func(r *rand.Rand) ask {
		return ask{model: model, prompt: 1 + r.IntN(400), cap: 100 + r.IntN(400), stream: r.IntN(2) == 0}
	}
}

// usual is what most tests of limits ask.
const usual = "up-random:1:400:60"

// verdict is what a client does after an answer.
type verdict int

const (
	again verdict = iota
	pause
	stop
)

// load is many clients that ask at the same time.
type load struct {
	v    *virtual
	next func(*rand.Rand) ask
	// harsh lets requests fail, since something is killed or cut off meanwhile.
	harsh bool
	// judge decides after an answer that isn't a success; nil is untilSpent.
	judge func(ask, *vaulttest.Response) verdict

	mu    sync.Mutex
	tally map[string]int // by status and code
	odd   []string
}

// start has clients ask until each has stopped or ctx has ended, which the
// function that it returns waits for.
func (l *load) start(ctx context.Context, clients []*vaulttest.Client) (wait func()) {
	l.tally = map[string]int{}
	if l.judge == nil {
		l.judge = l.untilSpent
	}
	var group sync.WaitGroup
	for i, c := range clients {
		group.Go(func() {
			r := l.v.random(i)
			for ctx.Err() == nil {
				switch l.once(ctx, c, l.next(r)) {
				case stop:
					return
				case pause:
					select {
					case <-ctx.Done():
					case <-time.After(time.Duration(20+r.IntN(100)) * time.Millisecond):
					}
				case again:
				}
			}
		})
	}
	return group.Wait
}

// run has clients ask until each has stopped, and fails the test on answers
// that weren't to be.
func (l *load) run(t *testing.T, clients []*vaulttest.Client) {
	t.Helper()
	began := time.Now()
	l.start(t.Context(), clients)()
	l.report(t, began)
}

// report logs what was answered, and fails the test on what wasn't to be.
func (l *load) report(t *testing.T, began time.Time) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	t.Logf("%s: %v in %.1f s, up to %d at the provider at once", l.v.name, l.tally, time.Since(began).Seconds(), l.v.up.MaxConcurrent())
	for _, text := range l.odd {
		t.Errorf("%s: %s", l.v.name, text)
	}
}

// succeeded is how many answers were complete.
func (l *load) succeeded() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tally["200"]
}

// strange takes down an answer that wasn't to be.
func (l *load) strange(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.odd) < 5 {
		l.odd = append(l.odd, fmt.Sprintf(format, args...))
	}
}

func (l *load) once(ctx context.Context, c *vaulttest.Client, a ask) verdict {
	resp, err := c.Do(ctx, http.MethodPost, chatPath(mount, l.v.name), a.body())
	if ctx.Err() != nil {
		return stop
	}
	if err != nil {
		l.count("no answer")
		if !l.harsh {
			l.strange("%v", err)
			return stop
		}
		return pause
	}
	if resp.Status == http.StatusOK {
		l.complete(a, resp)
		return again
	}
	var body struct{ Error struct{ Code string } }
	_ = resp.Decode(&body) // what has no code is counted by its status
	l.count(strings.TrimSpace(fmt.Sprint(resp.Status, " ", body.Error.Code)))
	return l.judge(a, resp)
}

func (l *load) count(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tally[what]++
}

// complete checks a success.
func (l *load) complete(a ask, resp *vaulttest.Response) {
	if a.stream {
		if bytes.Contains(resp.Body, []byte("data: [DONE]")) {
			l.count("200")
			return
		}
		l.count("200 broken off")
		if !l.harsh {
			l.strange("a stream without its end: %.300s", resp)
		}
		return
	}
	l.count("200")
	var body struct {
		Usage struct {
			Completion int `json:"completion_tokens"`
		} `json:"usage"`
	}
	if err := resp.Decode(&body); err != nil || body.Usage.Completion == 0 && a.cap > 0 {
		l.strange("a completion without usage: %.300s (%v)", resp, err)
	}
	if body.Usage.Completion > a.cap {
		l.strange("%d tokens came for a cap of %d", body.Usage.Completion, a.cap)
	}
}

var spentText = regexp.MustCompile(`is used up: ([0-9.]+) of ([0-9.]+) ([a-z_]+) used`)

// untilSpent has each client go on until it is told that the limit is spent,
// and holds that answer against what the provider has delivered: it is only
// right when what was *used* left no room for the request, however small it is
// made.
func (l *load) untilSpent(a ask, resp *vaulttest.Response) verdict {
	switch resp.Status {
	case http.StatusTooManyRequests:
		if resp.Header.Get("Retry-After") == "" {
			l.strange("a 429 without retry-after: %s", resp)
		}
		return pause
	case http.StatusPaymentRequired:
		l.checkSpent(a, resp)
		return stop
	}
	if l.harsh && (resp.Status >= 500 || resp.Status == http.StatusNotFound) {
		return pause
	}
	l.strange("%s", resp)
	return stop
}

func (l *load) checkSpent(a ask, resp *vaulttest.Response) {
	said := spentText.FindStringSubmatch(strings.Join(resp.Errors(), " "))
	if said == nil {
		l.strange("a 402 that doesn't say what is used: %s", resp)
		return
	}
	unit := said[3]
	used, most := inUnit(unit, said[1]), inUnit(unit, said[2])
	if used+a.least(unit) <= most {
		l.strange("a 402 for a request that needs %d of what %d used leave of %d: %s", a.least(unit), used, most, resp)
	}
	// The provider has delivered what is settled; a crash counts more.
	if delivered := in(unit, l.v.up.DeliveredTotal()); !l.harsh && used > delivered {
		l.strange("a 402 that counts %d as used, when %d was delivered: %s", used, delivered, resp)
	}
}

func inUnit(unit, text string) int64 {
	if unit == "usd" {
		n, err := nano(text)
		if err != nil {
			panic(err)
		}
		return n
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

// clients returns so many clients of the virtual key, on a few credentials.
func (v *virtual) clients(t *testing.T, n int, timeout time.Duration) []*vaulttest.Client {
	t.Helper()
	list := make([]*vaulttest.Client, n)
	for i := range list {
		if i < 8 {
			list[i] = v.caller(t, i, timeout)
		} else {
			list[i] = list[i%8]
		}
	}
	return list
}

// storageWrites is the mount's metric of that name.
func (r *rig) storageWrites(t *testing.T) int {
	t.Helper()
	for line := range strings.Lines(string(r.root.Read(t, mount+"/metrics").Body)) {
		if text, ok := strings.CutPrefix(line, "portkey_storage_writes_total "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil {
				t.Fatal(err)
			}
			return int(n)
		}
	}
	t.Fatal("the metrics don't count writes to storage")
	return 0
}

// contextOf returns a context of the test, and what ends it.
func contextOf(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return ctx, cancel
}
