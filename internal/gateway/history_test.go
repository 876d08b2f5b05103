// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// history is a random one of callers, operators and Vaults, with what may be known
// of it without a look into the gateway: when Vault would last have said yes.
type history struct {
	*rig
	t      *testing.T
	random *rand.Rand

	vaults  string            // "up", "down", or a key of failedAnswers
	allowed map[wish]bool     // by Vault's policies
	gone    map[string]string // tokens that are no more, and whether the gateway was told: "" or "told"
	alive   []string
	made    int
	sources [2]byte // where callers come from

	lastYes  map[wish]time.Time // when Vault would last have said yes
	yesSince map[wish]time.Time // since when it would, without a break

	admitted, refused int
}

// wish is what Vault's policies are about here.
type wish struct {
	token string
	model int
}

const (
	historyTokens = 3
	historyModels = 3
)

func newHistory(t *testing.T, seed uint64) *history {
	h := &history{
		rig: newRig(t, func(s *Settings) { s.GrantTTL = 10 * time.Second }), t: t, random: rand.New(rand.NewPCG(seed, 0)), vaults: "up",
		allowed: map[wish]bool{}, gone: map[string]string{}, lastYes: map[wish]time.Time{}, yesSince: map[wish]time.Time{},
	}
	h.vault.newcomers = true
	for range historyTokens {
		h.makeToken()
	}
	h.look()
	return h
}

func (h *history) makeToken() {
	name := fmt.Sprintf("tok-%d", h.made)
	h.made++
	for model := range historyModels {
		h.allowed[wish{name, model}] = h.random.IntN(4) > 0
	}
	h.alive = append(h.alive, name)
	h.vault.token(name, func(a *asked) bool {
		var model int
		_, err := fmt.Sscanf(fmt.Sprint(a.fields["model"]), "m-%d", &model)
		return err == nil && h.allowed[wish{name, model}]
	})
}

func (h *history) says(w wish) bool {
	return h.vaults == "up" && h.allowed[w] && slices.Contains(h.alive, w.token)
}

// look notes what Vault would say now. It is called before and after everything that
// changes that, time included.
func (h *history) look() {
	now := h.clock.now()
	for w := range h.allowed {
		if !h.says(w) {
			delete(h.yesSince, w)
			continue
		}
		h.lastYes[w] = now
		if _, before := h.yesSince[w]; !before {
			h.yesSince[w] = now
		}
	}
}

func (h *history) step() {
	h.look()
	defer h.look()
	switch n := h.random.IntN(100); {
	case n < 55:
		h.ask()
	case n < 67:
		h.clock.advance(time.Duration(h.random.Int64N(int64(8 * time.Second))))
	case n < 74:
		all := slices.SortedFunc(maps.Keys(h.allowed), func(a, b wish) int { return a.compare(b) })
		w := all[h.random.IntN(len(all))]
		h.allowed[w] = !h.allowed[w]
	case n < 81:
		h.endToken()
	case n < 85:
		h.tell()
	case n < 88:
		h.apply(h.t, func(s *Settings) {
			s.GrantTTL = []time.Duration{0, 5 * time.Second, 10 * time.Second}[h.random.IntN(3)]
		})
		clear(h.lastYes)
	case n < 98:
		h.changeVault()
	default:
		h.Sweep()
	}
}

func (a wish) compare(b wish) int {
	if a.token != b.token {
		return len(a.token) - len(b.token) + slices.Compare([]byte(a.token), []byte(b.token))
	}
	return a.model - b.model
}

// endToken revokes a token, or lets it expire. The gateway may be told later.
func (h *history) endToken() {
	i := h.random.IntN(len(h.alive))
	name := h.alive[i]
	h.alive = slices.Delete(h.alive, i, i+1)
	if h.gone[name] = ""; h.random.IntN(2) == 0 {
		h.gone[name] = "told"
		h.vault.revoke(name)
	} else {
		h.vault.expire(name)
	}
	h.makeToken()
	h.look()
	for model := range historyModels { // as somebody would who has stolen it
		h.askFor(wish{name, model})
	}
}

// tell lets Vault end the leases of tokens that are no more.
func (h *history) tell() {
	for name, told := range h.gone {
		if told == "" {
			h.gone[name] = "told"
			h.vault.revoke(name)
		}
	}
}

