// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// largest is a request with a body of the largest size of a rig's settings.
func largest(token string) *http.Request {
	const start, end = `{"model":"m","x":"`, `"}`
	return chatRequest(token, start+strings.Repeat("a", 1<<20-len(start+end))+end)
}

// unfinished is such a request whose last byte doesn't come until end is called.
func unfinished(token string) (req *http.Request, end func()) {
	req = largest(token)
	text, _ := io.ReadAll(req.Body)
	never, stop := io.Pipe()
	req.Body = io.NopCloser(io.MultiReader(strings.NewReader(string(text[:len(text)-1])), never))
	return req, func() { _ = stop.Close() }
}

func (b *bodies) ofStrangers() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.strangers
}

func TestBudget_SixteenStrangersOfOneAddressShutNobodyOut(t *testing.T) {
	r := newRig(t)
	for _, token := range []string{"known", "new"} {
		r.vault.token(token, nil)
	}
	r.mount.leased["vk-good"] = Lease{Role: "team-a"}
	wantOK(t, r.chat("known", hello))
	first, end := unfinished("made-up")
	defer end()
	held := r.inBackground(first)
	most := first.ContentLength - 1
	until(t, "its body is held", func() bool { return r.bodies.ofStrangers() == most })
	for i := range 15 {
		req, end := unfinished(fmt.Sprint("made-up-", i))
		defer end()
		wantRefusal(t, r.send(req), 503, apierror.CodeGatewayUnavailable, "at this address")
	}
	// What helps is said: a small request makes a token known.
	got := r.send(largest("new"))
	wantRefusal(t, got, 503, apierror.CodeGatewayUnavailable, "small request first")
	if got.header.Get("Retry-After") == "" {
		t.Error("there is no Retry-After")
	}
	wantOK(t, r.send(largest("known")))
	wantOK(t, r.send(largest("vk-good")))
	wantOK(t, r.send(from("198.51.100.1:1", largest("new"))))
	wantOK(t, r.chat("new", hello))
	wantOK(t, r.send(largest("new")))
	select {
	case got := <-held:
		t.Errorf("the first stranger got %d", got.status)
	default:
	}
}

// What a prompt template is filled in to is held as a body is.
func TestBudget_CountsWhatPromptsAreFilledInTo(t *testing.T) {
	r := newPromptRig(t)
	large := strings.Replace(filledIn, "Hi", strings.Repeat("a", 20_000), 1)
	r.mount.set(func(m *fakeMount) { m.prompts["large"] = fakePrompt{text: large} })
	nobodyElses(t, r, 10_000)
	wantOK(t, r.send(request("POST", promptPath, "tok", called)))
	for _, action := range []string{"render", "completions"} {
		got := r.send(request("POST", "/v1/prompts/large/"+action, "tok", called))
		wantRefusal(t, got, 503, apierror.CodeGatewayUnavailable, "too many large bodies")
	}
}

func TestBudget_StrangersOfAllAddressesLeaveTheRestToOthers(t *testing.T) {
	r := newRig(t)
	for _, token := range []string{"known", "new", "another"} {
		r.vault.token(token, nil)
	}
	wantOK(t, r.chat("known", hello))
	const each = 16 << 20
	fill := func(bytes int, small bool) {
		for i := range bytes / each {
			s := share{of: &r.bodies, stranger: true, source: sourceBlock(netip.AddrFrom4([4]byte{10, 0, byte(bytes >> 24), byte(i)}))}
			if !r.bodies.takeStrange(s.source, each, each, small) {
				t.Fatalf("the %dth of %d bytes has no room", i, bytes)
			}
			s.held = each
			t.Cleanup(s.release)
		}
	}
	fill(strangersBudget-smallBudget, false)
	wantRefusal(t, r.send(largest("new")), 503, apierror.CodeGatewayUnavailable, "in all")
	wantOK(t, r.chat("another", hello)) // small ones have room still
	fill(smallBudget-each, true)
	fill(each, true)
	wantRefusal(t, r.chat("new", hello), 503, apierror.CodeGatewayUnavailable)
	wantOK(t, r.send(largest("known")))
	if used := r.bodies.used.Load(); used != strangersBudget {
		t.Errorf("%d bytes are in use", used)
	}
}

// Of a token with a grant that lasts, Vault isn't asked for long.
func TestBudget_TokenIsNoStrangerAsLongAsItsGrantCounts(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.GrantTTL = time.Hour })
	r.vault.token("tok", nil)
	wantOK(t, r.chat("tok", hello))
	stranger := share{of: &r.bodies, stranger: true, source: sourceBlock(netip.MustParseAddr(testSource)), most: r.settings.MaxBodyBytes}
	if err := stranger.take(stranger.most); err != nil {
		t.Fatal(err)
	}
	defer stranger.release()
	r.clock.advance(time.Hour + knownFor - time.Second)
	r.Sweep()
	wantOK(t, r.send(largest("tok")))
	r.vault.revoke("tok")
	wantRefusal(t, r.send(largest("tok")), 403, apierror.CodePermissionDenied)
	wantRefusal(t, r.send(largest("tok")), 503, apierror.CodeGatewayUnavailable)
}

