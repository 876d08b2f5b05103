// SPDX-License-Identifier: MPL-2.0

package gateway

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-portkey/internal/apierror"
)

// stalled is a provider that answers only when it is let, or its caller goes.
type stalled struct {
	arrived chan struct{}
	gate    chan struct{}
	gone    chan struct{}
}

func stall(r *rig) *stalled {
	s := &stalled{arrived: make(chan struct{}, 1000), gate: make(chan struct{}), gone: make(chan struct{}, 1000)}
	r.provider.answers(func(w http.ResponseWriter, req *http.Request) {
		s.arrived <- struct{}{}
		select {
		case <-s.gate:
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(completion))
		case <-req.Context().Done():
			s.gone <- struct{}{}
		}
	})
	return s
}

func TestCalls_MaxStreamsBoundsWhatIsUnderWay(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.MaxStreams = 3 })
	r.vault.token("tok", nil)
	s := stall(r)
	var replies []<-chan reply
	for range 3 {
		replies = append(replies, r.inBackground(chatRequest("tok", hello)))
		received(t, "a request", s.arrived)
	}
	if n := r.Status().Streams; n != 3 {
		t.Errorf("status says %d streams", n)
	}
	got := r.chat("tok", hello)
	wantRefusal(t, got, 429, apierror.CodeRateLimitExceeded, "max_streams")
	if got.header.Get("Retry-After") == "" || got.header.Get("Connection") != "close" {
		t.Errorf("headers: %v", got.header)
	}
	if got := r.send(request("GET", "/healthz", "", "")); got.status != 200 {
		t.Errorf("/healthz: %d", got.status)
	}
	close(s.gate)
	for _, done := range replies {
		wantOK(t, received(t, "an answer", done))
	}
	wantOK(t, r.chat("tok", hello))
	if n := r.Status().Streams; n != 0 {
		t.Errorf("status says %d streams", n)
	}
}

func TestCalls_NeverMoreThanMostHoweverManyEnterAtOnce(t *testing.T) {
	var c calls
	const most = 4
	var under, peak int
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			for range 200 {
				var u underway
				if _, err := c.enter(context.Background(), &u, most); err != nil {
					continue
				}
				mu.Lock()
				under++
				peak = max(peak, under)
				mu.Unlock()
				mu.Lock()
				under--
				mu.Unlock()
				c.leave(&u)
			}
		})
	}
	all.Wait()
	if peak > most || peak == 0 || c.count() != 0 {
		t.Errorf("%d were under way at once, the most is %d; %d are left", peak, most, c.count())
	}
}

func TestCalls_DrainRefusesNewOnesAndEndsOldOnesAfterItsTimeout(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	s := stall(r)
	old := r.inBackground(chatRequest("tok", hello))
	received(t, "a request", s.arrived)
	if n := r.Drain(soon); n != 1 || !r.Status().Draining {
		t.Errorf("a drain leaves %d, %+v", n, r.Status())
	}
	got := r.chat("tok", hello)
	wantRefusal(t, got, 503, apierror.CodeGatewayUnavailable, "another address")
	if got.header.Get("Retry-After") == "" {
		t.Error("there is no Retry-After")
	}
	if got := r.send(request("GET", "/readyz", "", "")); got.status != 503 {
		t.Errorf("/readyz: %d", got.status)
	}
	select {
	case got := <-old:
		t.Fatalf("the drain ended a request before its time: %d", got.status)
	case <-time.After(20 * time.Millisecond):
	}
	r.Drain(0) // again, with less patience
	if got := received(t, "the end of the old request", old); got.status == 200 {
		t.Errorf("it ended with %d %s", got.status, got.body)
	}
	received(t, "the end at the provider", s.gone)
	if r.Undrain(); r.Status().Draining {
		t.Error("it still drains")
	}
	next := r.inBackground(chatRequest("tok", hello))
	received(t, "a request", s.arrived)
	close(s.gate)
	wantOK(t, received(t, "its answer", next))
}

func TestCalls_DrainThatIsCancelledInTimeEndsNothing(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	s := stall(r)
	old := r.inBackground(chatRequest("tok", hello))
	received(t, "a request", s.arrived)
	r.Drain(50 * time.Millisecond)
	r.Undrain()
	select {
	case got := <-old:
		t.Fatalf("it was ended: %d", got.status)
	case <-time.After(150 * time.Millisecond):
	}
	close(s.gate)
	wantOK(t, received(t, "its answer", old))
}

// A drain's timeout may pass at the very moment when it is cancelled.
func TestCalls_DrainThatIsCancelledAtItsTimeoutHarmsNoLaterCall(t *testing.T) {
	var c calls
	defer c.close()
	for i := range 20_000 {
		timeout := time.Duration(i%50) * time.Microsecond
		c.drain(&timeout)
		for end := time.Now().Add(timeout); time.Now().Before(end); {
			continue // sleeping takes longer
		}
		c.drain(nil)
		var u underway
		ctx, err := c.enter(context.Background(), &u, 10)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i%2) * time.Microsecond) // time for a timer that is late
		if ctx.Err() != nil {
			t.Fatalf("round %d: a call that began after the drain was ended with it", i)
		}
		c.leave(&u)
	}
}

func TestCalls_CloseEndsAllForGood(t *testing.T) {
	r := newRig(t)
	r.vault.token("tok", nil)
	s := stall(r)
	var replies []<-chan reply
	for range 10 {
		replies = append(replies, r.inBackground(chatRequest("tok", hello)))
		received(t, "a request", s.arrived)
	}
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	r.Close(ctx)
	if r.calls.count() != 0 || ctx.Err() != nil {
		t.Errorf("it closed with %d requests under way", r.calls.count())
	}
	for _, done := range replies {
		if got := received(t, "an end", done); got.status == 200 {
			t.Errorf("a request ended with %d", got.status)
		}
	}
	r.Undrain()
	if got := r.chat("tok", hello); got.status != 503 {
		t.Errorf("after its end, it answers %d", got.status)
	}
	s2 := r.settings
	if err := r.Apply(&s2); err == nil {
		t.Error("after its end, it can be turned on")
	}
}

func TestCalls_NoneEntersAfterTheClose(t *testing.T) {
	var c calls
	var before, after underway
	ctx, err := c.enter(t.Context(), &before, 10)
	if err != nil {
		t.Fatal(err)
	}
	c.close()
	if ctx.Err() == nil {
		t.Error("a call goes on after the close")
	}
	c.drain(nil)
	if _, err := c.enter(t.Context(), &after, 10); err == nil || err.Status != http.StatusServiceUnavailable {
		t.Errorf("a call was let in after the close: %v", err)
	}
	if c.leave(&before); c.count() != 0 || !c.refuses() {
		t.Errorf("%d are left", c.count())
	}
}

func TestCalls_WaitEndsWithItsContext(t *testing.T) {
	var c calls
	var u underway
	if _, err := c.enter(t.Context(), &u, 1); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	c.wait(ctx)
	if c.count() != 1 {
		t.Error("the call is gone")
	}
	c.leave(&u)
	c.wait(context.Background())
}

func TestByteBudget_IsNeverPassedAndTakesBackWhatItGave(t *testing.T) {
	var b byteBudget
	if b.take(bodyBudget + 1) {
		t.Error("it gives more than there is")
	}
	if !b.take(bodyBudget) || b.take(1) {
		t.Error("it doesn't give exactly what there is")
	}
	b.give(bodyBudget)
	if b.used.Load() != 0 || !b.take(1) {
		t.Errorf("%d are used", b.used.Load())
	}
}
