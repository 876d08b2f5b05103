// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// deadlines is a ResponseWriter that notes the deadline of reads.
type deadlines struct {
	*httptest.ResponseRecorder
	read time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	d.read = t
	return nil
}

// paced is a body that gives n bytes after each pause, while there are rounds left.
type paced struct {
	n, rounds int
	pause     time.Duration
}

func (p *paced) Read(b []byte) (int, error) {
	if p.rounds == 0 {
		return 0, io.EOF
	}
	p.rounds--
	time.Sleep(p.pause)
	return min(p.n, len(b)), nil
}

// slowly reads a stranger's or another caller's body that comes at a pace, and returns
// how long it took until its deadline or its end.
func slowly(t *testing.T, stranger bool, from *paced) (took time.Duration, whole bool) {
	synctest.Test(t, func(t *testing.T) {
		w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		live := &live{Settings: Settings{MaxBodyBytes: 1 << 40}}
		in := &bodyReader{from: from, call: &call{
			live: live, answer: newAnswer(w, httptest.NewRequest("POST", "/v1/chat/completions", nil), live), share: share{stranger: stranger},
		}}
		began := time.Now()
		in.start()
		for buf := make([]byte, 1<<20); ; {
			before := w.read
			_, err := in.Read(buf)
			if !before.IsZero() && !time.Now().Before(before) { // a connection would have failed then
				took = before.Sub(began)
				return
			}
			if err == io.EOF {
				took, whole = time.Since(began), true
				if !w.read.IsZero() {
					t.Error("the deadline is left when the body has been read")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	})
	return took, whole
}

func TestBodyReader_EndsBodiesThatComeTooSlowly(t *testing.T) {
	for stranger, pace := range map[bool]int{false: int(callersPace), true: int(strangersPace)} {
		for name, c := range map[string]struct {
			from  paced
			whole bool
			most  time.Duration
		}{
			"nothing":              {paced{1, 1, time.Hour}, false, bodyPause},
			"a byte now and then":  {paced{1, 1000, 10 * time.Second}, false, bodyStart + time.Second},
			"just too slow":        {paced{pace * 9 / 10 * 2, 10_000, 2 * time.Second}, false, 11 * bodyStart},
			"just fast enough":     {paced{pace * 11 / 10 * 2, 500, 2 * time.Second}, true, 1000 * time.Second},
			"a pause in the midst": {paced{10 << 20, 3, bodyPause + 2*time.Second}, false, bodyPause},
			"fast and long":        {paced{1 << 20, 10_000, 100 * time.Millisecond}, true, 1000 * time.Second},
		} {
			if took, whole := slowly(t, stranger, &c.from); whole != c.whole || took > c.most {
				t.Errorf("%s, of a stranger: %t: it ended after %s, whole: %t", name, stranger, took, whole)
			}
		}
	}
}

// An hour of a default-sized body at a byte now and then is what a stranger must not
// have; a caller on a poor line must.
func TestBodyReader_HoldsNoStrangersBodyForLong(t *testing.T) {
	largest := paced{64 << 20 / 100, 99, 20 * time.Second} // and then nothing more
	if took, whole := slowly(t, true, &largest); whole || took > 6*time.Minute {
		t.Errorf("a stranger's was held for %s, whole: %t", took, whole)
	}
	patient := paced{64 << 20 / 100, 100, 20 * time.Second}
	if took, whole := slowly(t, false, &patient); !whole {
		t.Errorf("a caller's was given up after %s", took)
	}
}

// nobodyElses leaves n bytes of the budget for bodies, until the test ends.
func nobodyElses(t *testing.T, r *rig, n int64) {
	t.Helper()
	if !r.bodies.take(bodyBudget - n) {
		t.Fatal("the budget is in use")
	}
	t.Cleanup(func() { r.bodies.give(bodyBudget - n) }) // before rig.finish
}

func TestBodyReader_BudgetBoundsWhatBodiesHoldTogether(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	nobodyElses(t, r, 10_000)
	large := `{"model":"m","x":"` + strings.Repeat("a", 20_000) + `"}`
	for name, req := range map[string]*http.Request{
		"announced":     chatRequest("tok", large),
		"not announced": unannounced(chatRequest("tok", ""), large),
		"a form":        upload("v1/files", formType, form(field("a", large))),
	} {
		got := r.send(req)
		if got.status != 503 || got.code != apierror.CodeGatewayUnavailable || got.header.Get("Retry-After") == "" {
			t.Errorf("%s: got %d %.200s", name, got.status, got.body)
		}
		wantOK(t, r.chat("tok", hello))
	}
	// What isn't kept takes nothing.
	wantOK(t, r.send(upload("v1/files", "application/octet-stream", large)))
	wantOK(t, r.send(upload("v1/audio/transcriptions", formType, form(field("model", "m"), file("file", large)))))
}

// Whoever only says that a large body will come, which takes no valid credential and no
// traffic, must not keep others from being served.
func TestBodyReader_LengthThatIsOnlyAnnouncedTakesNothingFromOthers(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	nobodyElses(t, r, 1<<20)
	never, stop := io.Pipe()
	req := chatRequest("made-up", "{}")
	req.Body, req.ContentLength = never, 1<<20
	idle := r.inBackground(req)
	until(t, "it is under way", func() bool { return r.calls.count() == 1 })
	time.Sleep(20 * time.Millisecond) // for it to begin to wait
	got := r.chat("tok", hello)
	_ = stop.Close()
	received(t, "the end of the idle one", idle)
	if got.status != 200 {
		t.Errorf("another caller got %d %s", got.status, got.body)
	}
}

func TestBodyReader_GivesTheBudgetBackWhateverHappens(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.MaxBodyBytes = 100_000 })
	r.vault.token("tok", func(a *asked) bool { return a.fields["model"] != "refused" })
	r.mount.leased["vk-good"] = Lease{Role: "team-a"}
	large := `,"x":"` + strings.Repeat("a", 20_000) + `"}`
	broken := chatRequest("tok", hello)
	broken.Body, broken.ContentLength = io.NopCloser(strings.NewReader(hello[:10])), int64(len(hello))
	for name, req := range map[string]*http.Request{
		"good":          chatRequest("tok", `{"model":"m"`+large),
		"stranger":      chatRequest("made-up", `{"model":"m"`+large),
		"leased key":    chatRequest("vk-good", `{"model":"m"`+large),
		"dead key":      chatRequest("vk-dead", `{"model":"m"`+large),
		"refused":       chatRequest("tok", `{"model":"refused"`+large),
		"no credential": chatRequest("", `{"model":"m"`+large),
		"no JSON":       chatRequest("tok", `{"model":"m"`+large[:20_000]),
		"too large":     unannounced(chatRequest("tok", ""), strings.Repeat(" ", 200_000)),
		"broken off":    broken,
		"form":          upload("v1/files", formType, form(field("a", large), file("f", large))),
		"bad form":      upload("v1/files", formType, field("a", large)),
		"no provider":   chatRequest("tok", `{"model":"gone"`+large),
	} {
		if name == "no provider" {
			r.provider.answers(func(w http.ResponseWriter, _ *http.Request) { cutOff(w, nil) })
		}
		got := r.send(req)
		r.wantNothingHeld(t, fmt.Sprintf("%s: after %d", name, got.status))
		r.provider.answers(nil)
	}
}