func (h *history) changeVault() {
	states := []string{"up", "up", "up", "down", "cut", "500"}
	if h.vaults = states[h.random.IntN(len(states))]; h.random.IntN(8) == 0 {
		failed := slices.Sorted(maps.Keys(failedAnswers))
		h.vaults = failed[h.random.IntN(len(failed))]
	}
	switch h.vaults {
	case "up":
		h.vault.misbehave(nil, nil)
	case "down":
		h.vault.misbehave(cutOff, nil)
	default:
		h.vault.misbehave(nil, failedAnswers[h.vaults].answer)
	}
}

// ask sends a request and judges whether it may have been let in.
func (h *history) ask() {
	names := h.alive
	if h.random.IntN(8) == 0 {
		names = slices.Concat(h.alive, slices.Sorted(maps.Keys(h.gone)))
	}
	h.askFor(wish{names[h.random.IntN(len(names))], h.random.IntN(historyModels)})
}

func (h *history) askFor(w wish) {
	at := h.random.IntN(8) / 7 // most come from one
	source := fmt.Sprintf("10.0.%d.%d:1", at, h.sources[at])
	reached := len(h.provider.requests())
	got := h.send(from(source, chatRequest(w.token, ofModel(w.model))))
	now := h.clock.now()
	in := got.status == http.StatusOK
	if n := len(h.provider.requests()) - reached; n != map[bool]int{true: 1}[in] {
		h.t.Fatalf("%d requests reached the provider for an answer of %d", n, got.status)
	}
	if in {
		h.admitted++
		last, ever := h.lastYes[w]
		if h.gone[w.token] == "told" {
			h.t.Fatalf("%v was let in, though the gateway was told that the token is no more", w)
		}
		if fresh := now.Sub(last) < h.settings.GrantTTL || h.says(w); !ever || !fresh {
			h.t.Fatalf("%v was let in, though Vault would last have said yes %s ago", w, now.Sub(last))
		}
		return
	}
	h.refused++
	if got.code == apierror.CodeTooManyFailures {
		h.sources[at]++ // callers move on, so that this isn't all that there is
		return
	}
	since, yes := h.yesSince[w]
	if yes && now.Sub(since) >= refusalTTL {
		h.t.Fatalf("%v was refused with %d %s, though Vault has allowed it for %s", w, got.status, got.body, now.Sub(since))
	}
}

func TestHistory_OnlyWhomVaultWouldHaveLetInWithinTheTTLIsLetIn(t *testing.T) {
	admitted, refused := 0, 0
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := newHistory(t, seed)
			for range 150 {
				h.step()
			}
			admitted, refused = admitted+h.admitted, refused+h.refused
		})
	}
	if t.Logf("%d were let in, %d refused", admitted, refused); admitted < 500 || refused < 500 {
		t.Errorf("%d were let in and %d refused, which proves little", admitted, refused)
	}
}

func TestHistory_NoRequestThatBeginsAfterARevocationIsLetInHoweverMuchGoesOn(t *testing.T) {
	r := newRig(t)
	r.vault.newcomers = true
	var ended [8]atomic.Bool
	for i := range ended {
		r.vault.token(fmt.Sprintf("tok-%d", i), nil)
	}
	var all sync.WaitGroup
	var admitted, refused atomic.Int64
	for worker := range 16 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(worker), 1))
			for range 100 {
				i := random.IntN(len(ended))
				over := ended[i].Load()
				source := fmt.Sprintf("192.0.%d.%d:1", worker, random.IntN(200)) // apart, for the limit of failures
				got := r.send(from(source, chatRequest(fmt.Sprintf("tok-%d", i), ofModel(random.IntN(3)))))
				if got.status == http.StatusOK {
					admitted.Add(1)
				} else {
					refused.Add(1)
				}
				if over && got.status == http.StatusOK {
					t.Errorf("tok-%d was let in after its revocation", i)
				}
			}
		})
	}
	all.Go(func() {
		for i := range ended {
			for start := admitted.Load() + refused.Load(); admitted.Load()+refused.Load() < start+150; {
				time.Sleep(time.Millisecond)
				r.Sweep()
			}
			r.vault.revoke(fmt.Sprintf("tok-%d", i))
			ended[i].Store(true)
		}
	})
	all.Wait()
	if admitted.Load() == 0 || refused.Load() == 0 {
		t.Errorf("%d were let in and %d refused", admitted.Load(), refused.Load())
	}
}
