// SPDX-License-Identifier: MPL-2.0

//go:build unix

package vaulttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// actor plays a node: it says it is active if it is to, and answers calls as
// it is told.
type actor struct {
	active atomic.Bool
	status atomic.Int64                             // of its answers; 200 if 0
	answer func(http.ResponseWriter, *http.Request) // instead of the usual one, if not nil
	asked  atomic.Int64                             // how often, sys/health left out
}

// ServeHTTP implements http.Handler.
func (a *actor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v1/sys/health" {
		if !a.active.Load() {
			w.WriteHeader(http.StatusTooManyRequests)
		}
		return
	}
	a.asked.Add(1)
	// net/http notices that a client has gone only once its body is read.
	_, _ = io.Copy(io.Discard, r.Body)
	if a.answer != nil {
		a.answer(w, r)
		return
	}
	if status := a.status.Load(); status != 0 {
		w.Header().Set("Location", "http://127.0.0.1:1/")
		w.WriteHeader(int(status))
	}
	fmt.Fprint(w, `{"data":{}}`)
}

// troupe is a Vault whose nodes are actors, the first of them active.
func troupe(t *testing.T, actors ...*actor) *Vault {
	v := &Vault{http: newHTTPClient(), active: newActiveNode()}
	for _, a := range actors {
		server := httptest.NewServer(a)
		t.Cleanup(server.Close)
		t.Cleanup(server.CloseClientConnections)
		v.nodes = append(v.nodes, &Node{v: v, Addr: server.URL})
	}
	t.Cleanup(v.http.CloseIdleConnections)
	actors[0].active.Store(true)
	return v
}

// turn makes another actor the active one.
func turn(from, to *actor) {
	from.active.Store(false)
	to.active.Store(true)
}

func wantAsked(t *testing.T, when string, actors []*actor, want ...int64) {
	t.Helper()
	for i, a := range actors {
		if got := a.asked.Load(); got != want[i] {
			t.Errorf("%s: node %d was asked %d times, want %d", when, i, got, want[i])
		}
	}
}

func TestBalanced_TakesEachFailureOnceAndGoesElsewhereNext(t *testing.T) {
	for _, status := range []int64{307, 500, 503} {
		actors := []*actor{{}, {}, {}}
		c := troupe(t, actors...).Balanced("tok", 0)
		for range 2 {
			c.Write(t, "a", map[string]any{"k": "v"})
		}
		wantAsked(t, "at first", actors, 2, 0, 0)
		actors[0].status.Store(status)
		turn(actors[0], actors[2])
		resp, err := c.Do(t.Context(), "POST", "a", "{}")
		if err != nil || resp.Status != int(status) {
			t.Errorf("the failure isn't shown: %v, %v", resp, err)
		}
		wantAsked(t, fmt.Sprint("after a ", status), actors, 3, 0, 0)
		c.Write(t, "a", map[string]any{"k": "v"})
		wantAsked(t, "then", actors, 3, 0, 1)
	}
}

func TestBalanced_StaysWhereErrorsAreTheCallers(t *testing.T) {
	actors := []*actor{{}, {}}
	c := troupe(t, actors...).Balanced("tok", 0)
	actors[0].status.Store(429)
	for range 3 {
		if _, err := c.Do(t.Context(), "POST", "a", "{}"); err != nil {
			t.Error(err)
		}
		turn(actors[0], actors[1]) // which nothing tells the client
	}
	wantAsked(t, "in the end", actors, 3, 0)
}

// Not even a call whose connection breaks, on one that was used before, where
// net/http repeats what may be repeated.
func TestBalanced_SendsNoCallTwice(t *testing.T) {
	abort := func(_ http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/abort") {
			panic(http.ErrAbortHandler)
		}
	}
	actors := []*actor{{answer: abort}, {answer: abort}}
	c := troupe(t, actors...).Balanced("tok", 0)
	c.Write(t, "a", "{}")
	if resp, err := c.Do(t.Context(), "POST", "abort", "{}"); err == nil {
		t.Errorf("a broken answer is %v", resp)
	}
	wantAsked(t, "after the abort", actors, 2, 0)
	turn(actors[0], actors[1])
	c.Write(t, "a", "{}")
	wantAsked(t, "after another call", actors, 2, 1)
}

func TestBalanced_BoundsTheAttemptToTheEndOfItsAnswer(t *testing.T) {
	hang := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/half" {
			fmt.Fprint(w, "half")
			http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
	}
	for _, path := range []string{"none", "half"} {
		actors := []*actor{{answer: hang}, {}}
		c := troupe(t, actors...).Balanced("tok", 50*time.Millisecond)
		if resp, err := c.Do(t.Context(), "POST", path, "{}"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v, %v", path, resp, err)
		}
		turn(actors[0], actors[1])
		c.Write(t, path, "{}")
		wantAsked(t, path, actors, 1, 1)
	}
}

func TestBalanced_KeepsTheNodeWhenTheCallerGivesUp(t *testing.T) {
	actors := []*actor{{answer: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }}, {}}
	v := troupe(t, actors...)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := v.Balanced("tok", time.Minute).Do(ctx, "POST", "a", "{}"); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if n := v.active.node.Load(); n != v.nodes[0] {
		t.Errorf("the active node is taken for %v", n)
	}
}

func TestBalanced_WaitsForAnActiveNodeAndSaysWhenNothingWasSent(t *testing.T) {
	actors := []*actor{{}, {}}
	v := troupe(t, actors...)
	actors[0].active.Store(false)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	var calls sync.WaitGroup
	for range 3 {
		calls.Go(func() {
			if _, err := v.Balanced("tok", 0).Do(ctx, "POST", "a", "{}"); !errors.Is(err, ErrNoActiveNode) || !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	wantAsked(t, "without an active node", actors, 0, 0)
	time.AfterFunc(100*time.Millisecond, func() { actors[1].active.Store(true) })
	v.Balanced("tok", 0).Write(t, "a", "{}")
	wantAsked(t, "with one", actors, 0, 1)
}

// A paused node takes connections and never answers.
func TestBalanced_FindsTheActiveNodeBesideOneThatHangs(t *testing.T) {
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(hanging.Close)
	t.Cleanup(hanging.CloseClientConnections)
	late := &actor{}
	v := troupe(t, late)
	v.nodes = append([]*Node{{v: v, Addr: hanging.URL}}, v.nodes...)
	begin := time.Now()
	late.active.Store(false)
	time.AfterFunc(200*time.Millisecond, func() { late.active.Store(true) })
	v.Balanced("tok", 0).Write(t, "a", "{}")
	if took := time.Since(begin); took >= healthTimeout {
		t.Errorf("it took %v", took)
	}
}

func TestBalanced_LeavesOtherAddressesAlone(t *testing.T) {
	c := troupe(t, &actor{}).Balanced("tok", 0)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "another server") }))
	t.Cleanup(other.Close)
	c.Addr = other.URL
	resp, err := c.Do(t.Context(), "GET", "a", nil)
	if err != nil || string(resp.Body) != "another server" {
		t.Errorf("%v, %v", resp, err)
	}
}