// That Vault refuses a token one thing doesn't make a stranger of who has another
// grant.
func TestBudget_TokenWithAGrantIsNoStrangerThoughItWasRefusedSomethingElse(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", func(a *asked) bool { return a.fields["model"] != "refused" })
	wantOK(t, r.chat("tok", hello))
	wantRefusal(t, r.chat("tok", `{"model":"refused"}`), 403, apierror.CodePermissionDenied)
	asked := r.vault.count()
	wantOK(t, r.chat("tok", hello))
	if r.vault.count() != asked {
		t.Fatal("the grant is gone")
	}
	stranger := share{of: &r.bodies, stranger: true, source: sourceBlock(netip.MustParseAddr(testSource)), most: r.settings.MaxBodyBytes}
	if err := stranger.take(stranger.most); err != nil {
		t.Fatal(err)
	}
	defer stranger.release()
	wantOK(t, r.send(largest("tok")))
}

// While an answer comes, which may take minutes, its request is no stranger's.
func TestBudget_WhomVaultHasLetInIsNoStranger(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	s := stall(r)
	done := r.inBackground(largest("tok"))
	received(t, "the request", s.arrived)
	if strangers, used := r.bodies.ofStrangers(), r.bodies.used.Load(); strangers != 0 || used == 0 {
		t.Errorf("strangers hold %d bytes of %d", strangers, used)
	}
	close(s.gate)
	wantOK(t, received(t, "the answer", done))
}

func TestBudget_BoundsHoldHoweverManyTakeAtOnce(t *testing.T) {
	var b bodies
	const most = strangersBudget / 6
	blocks := make([]netip.Prefix, 8)
	for i := range blocks {
		blocks[i] = sourceBlock(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
	}
	var all sync.WaitGroup
	var full sync.Map
	for seed := range 16 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(5, uint64(seed)))
			for range 2000 {
				s := share{of: &b, stranger: random.IntN(4) > 0, source: blocks[random.IntN(len(blocks))], most: most}
				for range random.IntN(5) {
					if err := s.take(random.Int64N(most / 2)); err != nil {
						full.Store(s.stranger, true)
					}
					b.mu.Lock()
					if used := b.used.Load(); b.strangers > strangersBudget || b.sources[s.source] > most+smallRoom || b.strangers < 0 || used < 0 {
						t.Errorf("%d bytes, of strangers %d, of %s %d", used, b.strangers, s.source, b.sources[s.source])
					}
					b.mu.Unlock()
				}
				if random.IntN(2) == 0 {
					s.vouch()
				}
				s.release()
			}
		})
	}
	all.Wait()
	if _, hit := full.Load(true); !hit {
		t.Error("no stranger was refused, so that this test proves nothing")
	}
	if b.used.Load() != 0 || b.strangers != 0 || len(b.sources) != 0 {
		t.Errorf("left: %d, of strangers %d, %v", b.used.Load(), b.strangers, b.sources)
	}
}

// Run with -race.
func TestBudget_IsGivenBackWhoeverComesAtOnce(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", func(a *asked) bool { return a.fields["model"] != "refused" })
	r.mount.leased["vk-good"] = Lease{Role: "team-a"}
	text := strings.Repeat("a", 100_000)
	kinds := []func() *http.Request{
		func() *http.Request { return chatRequest("tok", `{"model":"m","x":"`+text+`"}`) },
		func() *http.Request { return chatRequest("tok", `{"model":"refused","x":"`+text+`"}`) },
		func() *http.Request { return chatRequest("made-up", `{"model":"m","x":"`+text+`"}`) },
		func() *http.Request { return chatRequest("vk-good", `{"model":"m","x":"`+text+`"}`) },
		func() *http.Request { return chatRequest("vk-dead", `{"model":"m","x":"`+text+`"}`) },
		func() *http.Request { return chatRequest("", `{"model":"m","x":"`+text+`"}`) },
		func() *http.Request { return chatRequest("tok", `{"model":"m","x":"`+text) },
		func() *http.Request {
			return upload("v1/audio/transcriptions", formType, form(field("x", text), field("model", "m"), file("f", text)))
		},
		func() *http.Request {
			req := chatRequest("tok", `{"model":"m"}`)
			req.Body = io.NopCloser(io.MultiReader(strings.NewReader(text), brokenOff{}))
			req.ContentLength = 1 << 19
			return req
		},
	}
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			for round := range 20 {
				source := fmt.Sprintf("198.51.100.%d:1", (i+round)%5)
				r.send(from(source, kinds[(i+round)%len(kinds)]()))
			}
		})
	}
	all.Wait()
	r.wantNothingHeld(t, "after all")
}

// brokenOff is what comes of a connection that ends.
type brokenOff struct{}

func (brokenOff) Read([]byte) (int, error) { return 0, errors.New("broken off") }
